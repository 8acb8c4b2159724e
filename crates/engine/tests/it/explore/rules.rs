//! What must hold in every state and across every step.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_domain::{Assignment, LineageName, Metrics, SiteName, StageName, TaskId, Wait};
use sheaf_engine::{Action, Event, FoldOrder, RunState, StageKey, TaskStanding};

use super::configs::Config;
use super::moves::SITES;
use crate::plans::{run_id, site, stage};

/// Attempts of a participant in a stage that are asked about.
const ATTEMPTS: u32 = 4;

/// What is outstanding, by what it is.
#[derive(PartialEq)]
struct Standing {
    tasks: BTreeMap<TaskId, Assignment>,
    armed: Vec<StageKey>,
    folds: Vec<FoldOrder>,
}

impl Standing {
    fn of(state: &RunState) -> Standing {
        let mut standing = Standing { tasks: BTreeMap::new(), armed: Vec::new(), folds: Vec::new() };
        let mut seats: BTreeSet<(StageName, SiteName)> = BTreeSet::new();
        for action in state.outstanding() {
            match action {
                Action::Assign(assignment) => {
                    let seat = (assignment.stage.clone(), assignment.site.clone());
                    assert!(seats.insert(seat), "two open tasks in one seat");
                    let task = assignment.task;
                    assert!(standing.tasks.insert(task, *assignment).is_none(), "a task in two seats");
                }
                Action::Arm { stage, .. } => standing.armed.push(stage),
                Action::Fold(order) => standing.folds.push(*order),
                other => panic!("{other:?} is outstanding"),
            }
        }
        standing
    }
}

type Versions = BTreeSet<(LineageName, u32)>;

fn versions_of(state: &RunState) -> Versions {
    state.live_versions().map(|(lineage, version, _)| (lineage.clone(), version)).collect()
}

/// What must hold in every state.
pub(super) fn check_state(config: &Config, state: &RunState) {
    let (status, standing) = (state.status(), Standing::of(state));
    if status.phase.is_over() {
        assert!(state.outstanding().is_empty() && status.waits.is_empty(), "it goes on after its end");
    } else {
        assert!(!status.waits.is_empty(), "it does not move and does not say why");
    }
    let waits_for_sites = status.waits.iter().any(|wait| match wait {
        Wait::Participants { .. } => true,
        Wait::Submissions { missing, .. } => missing.iter().any(|m| m.state.starts_with("to be replaced")),
        _ => false,
    });
    assert!(
        status.phase.is_over() || waits_for_sites || !state.outstanding().is_empty(),
        "nothing can happen"
    );
    check_needs(state, &standing);
    for record in &status.history {
        assert!(record.accepted.windows(2).all(|pair| pair[0] < pair[1]), "a fold not in canonical order");
        assert!(u32::try_from(record.accepted.len()).unwrap() <= record.cohort, "more updates than seats");
    }
    check_old_submissions(config, state, &standing);
}

/// What an outstanding action stands on is kept.
fn check_needs(state: &RunState, standing: &Standing) {
    let (live, versions) = (state.live_tasks(), versions_of(state));
    for assignment in standing.tasks.values() {
        let open = state.task(assignment.task, &assignment.site);
        assert_eq!(open, TaskStanding::Open(Box::new(assignment.clone())));
        assert!(live.contains(&assignment.task), "an open task whose bytes are not kept");
        let given = assignment.inputs.iter().map(|input| &input.version);
        for version in given.chain(assignment.outputs.iter().filter_map(|output| output.like.as_ref())) {
            assert!(versions.contains(&(version.lineage.clone(), version.version)), "{version:?} is gone");
        }
    }
    for order in &standing.folds {
        assert!(
            order.inputs.iter().all(|input| live.contains(&input.task)),
            "an update to be folded is gone"
        );
        let bases = order.current.iter().map(|(lineage, (version, ..))| (lineage.clone(), *version));
        assert!(bases.into_iter().all(|base| versions.contains(&base)), "a version a fold stands on is gone");
    }
}

