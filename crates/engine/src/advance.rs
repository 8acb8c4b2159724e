//! From stage to stage and round to round: what starts next, what a closed stage is worth, when the run is over.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_domain::{
    CloseRule, Digest, InputSlot, LineageName, OutputSlot, RoundRecord, RunPhase, SiteName, StageInput,
    StageName, StageOutput, StageSpec, StageStart, TaskId, Timestamp, VersionRef,
};

use crate::action::Action;
use crate::program;
use crate::select::{Selection, select};
use crate::stage::{Closing, SeatState, StageRun, StageState};
use crate::state::{RunState, TASK_MEMORY_ROUNDS};

impl RunState {
    /// Takes every step that is possible now.
    pub(crate) fn advance(&mut self, at: Timestamp, actions: &mut Vec<Action>) {
        while !self.phase.is_over() {
            let closed = self.close_stages(at, actions);
            if self.phase.is_over() || !(self.step(at, actions) || closed) {
                break;
            }
        }
    }

    /// Closes what may close; returns whether anything changed.
    fn close_stages(&mut self, at: Timestamp, actions: &mut Vec<Action>) -> bool {
        let mut changed = false;
        for stage_idx in 0..self.stages.len() {
            let alone = |stage: &&StageRun| stage.state == StageState::Collecting && !stage.closes_together();
            let Some(closing) = self.stages.get(stage_idx).filter(alone).map(StageRun::closing) else {
                continue;
            };
            match closing {
                Closing::NotYet => {}
                Closing::Never(reason) => return self.cannot_close(&reason, at, actions),
                Closing::Now => {
                    self.close_stage(stage_idx, at, actions);
                    changed = true;
                }
            }
        }
        match self.closing_together() {
            Closing::NotYet => changed,
            Closing::Never(reason) => self.cannot_close(&reason, at, actions),
            Closing::Now => {
                self.close_together(at, actions);
                true
            }
        }
    }

    fn cannot_close(&mut self, reason: &str, at: Timestamp, actions: &mut Vec<Action>) -> bool {
        let reason = format!("round {}: {reason}", self.round);
        self.end(at, RunPhase::Failed { reason }, actions);
        true
    }

    pub(crate) fn close_stage(&mut self, stage_idx: usize, at: Timestamp, actions: &mut Vec<Action>) {
        let Some(stage) = self.stages.get_mut(stage_idx) else { return };
        let mut stragglers: Vec<TaskId> = Vec::new();
        for seat in stage.seats.values_mut().filter(|seat| seat.is_open()) {
            stragglers.push(seat.task);
            seat.state = SeatState::TooLate;
        }
        let reason = format!("stage {} of round {} closed", stage.spec.name, self.round);
        for task in stragglers {
            self.close_task(task, &reason, actions);
        }
        let base: BTreeMap<_, _> = self
            .newest_versions()
            .map(|(lineage, n, version)| (lineage.clone(), (n, version.manifest.clone(), version.digest)))
            .collect();
        let Some(stage) = self.stages.get_mut(stage_idx) else { return };
        if stage.spec.folds.is_empty() || stage.accepted.is_empty() {
            stage.state = StageState::Closed;
            let tasks = stage.accepted.values().map(|submission| submission.task);
            actions.extend(tasks.map(Action::ReleaseTask));
            self.record(stage_idx, at);
        } else {
            stage.state = StageState::Folding;
            stage.base = base;
            let order = self.stages.get(stage_idx).map(|stage| self.fold_order(stage));
            actions.extend(order.map(|order| Action::Fold(Box::new(order))));
        }
    }

    /// Starts what may start or ends the round; returns whether anything changed.
    fn step(&mut self, at: Timestamp, actions: &mut Vec<Action>) -> bool {
        let all_closed = self.stages.iter().all(|stage| stage.state == StageState::Closed);
        match self.due.front() {
            Some(spec) if all_closed || spec.start == StageStart::WithPrevious => {
                let spec = spec.clone();
                self.start_stage(spec, at, actions)
            }
            Some(_) => false,
            None if all_closed => {
                self.end_round(at, actions);
                true
            }
            None => false,
        }
    }

    fn start_stage(&mut self, spec: StageSpec, at: Timestamp, actions: &mut Vec<Action>) -> bool {
        let earlier = |name: &StageName| self.cohort_of(name);
        let of = (self.round, &spec.name);
        match select(&spec.selector, &self.present, earlier, self.plan.seed, of) {
            Selection::Waiting { needed, .. } => {
                self.awaiting = Some(needed);
                false
            }
            Selection::Cohort(mut cohort) => {
                cohort.retain(|site| !self.is_revoked(site));
                self.awaiting = None;
                self.due.pop_front();
                self.open_stage(spec, &cohort, at, actions);
                true
            }
        }
    }

