//! The state of a run and what can be read from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sheaf_domain::plan::Plan;
use sheaf_domain::{
    Assignment, Digest, LineageName, Manifest, Program, RoundRecord, RunId, RunPhase, SiteName, SlotName,
    SlotRole, StageFold, StageName, StageSpec, SubmittedSlot, TaskId, Timestamp,
};

use crate::action::{Action, FoldInput, FoldOrder, StageKey};
use crate::stage::{Seat, SeatState, StageRun, StageState};

/// For how many rounds a task's fate is remembered, so that a late or repeated submission is told apart from an unknown one.
pub(crate) const TASK_MEMORY_ROUNDS: u32 = 8;

/// The state of one run.
///
/// # Examples
/// ```
/// use sheaf_domain::plan::Plan;
/// use sheaf_domain::{RunId, SiteName, Timestamp};
/// use sheaf_engine::{Action, Event, RunState, Start};
///
/// let plan = "[run]\nname = \"digits\"\nrounds = 1\n[model]\ninit = \"trainer\"\n[strategy]\nkind = \"fedavg\"\n[cohort]\nmin = 1\n";
/// let plan = Plan::parse(plan)?;
/// let created = Event::Created {
///     run: RunId::new(1).ok_or("zero")?,
///     program: Box::new(plan.program()?),
///     plan: Box::new(plan),
///     start: Start::Trainer,
/// };
/// let (mut run, actions) = RunState::create(Timestamp::from_millis(0), &created)?;
/// assert!(actions.is_empty());
/// assert_eq!(run.status().waits.len(), 1);
///
/// let present = Event::SitePresent { site: SiteName::new("berlin")? };
/// let actions = run.apply(Timestamp::from_millis(5), &present)?;
/// assert!(matches!(actions.as_slice(), [Action::Assign(_)]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    pub(crate) run: RunId,
    pub(crate) plan: Plan,
    pub(crate) phase: RunPhase,
    pub(crate) created_at: Timestamp,
    pub(crate) ended_at: Option<Timestamp>,
    /// Rounds asked for: the plan's and those added later.
    pub(crate) rounds: u32,
    /// The round going on; 0 while version 0 is made.
    pub(crate) round: u32,
    /// What rounds are made of.
    pub(crate) program: Program,
    /// The stages of the round that have started, in order.
    pub(crate) stages: Vec<StageRun>,
    /// The stages of the round that have not started, in order.
    pub(crate) due: VecDeque<StageSpec>,
    /// How many participants the next stage needs, if it waits for some.
    pub(crate) awaiting: Option<u32>,
    pub(crate) versions: BTreeMap<LineageName, BTreeMap<u32, Version>>,
    pub(crate) present: BTreeSet<SiteName>,
    pub(crate) sites: BTreeMap<SiteName, SiteFacts>,
    pub(crate) tasks: BTreeMap<TaskId, TaskFacts>,
    pub(crate) history: Vec<RoundRecord>,
    /// The version of the global model evaluated best, and its metric.
    pub(crate) best: Option<(u32, f64)>,
    /// The metric of the last evaluation that counted as an improvement.
    pub(crate) gain_from: Option<f64>,
    pub(crate) evaluations_without_gain: u32,
    /// Tasks whose uploads are kept beyond their round, by round.
    pub(crate) kept: BTreeMap<u32, Vec<TaskId>>,
}

/// One version of a lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its tensors.
    pub manifest: Arc<Manifest>,
    /// Its model digest.
    pub digest: Digest,
}

/// What the run knows of a participant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SiteFacts {
    pub(crate) accepted: u32,
    pub(crate) refused: u32,
    pub(crate) last_error: Option<String>,
    pub(crate) revoked: bool,
}

/// What the run remembers of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskFacts {
    pub(crate) site: SiteName,
    pub(crate) key: StageKey,
    pub(crate) fate: TaskFate,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskFate {
    Open,
    Accepted,
    Closed(String),
}

/// How a task stands towards a participant that speaks of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TaskStanding {
    /// Not known, forgotten, or another participant's.
    Unknown,
    /// Open: a submission is welcome.
    Open(Box<Assignment>),
    /// Accepted already.
    Accepted,
    /// Withdrawn, failed, or its stage closed; why.
    Closed(String),
}