/// Submissions for every task that is no longer open, late or repeated, change nothing.
fn check_old_submissions(config: &Config, state: &RunState, standing: &Standing) {
    let mut tried = state.clone();
    for (round, name) in
        (0..=state.status().round).flat_map(|round| config.stages.iter().map(move |n| (round, n)))
    {
        for (who, attempt) in
            SITES.iter().flat_map(|who| (1..=ATTEMPTS).map(move |attempt| (site(who), attempt)))
        {
            let task = TaskId::derive(run_id(), round, &stage(name), &who, attempt);
            if standing.tasks.contains_key(&task) || state.task(task, &who) == TaskStanding::Unknown {
                continue;
            }
            let late = Event::Submitted {
                task,
                site: who,
                slots: Vec::new(),
                num_examples: 10.0,
                metrics: Metrics::new(),
            };
            let outcome = tried.apply(super::walk::NOW, &late);
            assert!(outcome.is_err(), "an update that is late or repeated was taken");
        }
    }
    assert!(tried == *state, "a refused submission changed the state");
}

/// What must hold across every step.
pub(super) fn check_step(before: &RunState, event: &Event, actions: &[Action], after: &RunState) {
    let (was, is) = (before.status(), after.status());
    assert!(is.history.starts_with(&was.history), "a committed round disappeared");
    let closed: BTreeSet<(u32, &StageName)> = is.history.iter().map(|r| (r.round, &r.stage)).collect();
    assert_eq!(closed.len(), is.history.len(), "a stage closed twice");
    assert!(is.round >= was.round, "the round went back");
    let resumed = matches!(event, Event::Extended { .. });
    assert!(!was.phase.is_over() || resumed || was.phase == is.phase, "a run came back from its end");
    if let Event::Submitted { task, site, .. } = event {
        let open = matches!(before.task(*task, site), TaskStanding::Open(_));
        assert!(open, "an update counted that was not open");
        let key = StageKey { round: was.round, stage: stage_of(before, *task) };
        assert!(
            !was.history.iter().any(|r| (r.round, &r.stage) == (key.round, &key.stage)),
            "after its stage closed"
        );
    }
    check_versions(before, event, actions, after);
    check_actions(before, actions, after);
}

fn stage_of(state: &RunState, task: TaskId) -> StageName {
    Standing::of(state).tasks.remove(&task).unwrap().stage
}

/// Versions only grow in number, and each goes by a release and not otherwise.
fn check_versions(before: &RunState, event: &Event, actions: &[Action], after: &RunState) {
    for (lineage, newest, _) in before.newest_versions() {
        let now = after.newest(lineage).map(|(number, _)| number);
        assert!(now >= Some(newest), "the newest version of {lineage} went back");
    }
    let mut versions = versions_of(before);
    if let Event::Folded { versions: made, .. } = event {
        for new in made {
            assert!(versions.insert((new.lineage.clone(), new.version)), "a version was made twice");
        }
    }
    for action in actions {
        if let Action::ReleaseVersion { lineage, version } = action {
            assert!(versions.remove(&(lineage.clone(), *version)), "a version freed that was not there");
        }
    }
    assert_eq!(versions, versions_of(after));
}

/// The actions of a step lead from what was outstanding to what is; bytes are freed once, and not while they are needed.
fn check_actions(before: &RunState, actions: &[Action], after: &RunState) {
    let (mut was, is) = (Standing::of(before), Standing::of(after));
    let (mut live, mut released) = (before.live_tasks(), BTreeSet::new());
    let mut begun = Vec::new();
    for action in actions {
        match action {
            Action::Assign(assignment) => {
                live.insert(assignment.task);
                let earlier = was.tasks.insert(assignment.task, (**assignment).clone());
                assert!(earlier.is_none_or(|earlier| earlier == **assignment), "an assignment changed");
            }
            Action::Withdraw { task, .. } => drop(was.tasks.remove(task)),
            Action::ReleaseTask(task) => {
                assert!(released.insert(*task), "bytes of a task freed twice");
                assert!(live.remove(task), "bytes freed that were not kept");
            }
            Action::Arm { stage, .. } => was.armed.push(stage.clone()),
            Action::Fold(order) => {
                begun.push(order.key.clone());
                was.folds.push((**order).clone());
            }
            _ => {}
        }
    }
    assert!(was.tasks == is.tasks, "outboxes and open tasks differ");
    assert_eq!(live, after.live_tasks(), "kept bytes and releases differ");
    assert!(is.armed.iter().all(|key| was.armed.contains(key)), "a deadline nobody was told of");
    assert!(is.folds.iter().all(|order| was.folds.contains(order)), "a fold nobody was told of");
    let told = begun.iter().all(|key| is.folds.iter().any(|order| order.key == *key));
    assert!(told || after.phase().is_over(), "a fold was begun that is not outstanding");
}