    /// Those an earlier stage of the round closed with, or those it was handed to while it is open; none that were revoked.
    fn cohort_of(&self, name: &StageName) -> BTreeSet<SiteName> {
        let Some(stage) = self.stages.iter().find(|stage| stage.spec.name == *name) else {
            return BTreeSet::new();
        };
        let sites: Vec<&SiteName> = match stage.state {
            StageState::Collecting => stage.seats.keys().collect(),
            _ => stage.accepted.keys().collect(),
        };
        sites.into_iter().filter(|site| !self.is_revoked(site)).cloned().collect()
    }

    fn open_stage(
        &mut self,
        spec: StageSpec,
        cohort: &BTreeSet<SiteName>,
        at: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let deadline = match &spec.close {
            CloseRule::Quorum { deadline, .. } | CloseRule::Together { deadline, .. } => {
                deadline.map(|span| at.after(span))
            }
            _ => None,
        };
        let stage_idx = self.stages.len();
        let stage = StageRun {
            started_at: at,
            state: StageState::Collecting,
            seats: BTreeMap::new(),
            tries: BTreeMap::new(),
            inputs: self.inputs_of(&spec),
            outputs: self.outputs_of(&spec),
            accepted: BTreeMap::new(),
            base: BTreeMap::new(),
            deadline,
            deadline_passed: false,
            spec,
        };
        let key = self.key_of(&stage);
        self.stages.push(stage);
        for site in cohort {
            self.give_seat(stage_idx, site, actions);
        }
        actions.extend(deadline.map(|at| Action::Arm { stage: key, at }));
    }

    /// The newest versions that fill the inputs of a stage; an input whose lineage has none is left out.
    fn inputs_of(&self, spec: &StageSpec) -> Vec<InputSlot> {
        let input = |input: &StageInput| {
            let (version, digest) = self.newest_ref(&input.lineage)?;
            Some(InputSlot { slot: input.slot.clone(), role: input.role, version, digest })
        };
        spec.inputs.iter().filter_map(input).collect()
    }

    fn outputs_of(&self, spec: &StageSpec) -> Vec<OutputSlot> {
        let output = |output: &StageOutput| OutputSlot {
            slot: output.slot.clone(),
            role: output.role,
            like: output.like.as_ref().and_then(|lineage| Some(self.newest_ref(lineage)?.0)),
        };
        spec.outputs.iter().map(output).collect()
    }

    fn newest_ref(&self, lineage: &LineageName) -> Option<(VersionRef, Digest)> {
        let (version, facts) = self.newest(lineage)?;
        Some((VersionRef { run: self.run, lineage: lineage.clone(), version }, facts.digest))
    }

    /// Writes down what a closed stage came to.
    pub(crate) fn record(&mut self, stage_idx: usize, at: Timestamp) {
        let Some(stage) = self.stages.get(stage_idx) else { return };
        let makes_global = stage.spec.folds.iter().any(|fold| fold.target == LineageName::global());
        let made = makes_global.then(|| self.newest(&LineageName::global())).flatten();
        let record = RoundRecord {
            round: self.round,
            stage: stage.spec.name.clone(),
            accepted: stage.accepted.keys().cloned().collect(),
            cohort: stage.cohort(),
            metrics: stage.mean_metrics(),
            bytes: stage.bytes(),
            num_examples: stage.num_examples(),
            model: made.map(|(_, version)| version.digest),
            version: made.map(|(number, _)| number),
            started_at: stage.started_at,
            closed_at: at,
        };
        self.judge(stage_idx, &record);
        self.history.push(record);
    }

    fn end_round(&mut self, at: Timestamp, actions: &mut Vec<Action>) {
        self.prune_versions(actions);
        let impatient = |patience: u32| self.evaluations_without_gain >= patience.max(1);
        let stop = self.plan.stop.as_ref().filter(|stop| impatient(stop.patience));
        if let Some(stop) = stop {
            let reason = format!("early stop: no improvement in {} evaluations", stop.patience);
            self.end(at, RunPhase::Finished { reason }, actions);
        } else if self.round >= self.rounds {
            let reason = format!("all {} rounds done", self.rounds);
            self.end(at, RunPhase::Finished { reason }, actions);
        } else {
            self.round += 1;
            self.stages.clear();
            self.due = program::due(&self.program, self.round, self.round >= self.rounds);
            let oldest = self.round.saturating_sub(TASK_MEMORY_ROUNDS);
            self.tasks.retain(|_, facts| facts.key.round >= oldest);
        }
    }
}
