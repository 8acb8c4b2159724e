//! The stages of a run, taken from its plan once and checked: what every round is made of.
//!
//! Refuses programs in which a stage could not be told from another, could never have a cohort, or would overwrite what
//! another stage of its round made.

use std::collections::{BTreeSet, VecDeque};

use sheaf_domain::plan::{Plan, ROUNDS_MAX};
use sheaf_domain::{LineageName, Selector, StageName, StageSpec};

use crate::event::Rejected;

/// The stages of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    /// The one stage of round 0.
    pub(crate) init: StageSpec,
    /// The stages of every later round, in order.
    pub(crate) stages: Vec<StageSpec>,
}

impl Program {
    /// The program of a plan, yet to be checked.
    pub(crate) fn of(plan: &Plan) -> Result<Program, Rejected> {
        if !(1..=ROUNDS_MAX).contains(&plan.rounds) {
            return Err(Rejected::Plan(format!("{} rounds are not from 1 to {ROUNDS_MAX}", plan.rounds)));
        }
        let impossible = |error: sheaf_domain::Error| Rejected::Plan(error.to_string());
        Ok(Program {
            init: plan.init_stage().map_err(impossible)?,
            stages: plan.stages().map_err(impossible)?,
        })
    }

    /// Checks that the stages of a round go together.
    pub(crate) fn check(&self) -> Result<(), Rejected> {
        let mut earlier: Vec<&StageSpec> = Vec::new();
        let mut targets: BTreeSet<&LineageName> = BTreeSet::new();
        for spec in &self.stages {
            if earlier.iter().any(|other| other.name == spec.name) {
                return Err(Rejected::Plan(format!("stage {} appears twice", spec.name)));
            }
            if let Selector::SameAs(name) = &spec.selector {
                check_same_as(spec, name, &earlier)?;
            }
            for fold in &spec.folds {
                if !targets.insert(&fold.target) || fold.target == LineageName::best() {
                    return Err(Rejected::Plan(format!("stage {} may not make {}", spec.name, fold.target)));
                }
            }
            earlier.push(spec);
        }
        match self.stages.iter().any(|spec| spec.every <= 1) {
            true => Ok(()),
            false => Err(Rejected::Plan("there are rounds without a stage".to_owned())),
        }
    }

    /// The stages due in a round, in order.
    pub(crate) fn due(&self, round: u32, last: bool) -> VecDeque<StageSpec> {
        if round == 0 {
            return VecDeque::from([self.init.clone()]);
        }
        let is_due = |spec: &&StageSpec| last || round.is_multiple_of(spec.every.max(1));
        self.stages.iter().filter(is_due).cloned().collect()
    }
}

fn check_same_as(spec: &StageSpec, name: &StageName, earlier: &[&StageSpec]) -> Result<(), Rejected> {
    let model = earlier.iter().find(|other| other.name == *name);
    match model {
        Some(model) if model.every.max(1) == 1 || model.every == spec.every => Ok(()),
        _ => {
            Err(Rejected::Plan(format!("stage {} has no cohort: {name} does not come before it", spec.name)))
        }
    }
}
