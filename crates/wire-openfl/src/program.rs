//! What a plan comes to in the engine's words: every task a stage, open beside the others, closing with them.
//!
//! Pure. A task that trains makes the next version of the model; all others have metrics only. Refused by name: what two tasks of a round
//! would both make.

use std::collections::BTreeSet;

use sheaf_domain::plan::{Better, CohortSpec, Init, Keep, Plan as RunPlan, StrategyKind, StrategySpec};
use sheaf_domain::{
    Arithmetic, CloseRule, ConfigMap, Digest, FoldRule, GradientOptimiser, Judge, LineageName, Program,
    Selector, ServerStep, SiteName, SlotName, SlotRole, Span, StageFold, StageInput, StageName, StageOutput,
    StageSpec, StageStart, Weight,
};

use crate::plan::{Aggregation, Assigner, Plan, Straggler, Task};

/// The slot of the model, in and out.
pub(crate) const MODEL_SLOT: &str = "model";
/// The slot of what collaborators share beside the model, such as the state of their optimisers; also the name of its lineage.
pub(crate) const STATE_SLOT: &str = "state";
/// How often a collaborator may send results that do not pass before it is given up.
const ATTEMPTS: u32 = 100;
/// How the names of tensors end that FedCurv adds up.
const FEDCURV_SUMMED: [&str; 3] = ["_u", "_v", "_w"];
/// Names that stand for others in records, or for whoever takes collaborators in.
const TAKEN: [&str; 5] = ["operator", "server", "federation", "coordinator", "local"];

/// Why a plan cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProgramError {
    #[error("tasks {first:?} and {second:?} both train, and a round has one model")]
    TwoTrain { first: String, second: String },
    #[error("no group has a task")]
    NoTask,
    #[error("a name cannot be used: {0}")]
    Name(#[from] sheaf_domain::Error),
}

/// The participant that a collaborator is: its own name where that can be one.
///
/// # Errors
/// None but that a digest cannot be a name.
pub fn site_of(collaborator: &str) -> Result<SiteName, sheaf_domain::Error> {
    match SiteName::new(collaborator) {
        Ok(name) if !TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(collaborator)) => Ok(name),
        _ => SiteName::new(stand_in("col", collaborator)),
    }
}

/// The stage that a task is.
///
/// # Errors
/// None but that a digest cannot be a name.
pub fn stage_of(task: &str) -> Result<StageName, sheaf_domain::Error> {
    StageName::new(task).or_else(|_| StageName::new(stand_in("task", task)))
}

fn stand_in(sort: &str, name: &str) -> String {
    let digest = hex::encode(Digest::of(name.as_bytes()).as_bytes());
    format!("{sort}-{}", digest.get(..24).unwrap_or_default())
}

/// Whether a task hands in a model, as upstream tells training sizes from others: by its name, or else its function's.
pub(crate) fn trains(task: &Task) -> bool {
    let says = |word: &str| task.name.contains(word);
    says("train") && !says("valid") || (!says("valid") && task.function.contains("train"))
}

/// The tasks that somebody has, in order, each with who has it.
fn selected(plan: &Plan) -> Result<Vec<(&Task, Selector)>, ProgramError> {
    let mut names: Vec<&str> = Vec::new();
    for task in plan.assigner.groups().iter().flat_map(|group| &group.tasks) {
        if !names.contains(&task.as_str()) {
            names.push(task);
        }
    }
    let mut selected = Vec::new();
    for name in names {
        let Some(task) = plan.tasks.iter().find(|task| task.name == name) else { continue };
        if let Some(selector) = selector(plan, name)? {
            selected.push((task, selector));
        }
    }
    Ok(selected)
}

