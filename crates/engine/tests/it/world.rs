//! A world around one run: it does what the engine asks for, keeps the journal, and checks what must always hold.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_domain::plan::Plan;
use sheaf_domain::{Assignment, LineageName, Metrics, Refusal, SiteName, TaskId, Timestamp, Wait};
use sheaf_engine::{Action, Event, FoldOrder, Rejected, RunState, StageKey, Start, TaskStanding};

use crate::plans::{accuracy, created, new_version, site, slots, stage, start};

/// One step of a test.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Present(&'static str),
    /// Exactly these are present.
    Snapshot(&'static [&'static str]),
    Lost(&'static str),
    Revoked(&'static str),
    /// The participant hands in its open task.
    Submit(&'static str),
    /// The same with an accuracy and a number of examples.
    Report(&'static str, f64, f64),
    /// The participant hands in the task it was given `.1` assignments ago, counted from its first.
    Again(&'static str, usize),
    Refuse(&'static str),
    Fail(&'static str),
    Deadline,
    Fold,
    FoldFails {
        permanent: bool,
    },
    Stop,
    Extend(u32),
    /// The step must be refused, with a reason that contains the text, and change nothing.
    Not(Box<Step>, &'static str),
    /// The waits, as people read them, must contain the text.
    Waits(&'static str),
    /// The phase must be this, with a reason that contains the text.
    Over(&'static str, &'static str),
    /// Exactly these have open tasks.
    Open(&'static [&'static str]),
    /// This round must be going on.
    Round(u32),
}

pub(crate) use Step::*;

/// Takes a run through `steps` from a given model, checking every invariant after each.
pub(crate) fn check(plan: &Plan, steps: &[Step]) -> World {
    check_from(plan, start(), steps)
}

/// The same from any start.
pub(crate) fn check_from(plan: &Plan, start: Start, steps: &[Step]) -> World {
    let mut world = World::new(plan, start);
    for (idx, step) in steps.iter().enumerate() {
        world.step(step).unwrap_or_else(|error| panic!("step {idx}, {step:?}: {error}"));
    }
    world.check_replay();
    world
}

/// What a test looks at.
pub(crate) struct World {
    pub(crate) state: RunState,
    pub(crate) journal: Vec<(Timestamp, Event)>,
    /// Every assignment ever made, by participant, in order.
    pub(crate) given: BTreeMap<SiteName, Vec<Assignment>>,
    /// Outboxes: handed out and not taken back.
    pub(crate) outbox: BTreeMap<TaskId, Assignment>,
    pub(crate) armed: Vec<(StageKey, Timestamp)>,
    /// Every fold ever ordered.
    pub(crate) orders: Vec<FoldOrder>,
    pub(crate) pending_folds: Vec<FoldOrder>,
    pub(crate) released_tasks: BTreeSet<TaskId>,
    pub(crate) versions: BTreeSet<(LineageName, u32)>,
    accepted: BTreeSet<TaskId>,
    closed_stages: BTreeSet<StageKey>,
    clock: u64,
}

impl World {
    pub(crate) fn new(plan: &Plan, start: Start) -> World {
        let event = created(plan, start);
        let at = Timestamp::from_millis(1_000);
        let (state, actions) = RunState::create(at, &event).unwrap();
        let mut world = World {
            versions: versions_of(&state),
            state,
            journal: vec![(at, event)],
            given: BTreeMap::new(),
            outbox: BTreeMap::new(),
            armed: Vec::new(),
            orders: Vec::new(),
            pending_folds: Vec::new(),
            released_tasks: BTreeSet::new(),
            accepted: BTreeSet::new(),
            closed_stages: BTreeSet::new(),
            clock: 1_000,
        };
        world.act(actions);
        world.check_invariants();
        world
    }

    /// Applies an event; a refused one must have left the state as it was.
    pub(crate) fn apply(&mut self, event: Event) -> Result<(), Rejected> {
        self.clock += 1;
        let at = Timestamp::from_millis(self.clock);
        let before = self.state.clone();
        match self.state.apply(at, &event) {
            Err(rejected) => {
                assert_eq!(self.state, before, "a refused event changed the state: {event:?}");
                Err(rejected)
            }
            Ok(actions) => {
                self.note(&event);
                let round = before.status().round;
                assert!(self.state.status().round >= round, "the round went back");
                self.journal.push((at, event));
                self.act(actions);
                self.check_invariants();
                Ok(())
            }
        }
    }

    /// What an accepted event does to the world itself.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Submitted { task, .. } => {
                assert!(self.accepted.insert(*task), "a submission counted twice");
            }
            Event::Folded { round, stage, versions } => {
                let key = StageKey { round: *round, stage: stage.clone() };
                assert!(self.closed_stages.insert(key.clone()), "a stage closed twice");
                self.pending_folds.retain(|order| order.key != key);
                self.versions.extend(versions.iter().map(|new| (new.lineage.clone(), *round)));
            }
            Event::DeadlinePassed { round, stage } => {
                self.armed.retain(|(key, _)| (key.round, &key.stage) != (*round, stage));
            }
            _ => {}
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Assign(assignment) => self.assign(*assignment),
                Action::Withdraw { task, .. } => {
                    self.outbox.remove(&task);
                }
                Action::Arm { stage, at } => self.armed.push((stage, at)),
                Action::Fold(order) => {
                    assert!(
                        order.inputs.windows(2).all(|pair| pair[0].site < pair[1].site),
                        "not in canonical order"
                    );
                    self.armed.retain(|(key, _)| *key != order.key);
                    self.orders.push((*order).clone());
                    self.pending_folds.push(*order);
                }
                Action::ReleaseTask(task) => {
                    assert!(self.released_tasks.insert(task), "bytes of a task freed twice");
                    assert!(!self.outbox.contains_key(&task), "bytes of an open task freed");
                }
                Action::ReleaseVersion { lineage, version } => {
                    assert!(self.versions.remove(&(lineage, version)), "a version freed that was not there");
                }
                Action::Ended => {
                    self.pending_folds.clear();
                    self.armed.clear();
                }
                other => panic!("an unknown action: {other:?}"),
            }
        }
        // Deadlines of stages that closed without a fold are not waited for any more.
        let status = self.state.status();
        self.armed.retain(|(key, _)| {
            !status.history.iter().any(|record| (record.round, &record.stage) == (key.round, &key.stage))
        });
    }

    fn assign(&mut self, assignment: Assignment) {
        assert!(!self.released_tasks.contains(&assignment.task), "a task id was used again");
        let given = self.given.entry(assignment.site.clone()).or_default();
        match given.iter().find(|other| other.task == assignment.task) {
            Some(before) => assert_eq!(*before, assignment, "an assignment changed after it was handed out"),
            None => given.push(assignment.clone()),
        }
        self.outbox.insert(assignment.task, assignment);
    }

    fn check_invariants(&self) {
        let status = self.state.status();
        let over = status.phase.is_over();
        assert!(over || !status.waits.is_empty(), "it does not move and does not say why");
        assert!(!over || status.waits.is_empty());
        assert_eq!(status.ended_at.is_some(), over);
        assert_eq!(self.versions, versions_of(&self.state), "versions and their releases differ");
        for assignment in self.outbox.values() {
            let standing = self.state.task(assignment.task, &assignment.site);
            assert_eq!(standing, TaskStanding::Open(Box::new(assignment.clone())));
            for input in &assignment.inputs {
                let kept = self.state.version(&input.version.lineage, input.version.version);
                assert_eq!(
                    kept.map(|version| version.digest),
                    Some(input.digest),
                    "a version in use is gone"
                );
            }
        }
        for order in &self.pending_folds {
            for (lineage, (version, ..)) in &order.current {
                assert!(
                    self.state.version(lineage, *version).is_some(),
                    "a version a fold stands on is gone"
                );
            }
        }
        let live = self.state.live_tasks();
        assert!(live.is_disjoint(&self.released_tasks), "a task is both kept and freed");
        assert!(self.outbox.keys().all(|task| live.contains(task)));
        self.check_outstanding(&self.state);
    }

    /// What the engine would order after a restart is what is ordered and not done.
    fn check_outstanding(&self, state: &RunState) {
        let (mut assigned, mut armed, mut folds) = (BTreeMap::new(), Vec::new(), Vec::new());
        for action in state.outstanding() {
            match action {
                Action::Assign(assignment) => {
                    assigned.insert(assignment.task, *assignment);
                }
                Action::Arm { stage, at } => armed.push((stage, at)),
                Action::Fold(order) => folds.push(*order),
                other => panic!("{other:?} is not done again"),
            }
        }
        assert_eq!(assigned, self.outbox);
        assert_eq!(armed, self.armed);
        assert_eq!(folds, self.pending_folds);
    }

    /// The journal alone makes the same state, also when its bodies went through JSON.
    pub(crate) fn check_replay(&self) {
        let mut replayed: Option<RunState> = None;
        for (at, event) in &self.journal {
            let text = serde_json::to_string(event).unwrap();
            let event: Event = serde_json::from_str(&text).unwrap();
            match &mut replayed {
                None => replayed = Some(RunState::create(*at, &event).unwrap().0),
                Some(state) => drop(state.apply(*at, &event).unwrap()),
            }
        }
        let replayed = replayed.unwrap();
        assert_eq!(replayed, self.state);
        self.check_outstanding(&replayed);
    }

    /// The participant's open assignment.
    pub(crate) fn open(&self, name: &SiteName) -> Option<&Assignment> {
        self.outbox.values().find(|assignment| assignment.site == *name)
    }

    pub(crate) fn last_error(&self, name: &str) -> Option<String> {
        self.state.last_error(&site(name)).map(str::to_owned)
    }

    fn task_of(&self, name: &str) -> TaskId {
        self.open(&site(name)).unwrap_or_else(|| panic!("{name} has no open task")).task
    }

    fn step(&mut self, step: &Step) -> Result<(), Rejected> {
        match step {
            Not(step, reason) => {
                let rejected = self.step(step).unwrap_err();
                assert!(rejected.to_string().contains(reason), "refused with {rejected}");
            }
            Waits(text) => {
                let waits: Vec<String> = self.state.status().waits.iter().map(Wait::to_string).collect();
                assert!(waits.join(" | ").contains(text), "it waits for {waits:?}");
            }
            Over(name, reason) => {
                let phase = self.state.phase();
                assert_eq!(phase.name(), *name, "{phase:?}");
                assert!(phase.reason().unwrap_or_default().contains(reason), "{phase:?}");
            }
            Open(names) => {
                let open: Vec<&str> =
                    self.outbox.values().map(|assignment| assignment.site.as_str()).collect();
                let (open, named): (BTreeSet<&str>, BTreeSet<&str>) =
                    (open.into_iter().collect(), names.iter().copied().collect());
                assert_eq!(open, named);
            }
            Round(round) => assert_eq!(self.state.status().round, *round),
            _ => return self.apply(self.event_of(step)),
        }
        Ok(())
    }

    fn event_of(&self, step: &Step) -> Event {
        match step {
            Present(name) => Event::SitePresent { site: site(name) },
            Snapshot(names) => Event::SitesPresent { sites: names.iter().map(|name| site(name)).collect() },
            Lost(name) => Event::SiteLost { site: site(name), reason: "no sign of life".to_owned() },
            Revoked(name) => Event::SiteRevoked { site: site(name), reason: "key stolen".to_owned() },
            Submit(name) => submitted(self.task_of(name), site(name), 10.0, accuracy(0.5)),
            Report(name, value, examples) => {
                submitted(self.task_of(name), site(name), *examples, accuracy(*value))
            }
            Again(name, idx) => {
                let task = self.given[&site(name)][*idx].task;
                submitted(task, site(name), 10.0, accuracy(0.5))
            }
            Refuse(name) => {
                let refusal = Refusal::Slots { message: "slot model is missing".to_owned() };
                Event::Refused { task: self.task_of(name), site: site(name), refusal }
            }
            Fail(name) => Event::Failed {
                task: self.task_of(name),
                site: site(name),
                reason: "out of memory".to_owned(),
            },
            Deadline => {
                let status = self.state.status();
                let open = status.waits.iter().find_map(|wait| match wait {
                    Wait::Submissions { stage, .. } => Some(stage.clone()),
                    _ => None,
                });
                Event::DeadlinePassed { round: status.round, stage: open.unwrap_or_else(|| stage("train")) }
            }
            Fold => fold_of(self.pending_folds.first().or_else(|| self.orders.last()).unwrap()),
            FoldFails { permanent } => {
                let key = self.pending_folds.first().unwrap().key.clone();
                let reason = "no space left".to_owned();
                Event::FoldFailed { round: key.round, stage: key.stage, reason, permanent: *permanent }
            }
            Stop => Event::StopRequested { reason: "ops: enough".to_owned() },
            Extend(rounds) => Event::Extended { rounds: *rounds },
            _ => panic!("{step:?} is not an event"),
        }
    }
}

pub(crate) fn submitted(task: TaskId, name: SiteName, num_examples: f64, metrics: Metrics) -> Event {
    let slots = slots(&task.to_string());
    Event::Submitted { task, site: name, slots, num_examples, metrics }
}

/// The fold a coordinator would report for an order.
pub(crate) fn fold_of(order: &FoldOrder) -> Event {
    let label = format!("{}/{}", order.key.round, order.key.stage);
    let versions = order
        .folds
        .iter()
        .map(|fold| new_version(fold.target.clone(), order.next(&fold.target), &label))
        .collect();
    Event::Folded { round: order.key.round, stage: order.key.stage.clone(), versions }
}

fn versions_of(state: &RunState) -> BTreeSet<(LineageName, u32)> {
    state.live_versions().map(|(lineage, version, _)| (lineage.clone(), version)).collect()
}

/// A step that must be refused.
pub(crate) fn not(step: Step, reason: &'static str) -> Step {
    Not(Box::new(step), reason)
}