impl RunState {
    /// The run's id.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The run's plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The round going on or done last; 0 while version 0 is made.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Rounds in all, those added later too.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Where the run stands in its life.
    pub fn phase(&self) -> &RunPhase {
        &self.phase
    }

    /// When the run was created.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// How `task` stands towards `site`.
    pub fn task(&self, task: TaskId, site: &SiteName) -> TaskStanding {
        let Some(facts) = self.tasks.get(&task).filter(|facts| facts.site == *site) else {
            return TaskStanding::Unknown;
        };
        match &facts.fate {
            TaskFate::Accepted => TaskStanding::Accepted,
            TaskFate::Closed(reason) => TaskStanding::Closed(reason.clone()),
            TaskFate::Open => self
                .stage(&facts.key)
                .and_then(|stage| {
                    let seat = stage.seats.get(site).filter(|seat| seat.task == task)?;
                    Some(TaskStanding::Open(Box::new(self.assignment(stage, site, seat))))
                })
                .unwrap_or(TaskStanding::Unknown),
        }
    }

    /// One version of a lineage, if it exists and is kept. `best` stands for the global model evaluated best.
    pub fn version(&self, lineage: &LineageName, version: u32) -> Option<&Version> {
        if *lineage == LineageName::best() {
            return self.versions.get(&LineageName::global())?.get(&version);
        }
        self.versions.get(lineage)?.get(&version)
    }

    /// The newest version of a lineage; for `best`, the global model evaluated best.
    pub fn newest(&self, lineage: &LineageName) -> Option<(u32, &Version)> {
        if *lineage == LineageName::best() {
            let (number, _) = self.best?;
            return Some((number, self.versions.get(&LineageName::global())?.get(&number)?));
        }
        let (number, version) = self.versions.get(lineage)?.last_key_value()?;
        Some((*number, version))
    }

    /// The version of the global model that a round made, if it made one and it is kept; round 0 is the beginning.
    pub fn version_of_round(&self, round: u32) -> Option<(u32, &Version)> {
        let made = self.history.iter().rev().find(|record| record.round == round && record.version.is_some());
        let number = match made.and_then(|record| record.version) {
            None if round > 0 => return None,
            number => number.unwrap_or(0),
        };
        Some((number, self.version(&LineageName::global(), number)?))
    }

    /// The round that made a version of the global model; 0 for the one the run began with.
    pub(crate) fn round_of_version(&self, number: u32) -> u32 {
        let made = self.history.iter().find(|record| record.version == Some(number));
        made.map_or(0, |record| record.round)
    }

    /// Every lineage with its newest version; what a warm start takes over.
    pub fn newest_versions(&self) -> impl Iterator<Item = (&LineageName, u32, &Version)> {
        self.versions.iter().filter_map(|(lineage, versions)| {
            versions.last_key_value().map(|(n, version)| (lineage, *n, version))
        })
    }

    /// Every version whose bytes must be kept.
    pub fn live_versions(&self) -> impl Iterator<Item = (&LineageName, u32, &Version)> {
        self.versions
            .iter()
            .flat_map(|(lineage, versions)| versions.iter().map(move |(n, version)| (lineage, *n, version)))
    }

    /// Every task whose uploaded bytes must be kept: open ones, accepted ones not yet folded, and kept ones.
    pub fn live_tasks(&self) -> BTreeSet<TaskId> {
        let mut live: BTreeSet<TaskId> = self.kept.values().flatten().copied().collect();
        for stage in &self.stages {
            if stage.state == StageState::Closed || self.phase.is_over() {
                continue;
            }
            let needed =
                stage.seats.values().filter(|seat| seat.is_open() || seat.state == SeatState::Accepted);
            live.extend(needed.map(|seat| seat.task));
        }
        live
    }

    /// The actions that still stand: what must be done again after a restart.
    pub fn outstanding(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase.is_over() {
            return actions;
        }
        for stage in &self.stages {
            match &stage.state {
                StageState::Closed => {}
                StageState::Folding | StageState::FoldRetry { .. } => {
                    actions.push(Action::Fold(Box::new(self.fold_order(stage))));
                }
                StageState::Collecting => {
                    actions.extend(self.assignments_of(stage).map(|a| Action::Assign(Box::new(a))));
                    if let Some(at) = stage.deadline.filter(|_| !stage.deadline_passed) {
                        actions.push(Action::Arm { stage: self.key_of(stage), at });
                    }
                }
            }
        }
        actions
    }

