//! The configurations that are explored.

use sheaf_domain::plan::{Keep, Plan};
use sheaf_domain::{
    Arithmetic, CloseRule, ConfigMap, FoldRule, LineageName, Program, Selector, ServerStep, SlotName,
    SlotRole, Span, StageFold, StageInput, StageOutput, StageSpec, StageStart, Weight,
};
use sheaf_engine::{Event, Start};

use super::moves::Fault;
use super::moves::Fault::*;
use crate::plans::{deadline, evaluating, patience, plan_with, run_id, stage, start};

/// What is explored.
pub(super) struct Config {
    pub(super) name: &'static str,
    pub(super) created: Event,
    /// The faults that may happen.
    pub(super) faults: Vec<Fault>,
    /// The metrics that a submission may have.
    pub(super) values: Vec<f64>,
    /// The stages there are, for tasks to be named.
    pub(super) stages: Vec<&'static str>,
}

fn config(name: &'static str, faults: &[Fault], change: impl FnOnce(&mut Plan)) -> Config {
    let plan = plan_with(|plan| {
        plan.cohort.min = 3;
        plan.evaluate = evaluating(1);
        change(plan);
    });
    let program = plan.program().unwrap();
    let created =
        Event::Created { run: run_id(), plan: Box::new(plan), program: Box::new(program), start: start() };
    let stages = vec!["train", "evaluate"];
    Config { name, created, faults: faults.to_vec(), values: vec![0.5], stages }
}

/// The same with stages of its own.
fn of_stages(config: Config, specs: Vec<StageSpec>, stages: &[&'static str]) -> Config {
    let Event::Created { run, plan, start, .. } = config.created else { unreachable!() };
    let program = Box::new(Program { init: None, stages: specs, judges: Vec::new() });
    Config { created: Event::Created { run, plan, program, start }, stages: stages.to_vec(), ..config }
}

fn slot() -> SlotName {
    SlotName::new("model").unwrap()
}

/// A stage over all three, given the global model, that makes a version of `target`, if it is to make one.
fn spec(name: &str, start: StageStart, selector: Selector, target: Option<&str>) -> StageSpec {
    let lineage = |name: &str| LineageName::new(name).unwrap();
    let output =
        |_: &str| StageOutput { slot: slot(), role: SlotRole::Weights, like: Some(LineageName::global()) };
    let fold = |target: &str| StageFold {
        slot: slot(),
        rule: FoldRule::WeightedMean,
        weight: Weight::NumExamples,
        step: ServerStep::Replace,
        target: lineage(target),
    };
    StageSpec {
        name: stage(name),
        start,
        every: 1,
        selector,
        inputs: vec![StageInput { slot: slot(), role: SlotRole::Weights, lineage: LineageName::global() }],
        outputs: target.map(output).into_iter().collect(),
        close: CloseRule::Quorum { share: 1.0, min: 3, deadline: None },
        folds: target.map(fold).into_iter().collect(),
        config: ConfigMap::new(),
        arithmetic: Arithmetic::Double,
    }
}

fn all() -> Selector {
    Selector::Sample { fraction: 1.0, min: 3 }
}

fn timed(spec: StageSpec) -> StageSpec {
    let close = CloseRule::Quorum { share: 0.6, min: 1, deadline: Some(Span::from_secs(60)) };
    StageSpec { close, ..spec }
}

pub(super) fn everybody_is_needed() -> Config {
    config("everybody is needed", &[Lose, Fail, Refuse, FoldFails, Stop], |_| {})
}

pub(super) fn a_quorum_with_a_deadline() -> Config {
    config("a quorum with a deadline", &[Lose, Deadline, Fail, Stop], |plan| {
        plan.cohort.min = 2;
        plan.cohort.quorum = 0.6;
        plan.cohort.deadline = deadline();
        plan.cohort.attempts = 1;
    })
}

pub(super) fn two_of_three_are_drawn() -> Config {
    config("two of three are drawn", &[Lose, Fail, Revoke, Stop], |plan| {
        plan.cohort.min = 2;
        plan.cohort.fraction = 0.6;
        plan.keep_models = Keep::Rounds(2);
        plan.keep_updates = Keep::Rounds(2);
    })
}

pub(super) fn stages_handed_out_together() -> Config {
    let config = config("stages handed out together", &[Lose, FoldFails], |plan| plan.evaluate = None);
    let specs = vec![
        spec("train", StageStart::AfterPrevious, all(), Some("global")),
        spec("variate", StageStart::WithPrevious, all(), Some("control")),
    ];
    of_stages(config, specs, &["train", "variate"])
}

pub(super) fn an_evaluation_beside_the_training() -> Config {
    let config = config("an evaluation beside the training", &[Lose, Deadline, Stop], |_| {});
    let same = Selector::SameAs(stage("train"));
    let specs = vec![
        timed(spec("train", StageStart::AfterPrevious, all(), Some("global"))),
        timed(spec("evaluate", StageStart::WithPrevious, same, None)),
    ];
    of_stages(config, specs, &["train", "evaluate"])
}

pub(super) fn it_may_stop_early_and_be_extended() -> Config {
    let config = config("it may stop early and be extended", &[Extend], |plan| {
        plan.stop = patience(1, 0.0);
        plan.keep_updates = Keep::Run;
    });
    Config { values: vec![0.25, 0.75], ..config }
}

pub(super) fn a_participant_makes_the_first_model() -> Config {
    let mut config = config("a participant makes the first model", &[Lose, Fail, Revoke], |plan| {
        plan.init = sheaf_domain::plan::Init::Trainer;
        plan.rounds = 1;
        plan.evaluate = None;
        plan.cohort.min = 2;
    });
    if let Event::Created { start, .. } = &mut config.created {
        *start = Start::Trainer;
    }
    config.stages = vec!["init", "train"];
    config
}

pub(super) fn two_stages_make_the_model_in_turn() -> Config {
    let config = config("two stages make the model in turn", &[Lose, Fail, FoldFails, Stop], |plan| {
        plan.evaluate = None;
        plan.cohort.attempts = 1;
    });
    let same = Selector::SameAs(stage("north"));
    let specs = vec![
        spec("north", StageStart::AfterPrevious, all(), Some("global")),
        spec("south", StageStart::AfterPrevious, same, Some("global")),
    ];
    of_stages(config, specs, &["north", "south"])
}