fn selector(plan: &Plan, task: &str) -> Result<Option<Selector>, ProgramError> {
    let has = |tasks: &[String]| tasks.iter().any(|name| name == task);
    let sites_of = |names: &mut dyn Iterator<Item = &String>| -> Result<BTreeSet<SiteName>, ProgramError> {
        Ok(names.map(|name| site_of(name)).collect::<Result<_, _>>()?)
    };
    let everybody = sites_of(&mut plan.collaborators.names().iter())?;
    let groups = match &plan.assigner {
        Assigner::Static(groups) => {
            let named = groups.iter().filter(|group| has(&group.tasks));
            let sites = sites_of(&mut named.flat_map(|group| &group.collaborators))?;
            return Ok((!sites.is_empty()).then_some(Selector::Named { sites }));
        }
        Assigner::Random(groups) => groups,
    };
    let all = u32::try_from(everybody.len()).unwrap_or(u32::MAX);
    let (mut from, mut places) = (0, Vec::new());
    for group in groups {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
        let size = (group.percentage * f64::from(all)) as u32;
        if has(&group.tasks) && size > 0 {
            places.push((from, from + size));
        }
        from += size;
    }
    let drawn: u32 = places.iter().map(|(from, to)| to - from).sum();
    Ok(match drawn {
        0 => None,
        drawn if drawn >= all => Some(Selector::Named { sites: everybody }),
        _ => Some(Selector::Drawn { sites: everybody, places }),
    })
}

fn close(straggler: Straggler) -> CloseRule {
    match straggler {
        Straggler::WaitForAll => CloseRule::Together { share: 1.0, min: 1, deadline: None },
        Straggler::CutoffTime { cutoff_s, minimum_reporting } => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded below")]
            let deadline = (cutoff_s < 1e12).then(|| Span::from_millis((cutoff_s * 1e3).ceil() as u64));
            CloseRule::Together { share: 1.0, min: minimum_reporting, deadline }
        }
        Straggler::Percentage { needed, minimum_reporting } => {
            CloseRule::Together { share: needed, min: minimum_reporting, deadline: None }
        }
    }
}

/// How tensors become one that no optimiser steps.
fn rule(aggregation: Aggregation) -> FoldRule {
    match aggregation {
        Aggregation::WeightedAverage | Aggregation::Adagrad { .. } | Aggregation::Adam { .. } => {
            FoldRule::CompatibleMean
        }
        Aggregation::Median => FoldRule::Median,
        Aggregation::GeometricMedian => FoldRule::GeometricMedian,
        Aggregation::FedCurv => {
            FoldRule::CompatibleMeanAndSum { summed: FEDCURV_SUMMED.map(str::to_owned).to_vec() }
        }
    }
}

fn optimiser(aggregation: Aggregation) -> Option<GradientOptimiser> {
    match aggregation {
        Aggregation::Adagrad { learning_rate, initial_accumulator_value: start, epsilon } => {
            Some(GradientOptimiser::Adagrad { learning_rate, start, epsilon })
        }
        Aggregation::Adam { learning_rate, betas: [beta1, beta2], initial_accumulator_value, epsilon } => {
            let start = initial_accumulator_value;
            Some(GradientOptimiser::Adam { learning_rate, beta1, beta2, start, epsilon })
        }
        _ => None,
    }
}

/// What is made of what a task trains: of the model, and of what collaborators share beside it.
fn folds(plan: &Plan, task: &Task) -> Result<Vec<StageFold>, ProgramError> {
    let optimiser = optimiser(task.aggregation);
    // A mean that is rounded to float32 would leave little of a small gradient.
    let model_rule = if optimiser.is_some() { FoldRule::WeightedMean } else { rule(task.aggregation) };
    let fold = |slot, rule, optimiser, target| -> Result<StageFold, ProgramError> {
        let codec = plan.pipeline.is_inexact().then(|| plan.pipeline.name().to_owned());
        let as_difference = plan.aggregator.use_delta_updates;
        let step = ServerStep::Told { as_difference, codec, optimiser };
        Ok(StageFold { slot: SlotName::new(slot)?, rule, weight: Weight::NumExamples, step, target })
    };
    Ok(vec![
        fold(MODEL_SLOT, model_rule, optimiser, LineageName::global())?,
        fold(STATE_SLOT, rule(task.aggregation), None, LineageName::new(STATE_SLOT)?)?,
    ])
}