    /// What a participant handed in to a stage of the round going on, while its bytes are kept for that.
    pub fn handed_in(&self, stage: &StageName, site: &SiteName) -> Option<(TaskId, &[SubmittedSlot])> {
        let stage = self.stages.iter().find(|other| other.spec.name == *stage)?;
        let submission = stage.accepted.get(site).filter(|_| stage.state != StageState::Closed)?;
        Some((submission.task, &submission.slots))
    }

    /// The participants this run counts as present.
    pub fn present(&self) -> &BTreeSet<SiteName> {
        &self.present
    }

    /// The last thing that went wrong with a participant.
    pub fn last_error(&self, site: &SiteName) -> Option<&str> {
        self.sites.get(site)?.last_error.as_deref()
    }

    /// Why the fold of the open stage did not succeed so far, if one was tried and failed.
    pub fn fold_failure(&self, key: &StageKey) -> Option<&str> {
        match &self.stage(key)?.state {
            StageState::FoldRetry { reason } => Some(reason),
            _ => None,
        }
    }

    pub(crate) fn stage(&self, key: &StageKey) -> Option<&StageRun> {
        (key.round == self.round)
            .then(|| self.stages.iter().find(|stage| stage.spec.name == key.stage))
            .flatten()
    }

    pub(crate) fn stage_mut(&mut self, round: u32, name: &StageName) -> Option<&mut StageRun> {
        (round == self.round).then(|| self.stages.iter_mut().find(|stage| stage.spec.name == *name)).flatten()
    }

    pub(crate) fn key_of(&self, stage: &StageRun) -> StageKey {
        StageKey { round: self.round, stage: stage.spec.name.clone() }
    }

    pub(crate) fn assignments_of<'a>(&'a self, stage: &'a StageRun) -> impl Iterator<Item = Assignment> + 'a {
        stage
            .seats
            .iter()
            .filter(|(_, seat)| seat.is_open())
            .map(|(site, seat)| self.assignment(stage, site, seat))
    }

    pub(crate) fn assignment(&self, stage: &StageRun, site: &SiteName, seat: &Seat) -> Assignment {
        Assignment {
            task: seat.task,
            run: self.run,
            run_name: self.plan.name.clone(),
            round: self.round,
            stage: stage.spec.name.clone(),
            site: site.clone(),
            attempt: seat.attempt,
            inputs: stage.inputs.clone(),
            outputs: stage.outputs.clone(),
            config: stage.spec.config.clone(),
            seed: self.plan.seed,
            deadline: stage.deadline,
        }
    }

    pub(crate) fn fold_order(&self, stage: &StageRun) -> FoldOrder {
        let inputs = stage.accepted.iter().map(|(site, submission)| FoldInput {
            site: site.clone(),
            task: submission.task,
            num_examples: submission.num_examples,
            slots: submission.slots.clone(),
        });
        let loose = stage.outputs.iter().filter(|output| output.role == SlotRole::OptimiserState);
        FoldOrder {
            run: self.run,
            key: self.key_of(stage),
            inputs: inputs.collect(),
            folds: stage.spec.folds.clone(),
            current: stage.base.clone(),
            bases: self.delta_bases(stage),
            loose: loose.map(|output| output.slot.clone()).collect(),
        }
    }

    /// What the differences handed in to a stage are from: the versions its assignments handed out.
    fn delta_bases(&self, stage: &StageRun) -> BTreeMap<SlotName, (u32, Arc<Manifest>, Digest)> {
        let is_delta = |fold: &&StageFold| {
            let mut outputs = stage.outputs.iter();
            outputs.any(|output| output.slot == fold.slot && output.role == SlotRole::Delta)
        };
        let base = |fold: &StageFold| {
            let input = stage.inputs.iter().find(|input| input.version.lineage == fold.target)?;
            let version = self.version(&fold.target, input.version.version)?;
            let number = input.version.version;
            Some((fold.slot.clone(), (number, Arc::clone(&version.manifest), version.digest)))
        };
        stage.spec.folds.iter().filter(is_delta).filter_map(base).collect()
    }
}
