//! What an evaluation is worth: the best model, and whether the run still improves.

use sheaf_domain::plan::Better;
use sheaf_domain::{LineageName, RoundRecord, SiteName};

use crate::stage::StageRun;
use crate::state::RunState;

/// The stage whose metrics decide which model is best.
const STAGE: &str = "evaluate";

impl RunState {
    /// Takes note of a closed evaluation.
    ///
    /// An evaluation without the metric counts as one without improvement; the participants that left it out are named in
    /// their last error.
    pub(crate) fn judge(&mut self, stage_idx: usize, record: &RoundRecord) {
        if !self.program.judges.is_empty() {
            return self.judge_by_program(stage_idx, record);
        }
        let Some(evaluate) = self.plan.evaluate.as_ref().filter(|_| record.stage.as_str() == STAGE) else {
            return;
        };
        let Some(stage) = self.stages.get(stage_idx) else { return };
        let (metric, better) = (evaluate.metric.clone(), evaluate.better);
        let value = record.metrics.get(&metric).copied();
        let min_delta = self.plan.stop.as_ref().map_or(0.0, |stop| stop.min_delta);
        // Improvements too small to count add up: they are measured from the last one that counted.
        let gained =
            value.filter(|value| self.gain_from.is_none_or(|from| better.improves(*value, from, min_delta)));
        match gained {
            Some(value) => {
                self.gain_from = Some(value);
                self.evaluations_without_gain = 0;
            }
            None => self.evaluations_without_gain = self.evaluations_without_gain.saturating_add(1),
        }
        let Some(value) = value else {
            return self.blame_missing(stage_idx, record.round, &metric);
        };
        if let Some(version) = evaluated_version(stage) {
            self.consider(version, value, better);
        }
    }

    /// Takes note of a stage that the program has judge: the best of its metrics counts.
    fn judge_by_program(&mut self, stage_idx: usize, record: &RoundRecord) {
        let judge = self.program.judges.iter().find(|judge| judge.stage == record.stage);
        let Some(better) = judge.map(|judge| judge.better) else { return };
        let best_of = |best: f64, value: f64| if better.improves(value, best, 0.0) { value } else { best };
        let value = record.metrics.values().copied().reduce(best_of);
        let version = self.stages.get(stage_idx).and_then(evaluated_version);
        if let (Some(version), Some(value)) = (version, value) {
            self.consider(version, value, better);
        }
    }

    fn consider(&mut self, version: u32, value: f64, better: Better) {
        if self.best.is_none_or(|(_, best)| better.improves(value, best, 0.0)) {
            self.best = Some((version, value));
        }
    }

    fn blame_missing(&mut self, stage_idx: usize, round: u32, metric: &str) {
        let Some(stage) = self.stages.get(stage_idx) else { return };
        let without: Vec<SiteName> = stage
            .accepted
            .iter()
            .filter(|(_, submission)| !submission.metrics.contains_key(metric))
            .map(|(site, _)| site.clone())
            .collect();
        for site in without {
            let facts = self.sites.entry(site).or_default();
            facts.last_error = Some(format!("its evaluation of round {round} has no metric {metric:?}"));
        }
    }
}

/// Which version of the global model a stage handed out.
fn evaluated_version(stage: &StageRun) -> Option<u32> {
    let global = LineageName::global();
    stage.inputs.iter().find(|input| input.version.lineage == global).map(|input| input.version.version)
}
