//! The rules a program of stages must keep, checked once before a run comes into being, and which stages a round is made of.
//!
//! Refuses programs in which a stage could not be told from another, could never have a cohort, would overwrite what
//! another stage open beside it makes, or would fold a difference from nothing.

use std::collections::{BTreeSet, VecDeque};

use sheaf_domain::{
    CloseRule, FoldRule, LineageName, Program, Selector, SlotRole, StageFold, StageName, StageSpec,
    StageStart,
};

use crate::event::Rejected;

/// Checks that the stages of a round go together.
pub(crate) fn check(program: &Program) -> Result<(), Rejected> {
    let mut earlier: Vec<&StageSpec> = Vec::new();
    // What the stages that may be open together with the one looked at make.
    let mut targets: BTreeSet<&LineageName> = BTreeSet::new();
    for spec in &program.stages {
        if earlier.iter().any(|other| other.name == spec.name) {
            return Err(refusal(spec, "appears twice"));
        }
        if let Selector::SameAs(name) = &spec.selector {
            check_same_as(spec, name, &earlier)?;
        }
        if spec.start == StageStart::AfterPrevious {
            targets.clear();
        }
        for fold in &spec.folds {
            let reserved = fold.target == LineageName::best()
                || fold.target.as_str().contains(".opt.")
                || fold.target.is_difference();
            if !targets.insert(&fold.target) || reserved {
                return Err(refusal(spec, &format!("may not make {}", fold.target)));
            }
            check_fold(spec, fold)?;
        }
        check_together(spec, &earlier)?;
        earlier.push(spec);
    }
    if let Some(judge) =
        program.judges.iter().find(|judge| !earlier.iter().any(|spec| spec.name == judge.stage))
    {
        return Err(Rejected::Plan(format!("stage {} is to judge models and does not exist", judge.stage)));
    }
    match program.stages.iter().any(|spec| spec.every <= 1) {
        true => Ok(()),
        false => Err(Rejected::Plan("there are rounds without a stage".to_owned())),
    }
}

/// The stages due in a round, in order.
pub(crate) fn due(program: &Program, round: u32, last: bool) -> VecDeque<StageSpec> {
    if round == 0 {
        return program.init.iter().cloned().collect();
    }
    let is_due = |spec: &&StageSpec| last || round.is_multiple_of(spec.every.max(1));
    program.stages.iter().filter(is_due).cloned().collect()
}

fn check_same_as(spec: &StageSpec, name: &StageName, earlier: &[&StageSpec]) -> Result<(), Rejected> {
    let model = earlier.iter().find(|other| other.name == *name);
    match model {
        Some(model) if model.every.max(1) == 1 || model.every == spec.every => Ok(()),
        _ => Err(refusal(spec, &format!("has no cohort: {name} does not come before it"))),
    }
}

/// Those that close together do so by one rule, and somebody works on each.
fn check_together(spec: &StageSpec, earlier: &[&StageSpec]) -> Result<(), Rejected> {
    let empty = match &spec.selector {
        Selector::Named { sites } => sites.is_empty(),
        Selector::Drawn { sites, places } => {
            let all = u32::try_from(sites.len()).unwrap_or(u32::MAX);
            !places.iter().any(|(from, to)| from < to && *from < all)
        }
        _ => false,
    };
    if empty {
        return Err(refusal(spec, "is for nobody"));
    }
    let together = |close: &CloseRule| matches!(close, CloseRule::Together { .. });
    if !together(&spec.close) || spec.start == StageStart::AfterPrevious {
        return Ok(());
    }
    // The stages it may be open beside.
    let since = earlier.iter().rposition(|other| other.start == StageStart::AfterPrevious).unwrap_or(0);
    let differs = |other: &&&StageSpec| together(&other.close) && other.close != spec.close;
    match earlier.iter().skip(since).find(differs) {
        Some(other) => Err(refusal(spec, &format!("closes together with {}, by another rule", other.name))),
        None => Ok(()),
    }
}

fn check_fold(spec: &StageSpec, fold: &StageFold) -> Result<(), Rejected> {
    let output = spec.outputs.iter().find(|output| output.slot == fold.slot);
    let Some(output) = output else {
        return Err(refusal(spec, &format!("folds slot {}, which nobody hands in", fold.slot)));
    };
    if LineageName::optimiser(&fold.target, "m").is_err() {
        return Err(refusal(spec, &format!("makes {}, whose name is too long", fold.target)));
    }
    let handed_out = spec.inputs.iter().any(|input| input.lineage == fold.target);
    match output.role {
        SlotRole::Delta if !handed_out => {
            let message = format!("takes differences from {}, which it does not hand out", fold.target);
            Err(refusal(spec, &message))
        }
        SlotRole::Delta if fold.rule == FoldRule::Adopt => {
            Err(refusal(spec, "cannot adopt a difference as a model"))
        }
        SlotRole::Delta if matches!(fold.rule, FoldRule::CompatibleMeanAndSum { .. }) => {
            Err(refusal(spec, "cannot add up models that it has the differences of"))
        }
        _ => Ok(()),
    }
}

fn refusal(spec: &StageSpec, message: &str) -> Rejected {
    Rejected::Plan(format!("stage {} {message}", spec.name))
}