/// The stages of a round, and which of them tell the best model.
///
/// # Errors
/// [`ProgramError`].
pub fn program(plan: &Plan) -> Result<Program, ProgramError> {
    let (mut stages, mut judges) = (Vec::<StageSpec>::new(), Vec::new());
    let (slot, global) = (SlotName::new(MODEL_SLOT)?, LineageName::global());
    let (state_slot, state) = (SlotName::new(STATE_SLOT)?, LineageName::new(STATE_SLOT)?);
    let mut training: Option<&Task> = None;
    for (task, selector) in selected(plan)? {
        let name = stage_of(&task.name)?;
        let mut folds = Vec::new();
        if trains(task) {
            if let Some(first) = training.replace(task) {
                let (first, second) = (first.name.clone(), task.name.clone());
                return Err(ProgramError::TwoTrain { first, second });
            }
            folds = self::folds(plan, task)?;
        }
        if task.judges {
            judges.push(Judge { stage: name.clone(), better: Better::Higher });
        }
        let outputs = || {
            let model =
                StageOutput { slot: slot.clone(), role: SlotRole::Weights, like: Some(global.clone()) };
            let state = StageOutput { slot: state_slot.clone(), role: SlotRole::OptimiserState, like: None };
            vec![model, state]
        };
        let input = |slot: &SlotName, role, lineage: &LineageName| StageInput {
            slot: slot.clone(),
            role,
            lineage: lineage.clone(),
        };
        stages.push(StageSpec {
            name,
            start: if stages.is_empty() { StageStart::AfterPrevious } else { StageStart::WithPrevious },
            every: 1,
            selector,
            inputs: vec![
                input(&slot, SlotRole::Weights, &global),
                input(&state_slot, SlotRole::OptimiserState, &state),
            ],
            outputs: if folds.is_empty() { Vec::new() } else { outputs() },
            close: close(plan.straggler),
            folds,
            config: ConfigMap::new(),
            arithmetic: Arithmetic::Single,
        });
    }
    if stages.is_empty() {
        return Err(ProgramError::NoTask);
    }
    Ok(Program { init: None, stages, judges })
}

/// What else the run goes by, when it begins with the model of `first_round`.
pub fn run_plan(plan: &Plan, first_round: u32) -> RunPlan {
    let rounds = if plan.is_evaluation {
        1
    } else {
        plan.aggregator.rounds_to_train.saturating_sub(first_round).max(1)
    };
    let digest = Digest::of(plan.identity.federation_uuid.as_bytes());
    let seed = digest.as_bytes().first_chunk().map_or(0, |first| u32::from_le_bytes(*first));
    RunPlan {
        name: plan.identity.federation_uuid.clone(),
        rounds,
        seed: u64::from(seed),
        keep_updates: Keep::Round,
        keep_models: Keep::Rounds(plan.aggregator.db_store_rounds.max(2)),
        init: Init::File(plan.aggregator.init_state_path.clone()),
        strategy: StrategySpec { kind: StrategyKind::Fedavg, clip: None },
        cohort: CohortSpec {
            min: 1,
            fraction: 1.0,
            quorum: 1.0,
            deadline: None,
            attempts: ATTEMPTS,
            examples_max: f64::from(i32::MAX),
        },
        trainer: None,
        app: None,
        init_config: ConfigMap::new(),
        train_config: ConfigMap::new(),
        evaluate: None,
        stop: None,
    }
}

/// Examples as what a contribution weighs: sizes that say nothing weigh alike, and none weighs next to nothing.
pub(crate) fn weight(data_size: i32) -> f64 {
    match data_size {
        ..0 => 1.0,
        0 => 1e-200,
        size => f64::from(size),
    }
}

#[cfg(test)]
mod tests;
