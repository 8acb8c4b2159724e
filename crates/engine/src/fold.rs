//! What becomes of a closed stage: new versions, and which bytes are still needed afterwards.
//!
//! A version stays while it is to be kept, while an open assignment hands it out, and while a fold stands on it, now or when the
//! run is replayed.

use std::collections::BTreeSet;
use std::sync::Arc;

use sheaf_domain::plan::Keep;
use sheaf_domain::{LineageName, RunPhase, ServerStep, StageFold, StageName, TaskId, Timestamp};

use crate::action::Action;
use crate::apply::bounded;
use crate::event::{NewVersion, Rejected};
use crate::stage::{StageRun, StageState};
use crate::state::{RunState, Version};

impl RunState {
    pub(crate) fn folded(
        &mut self,
        at: Timestamp,
        round: u32,
        name: &StageName,
        versions: &[NewVersion],
        actions: &mut Vec<Action>,
    ) -> Result<(), Rejected> {
        let stage_idx = self.folding_stage(round, name)?;
        let stage = self.stages.get_mut(stage_idx).ok_or(Rejected::UnknownTask)?;
        check_versions(stage, versions)?;
        stage.state = StageState::Closed;
        let tasks: Vec<TaskId> = stage.accepted.values().map(|submission| submission.task).collect();
        for new in versions {
            let version = Version { manifest: Arc::new(new.manifest.clone()), digest: new.digest };
            self.versions.entry(new.lineage.clone()).or_default().insert(new.version, version);
        }
        self.keep_or_release(round, tasks, actions);
        self.record(stage_idx, at);
        self.prune_versions(actions);
        Ok(())
    }

    pub(crate) fn fold_failed(
        &mut self,
        at: Timestamp,
        round: u32,
        name: &StageName,
        reason: &str,
        permanent: bool,
        actions: &mut Vec<Action>,
    ) -> Result<(), Rejected> {
        let stage_idx = self.folding_stage(round, name)?;
        let reason = bounded(reason);
        if permanent {
            let reason = format!("stage {name} of round {round} cannot be folded: {reason}");
            self.end(at, RunPhase::Failed { reason }, actions);
        } else if let Some(stage) = self.stages.get_mut(stage_idx) {
            stage.state = StageState::FoldRetry { reason };
        }
        Ok(())
    }

    fn folding_stage(&self, round: u32, name: &StageName) -> Result<usize, Rejected> {
        self.check_running()?;
        let folding = |stage: &StageRun| {
            stage.spec.name == *name
                && matches!(stage.state, StageState::Folding | StageState::FoldRetry { .. })
        };
        let found = self.stages.iter().position(folding).filter(|_| round == self.round);
        found.ok_or_else(|| Rejected::NotExpected { round, stage: name.clone() })
    }

    fn keep_or_release(&mut self, round: u32, tasks: Vec<TaskId>, actions: &mut Vec<Action>) {
        let oldest_kept = match self.plan.keep_updates {
            Keep::Round => round.saturating_add(1),
            Keep::Rounds(rounds) => round.saturating_add(1).saturating_sub(rounds),
            Keep::Run => 0,
        };
        self.kept.entry(round).or_default().extend(tasks);
        let newer = self.kept.split_off(&oldest_kept);
        let released = std::mem::replace(&mut self.kept, newer);
        actions.extend(released.into_values().flatten().map(Action::ReleaseTask));
    }

    pub(crate) fn prune_versions(&mut self, actions: &mut Vec<Action>) {
        let keep_models = match self.plan.keep_models {
            Keep::Round => 1,
            Keep::Rounds(rounds) => rounds.max(1) as usize,
            Keep::Run => usize::MAX,
        };
        let needed = self.needed_versions();
        for (lineage, versions) in &mut self.versions {
            let is_moment = lineage.as_str().contains(".opt.");
            let keep = if is_moment { 1 } else { keep_models };
            let surplus = versions.len().saturating_sub(keep);
            let oldest: Vec<u32> = versions.keys().take(surplus).copied().collect();
            for version in oldest {
                if !needed.contains(&(lineage.clone(), version)) {
                    versions.remove(&version);
                    actions.push(Action::ReleaseVersion { lineage: lineage.clone(), version });
                }
            }
        }
    }

    /// The best model, what a replay starts from, and every version that an open stage hands out, compares with, or folds onto.
    fn needed_versions(&self) -> BTreeSet<(LineageName, u32)> {
        let mut needed = BTreeSet::new();
        if let Some((best, _)) = self.best {
            needed.insert((LineageName::global(), best));
        }
        // Where every update is kept, each model can be made again from the one before; the first were given, unless a stage
        // of ours made them.
        if self.plan.keep_updates == Keep::Run && !self.kept.contains_key(&0) {
            needed.extend(self.versions.keys().map(|lineage| (lineage.clone(), 0)));
        }
        for stage in self.stages.iter().filter(|stage| stage.state != StageState::Closed) {
            let inputs = stage.inputs.iter().map(|input| &input.version);
            let likes = stage.outputs.iter().filter_map(|output| output.like.as_ref());
            for version in inputs.chain(likes) {
                let is_best = version.lineage == LineageName::best();
                let lineage = if is_best { LineageName::global() } else { version.lineage.clone() };
                needed.insert((lineage, version.version));
            }
            needed.extend(stage.base.iter().map(|(lineage, (version, ..))| (lineage.clone(), *version)));
        }
        needed
    }
}

/// Whether a fold leaves the difference between its versions behind.
fn is_told(fold: &StageFold) -> bool {
    matches!(fold.step, ServerStep::Told { as_difference: true, .. })
}

/// A fold makes the next version of every lineage its stage is to make; beside them only the optimiser's and the difference, numbered alike.
fn check_versions(stage: &StageRun, versions: &[NewVersion]) -> Result<(), Rejected> {
    let mut made = BTreeSet::new();
    for new in versions {
        let belongs_to = |fold: &&StageFold| {
            let rest = new.lineage.as_str().strip_prefix(fold.target.as_str());
            let is_beside =
                |rest: &str| rest.starts_with(".opt.") || (rest == ".difference" && is_told(fold));
            new.lineage == fold.target || rest.is_some_and(is_beside)
        };
        let fold = stage.spec.folds.iter().find(belongs_to).filter(|_| made.insert(&new.lineage));
        let Some(fold) = fold else {
            return Err(Rejected::Malformed(format!("a fold cannot make {} here", new.lineage)));
        };
        let next = stage.base.get(&fold.target).map_or(0, |(newest, ..)| newest.saturating_add(1));
        if new.version != next {
            let message = format!("version {} of {} where {next} comes next", new.version, new.lineage);
            return Err(Rejected::Malformed(message));
        }
    }
    match stage.spec.folds.iter().find(|fold| !made.contains(&fold.target)) {
        Some(fold) => Err(Rejected::Malformed(format!("the fold made no version of {}", fold.target))),
        None => Ok(()),
    }
}
