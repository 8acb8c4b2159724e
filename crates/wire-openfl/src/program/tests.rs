//! What plans come to: who does what, when a round ends, what is told how.

use super::*;
use crate::plan::{self, Surroundings};

fn read(more: &str, collaborators: &str, task_group: Option<&str>) -> Plan {
    let text = format!(
        "aggregator:\n  defaults: plan/defaults/aggregator.yaml\n  settings: {{rounds_to_train: 5}}\n\
         network:\n  defaults: plan/defaults/network.yaml\n\
         tasks:\n  defaults: plan/defaults/tasks_torch.yaml\n{more}"
    );
    let around = Surroundings { file_name: "plan.yaml", fqdn: "agg.example", task_group };
    plan::read(&text, &format!("collaborators: [{collaborators}]\n"), around).expect("a plan")
}

const BY_DEFAULT: &str = "assigner:\n  defaults: plan/defaults/assigner.yaml\n";

fn named(names: &[&str]) -> Selector {
    Selector::Named { sites: names.iter().map(|name| site_of(name).unwrap()).collect() }
}

#[test]
fn a_round_is_its_tasks_beside_one_another() {
    let plan = read(BY_DEFAULT, "zeta, col1", None);
    let program = program(&plan).unwrap();
    let names: Vec<&str> = program.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["aggregated_model_validation", "train", "locally_tuned_model_validation"]);
    for (at, stage) in program.stages.iter().enumerate() {
        let start = if at == 0 { StageStart::AfterPrevious } else { StageStart::WithPrevious };
        assert_eq!((stage.start, &stage.selector), (start, &named(&["zeta", "col1"])));
        assert_eq!(stage.close, CloseRule::Together { share: 1.0, min: 1, deadline: None });
        assert_eq!(stage.folds.is_empty(), at != 1);
    }
    let fold = &program.stages[1].folds[0];
    assert_eq!(fold.rule, FoldRule::CompatibleMean);
    assert_eq!(fold.step, ServerStep::Told { as_difference: true, codec: None, optimiser: None });
    let judges: Vec<&str> = program.judges.iter().map(|judge| judge.stage.as_str()).collect();
    assert_eq!(judges, ["aggregated_model_validation"]);
    assert_eq!((run_plan(&plan, 0).rounds, run_plan(&plan, 2).rounds), (5, 3));
}

#[test]
fn an_evaluation_is_one_round_of_its_own_tasks() {
    let plan = read(BY_DEFAULT, "zeta, col1", Some("evaluation"));
    let program = program(&plan).unwrap();
    assert_eq!(program.stages.len(), 1);
    assert_eq!(program.stages[0].selector, named(&["zeta", "col1"]));
    assert_eq!(run_plan(&plan, 2).rounds, 1);
}

#[test]
fn groups_that_are_fixed_name_who_does_what_and_drawn_ones_divide_them() {
    let groups = |class: &str, first: &str, second: &str| {
        format!(
            "assigner:\n  template: openfl.component.{class}\n  settings:\n    task_groups:\n\
             \x20   - {{name: learning, percentage: 0.5, tasks: [aggregated_model_validation, train]{first}}}\n\
             \x20   - {{name: watching, percentage: 0.5, tasks: [aggregated_model_validation]{second}}}\n"
        )
    };
    let fixed = groups("StaticGroupedAssigner", ", collaborators: [a]", ", collaborators: [b]");
    let program_of = |text: &str, collaborators| program(&read(text, collaborators, None)).unwrap();
    let fixed = program_of(&fixed, "a, b");
    assert_eq!(fixed.stages[0].selector, named(&["a", "b"]));
    assert_eq!(fixed.stages[1].selector, named(&["a"]));
    let drawn = program_of(&groups("RandomGroupedAssigner", "", ""), "a, b, c, d");
    assert_eq!(drawn.stages[0].selector, named(&["a", "b", "c", "d"]));
    let Selector::Drawn { sites, places } = &drawn.stages[1].selector else { panic!("two are drawn") };
    assert_eq!((sites.len(), places.as_slice()), (4, &[(0, 2)][..]));
}

#[test]
fn stragglers_and_pipelines_are_rules_of_the_round() {
    let cutoff = "straggler_handling_policy:\n  template: openfl.component.CutoffTimePolicy\n  settings: {straggler_cutoff_time: 4, minimum_reporting: 2}\n\
                  compression_pipeline:\n  template: openfl.pipelines.STCPipeline\n";
    let program = program(&read(&format!("{BY_DEFAULT}{cutoff}"), "a, b, c", None)).unwrap();
    let deadline = Some(Span::from_secs(4));
    assert_eq!(program.stages[0].close, CloseRule::Together { share: 1.0, min: 2, deadline });
    let codec = Some("STCPipeline".to_owned());
    assert_eq!(
        program.stages[1].folds[0].step,
        ServerStep::Told { as_difference: true, codec, optimiser: None }
    );
}

/// The folds of a plan whose training aggregates with this class, of the model and of what is shared beside it.
fn folds_with(class: &str, settings: &str) -> Vec<StageFold> {
    let module = "openfl.interface.aggregation_functions";
    let more = format!(
        "  train:\n    function: train_task\n    kwargs: {{optimizer: SGD}}\n\
         \x20   aggregation_type: {{template: {module}.{class}, settings: {{{settings}}}}}\n{BY_DEFAULT}"
    );
    program(&read(&more, "a, b", None)).unwrap().stages.remove(1).folds
}

#[test]
fn aggregations_are_rules_of_the_fold_and_optimisers_of_its_step() {
    let summed = ["_u", "_v", "_w"].map(str::to_owned).to_vec();
    for (class, rule) in [
        ("WeightedAverage", FoldRule::CompatibleMean),
        ("Median", FoldRule::Median),
        ("GeometricMedian", FoldRule::GeometricMedian),
        ("FedCurvWeightedAverage", FoldRule::CompatibleMeanAndSum { summed }),
    ] {
        for fold in folds_with(class, "") {
            assert_eq!(fold.rule, rule);
            assert_eq!(fold.step, ServerStep::Told { as_difference: true, codec: None, optimiser: None });
        }
    }
    let adagrad = GradientOptimiser::Adagrad { learning_rate: 0.5, start: 0.1, epsilon: 1e-10 };
    let (beta1, beta2) = (0.5, 0.75);
    let adam = GradientOptimiser::Adam { learning_rate: 0.01, beta1, beta2, start: 2.0, epsilon: 1e-8 };
    for (class, settings, expected) in [
        ("AdagradAdaptiveAggregation", "learning_rate: 0.5", adagrad),
        ("AdamAdaptiveAggregation", "betas: [0.5, 0.75], initial_accumulator_value: 2", adam),
    ] {
        let told = |optimiser| ServerStep::Told { as_difference: true, codec: None, optimiser };
        let [model, state] = <[StageFold; 2]>::try_from(folds_with(class, settings)).unwrap();
        assert_eq!((model.rule, model.step), (FoldRule::WeightedMean, told(Some(expected))));
        assert_eq!((state.rule, state.step), (FoldRule::CompatibleMean, told(None)));
    }
}

#[test]
fn a_name_that_cannot_be_a_participants_has_one_that_can() {
    assert_eq!(site_of("col1").unwrap().as_str(), "col1");
    for name in ["local", "Server", "col é", "-x", "a".repeat(200).as_str()] {
        let site = site_of(name).unwrap();
        assert!(site.as_str().starts_with("col-") && site == site_of(name).unwrap(), "{name}");
    }
    assert_ne!(site_of("col é").unwrap(), site_of("col è").unwrap());
}
