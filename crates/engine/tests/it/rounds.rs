//! Rounds: cohorts, quorum, deadline, stragglers, late and repeated submissions, the order of stages.

use sheaf_domain::{LineageName, SlotRole};
use sheaf_engine::{Event, Start};

use crate::plans::{accuracy, deadline, evaluating, plan, plan_with, site, stage};
use crate::world::*;

#[test]
fn a_round_waits_for_enough_participants_and_says_so() {
    check(
        &plan(),
        &[Waits("0 of 2 present"), Present("a"), Waits("1 of 2 present"), Lost("a"), Waits("0 of 2")],
    );
}

#[test]
fn two_rounds_go_from_submissions_to_folds_to_the_end() {
    let world = check(
        &plan(),
        &[
            Snapshot(&["a", "b"]),
            Open(&["a", "b"]),
            Waits("train: 0 of 2 submissions in; missing a (working), b (working)"),
            Submit("b"),
            Waits("1 of 2"),
            Open(&["a"]),
            Submit("a"),
            Waits("train: folding"),
            Open(&[]),
            Fold,
            Round(2),
            Submit("a"),
            Submit("b"),
            Fold,
            Over("finished", "all 2 rounds done"),
        ],
    );
    let status = world.state.status();
    assert_eq!(status.history.len(), 2);
    assert_eq!(status.history[0].accepted, [site("a"), site("b")]);
    assert_eq!(status.sites[0].accepted, 2);
    assert_eq!(status.model, status.history[1].model);
}

#[test]
fn an_assignment_names_its_inputs_outputs_and_seed() {
    let world = check(&plan(), &[Snapshot(&["a", "b"])]);
    let assignment = world.open(&site("a")).unwrap();
    assert_eq!((assignment.round, assignment.attempt, assignment.seed), (1, 1, 7));
    assert_eq!(assignment.inputs[0].version.version, 0);
    assert_eq!(assignment.outputs[0].role, SlotRole::Weights);
    assert_eq!(assignment.outputs[0].like.as_ref(), Some(&assignment.inputs[0].version));
}

#[test]
fn a_fraction_samples_those_present_at_once() {
    let plan = plan_with(|plan| plan.cohort.fraction = 0.5);
    let names = ["a", "b", "c", "d", "e", "f"];
    let world = check(&plan, &[Snapshot(&["f", "e", "d", "c", "b", "a"])]);
    assert_eq!(world.outbox.len(), 3);
    let again = check(&plan, &[Snapshot(&["a", "b", "c", "d", "e", "f"])]);
    assert_eq!(world.outbox, again.outbox);
    assert!(names.iter().any(|name| world.open(&site(name)).is_none()));
}

#[test]
fn participants_named_one_by_one_start_the_round_as_soon_as_there_are_enough() {
    check(&plan(), &[Present("c"), Present("a"), Open(&["a", "c"]), Present("b"), Open(&["a", "c"])]);
}

#[test]
fn a_quorum_closes_the_stage_and_withdraws_the_stragglers() {
    let plan = plan_with(|plan| plan.cohort.quorum = 0.6);
    let world = check(
        &plan,
        &[
            Snapshot(&["a", "b", "c", "d", "e"]),
            Submit("e"),
            Submit("c"),
            Waits("2 of 3"),
            Submit("a"),
            Waits("folding"),
            Open(&[]),
            not(Again("b", 0), "stage train of round 1 closed"),
            Fold,
            Round(2),
            not(Again("b", 0), "stage train of round 1 closed"),
        ],
    );
    let folded: Vec<&str> = world.orders[0].inputs.iter().map(|input| input.site.as_str()).collect();
    assert_eq!(folded, ["a", "c", "e"]);
}

#[test]
fn a_quorum_never_closes_with_fewer_than_min() {
    let plan = plan_with(|plan| {
        plan.cohort.min = 3;
        plan.cohort.quorum = 0.5;
    });
    let steps = [Snapshot(&["a", "b", "c", "d"]), Submit("a"), Submit("d"), Waits("2 of 3"), Submit("b")];
    check(&plan, &steps).orders.first().unwrap();
    // Of a larger cohort the share is more than `min`.
    let more = [Snapshot(&["a", "b", "c", "d", "e", "f", "g", "h"]), Submit("a"), Waits("1 of 4")];
    check(&plan, &more);
}

#[test]
fn a_deadline_closes_with_the_least_number() {
    let plan = plan_with(|plan| plan.cohort.deadline = deadline());
    let world = check(
        &plan,
        &[Snapshot(&["a", "b", "c"]), Submit("a"), Submit("b"), Waits("2 of 3"), Deadline, Waits("folding")],
    );
    assert_eq!(world.orders[0].inputs.len(), 2);
}

#[test]
fn past_the_deadline_the_min_th_submission_closes() {
    let plan = plan_with(|plan| plan.cohort.deadline = deadline());
    check(
        &plan,
        &[
            Snapshot(&["a", "b", "c"]),
            Submit("c"),
            Deadline,
            Waits("1 of 2"),
            not(Deadline, "not waiting for this"),
            Submit("a"),
            Waits("folding"),
            not(Again("b", 0), "closed"),
        ],
    );
}

#[test]
fn a_deadline_counts_only_for_an_open_stage_that_has_one() {
    let steps = [Snapshot(&["a", "b"]), not(Deadline, "not waiting for this")];
    check(&plan(), &steps);
    let plan = plan_with(|plan| plan.cohort.deadline = deadline());
    let mut world =
        check(&plan, &[Snapshot(&["a", "b"]), Submit("a"), Submit("b"), not(Deadline, "not waiting")]);
    for (round, name) in [(2, "train"), (1, "evaluate"), (0, "init")] {
        assert!(world.apply(Event::DeadlinePassed { round, stage: stage(name) }).is_err());
    }
}

#[test]
fn a_repeated_submission_counts_once() {
    let world = check(
        &plan(),
        &[Snapshot(&["a", "b"]), Submit("a"), not(Again("a", 0), "accepted already"), Submit("b"), Fold],
    );
    assert_eq!(world.state.status().history[0].num_examples, 20.0);
}

#[test]
fn an_accepted_submission_stays_accepted_when_the_run_ends() {
    check(
        &plan(),
        &[
            Snapshot(&["a", "b"]),
            Submit("a"),
            Stop,
            not(Again("a", 0), "accepted already"),
            not(Again("b", 0), "the run is stopped"),
        ],
    );
}

#[test]
fn a_task_of_another_participant_is_not_known() {
    let mut world = check(&plan(), &[Snapshot(&["a", "b"])]);
    let task = world.open(&site("a")).unwrap().task;
    assert!(world.apply(submitted(task, site("b"), 1.0, accuracy(1.0))).is_err());
    assert!(world.apply(Event::Failed { task, site: site("b"), reason: String::new() }).is_err());
}

#[test]
fn numbers_that_are_none_are_refused() {
    let mut world = check(&plan(), &[Snapshot(&["a", "b"])]);
    let task = world.open(&site("a")).unwrap().task;
    for (examples, value) in [(f64::NAN, 1.0), (0.0, 1.0), (-1.0, 1.0), (f64::INFINITY, 1.0), (1.0, f64::NAN)]
    {
        assert!(world.apply(submitted(task, site("a"), examples, accuracy(value))).is_err());
    }
}

#[test]
fn metrics_are_means_weighted_by_examples_and_never_leave_the_finite() {
    let plan = plan_with(|plan| plan.evaluate = evaluating(1));
    let round = |a: Step, b: Step| [Snapshot(&["a", "b"]), Submit("a"), Submit("b"), Fold, a, b];
    let world = check(&plan, &round(Report("a", 0.5, 30.0), Report("b", 1.0, 10.0)));
    assert_eq!(world.state.status().history[1].metrics, accuracy(0.625));
    let world = check(&plan, &round(Report("a", 1e308, 1e9), Report("b", 1e308, 1e9)));
    assert_eq!(world.state.status().history[1].metrics, accuracy(1e308));
}

#[test]
fn evaluation_follows_the_fold_with_those_that_trained() {
    let plan = plan_with(|plan| {
        plan.evaluate = evaluating(1);
        plan.cohort.quorum = 0.5;
    });
    let world = check(
        &plan,
        &[
            Snapshot(&["a", "b", "c", "d"]),
            Submit("d"),
            Submit("b"),
            Open(&[]),
            Fold,
            Open(&["b", "d"]),
            Waits("evaluate: 0 of 2"),
        ],
    );
    let assignment = world.open(&site("d")).unwrap();
    assert_eq!((assignment.stage.as_str(), assignment.inputs[0].version.version), ("evaluate", 1));
}

#[test]
fn evaluation_takes_place_in_every_nth_round_and_in_the_last() {
    let plan = plan_with(|plan| {
        plan.rounds = 3;
        plan.evaluate = evaluating(2);
    });
    let train = [Submit("a"), Submit("b"), Fold];
    let mut steps = vec![Snapshot(&["a", "b"])];
    steps.extend(train.clone());
    steps.push(Round(2));
    steps.extend(train.clone());
    steps.extend([Waits("evaluate"), Submit("a"), Submit("b"), Round(3)]);
    steps.extend(train);
    steps.extend([Waits("evaluate"), Submit("a"), Submit("b"), Over("finished", "all 3 rounds")]);
    let world = check(&plan, &steps);
    let stages: Vec<(u32, &str)> = world
        .journal
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Folded { round, stage, .. } => Some((*round, stage.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(stages, [(1, "train"), (2, "train"), (3, "train")]);
}

#[test]
fn a_trainer_makes_the_first_model() {
    let world = check_from(
        &plan(),
        Start::Trainer,
        &[
            Round(0),
            Waits("0 of 1 present"),
            Present("b"),
            Waits("init: 0 of 1 submissions"),
            Present("a"),
            Open(&["b"]),
            Submit("b"),
            Fold,
            Round(1),
            Open(&["a", "b"]),
        ],
    );
    let inputs = &world.open(&site("a")).unwrap().inputs;
    assert_eq!((inputs[0].version.lineage.clone(), inputs[0].version.version), (LineageName::global(), 0));
}

#[test]
fn a_fold_that_fails_for_now_is_tried_again_and_one_that_fails_for_good_ends_the_run() {
    let closed = [Snapshot(&["a", "b"]), Submit("a"), Submit("b")];
    let mut steps = closed.to_vec();
    steps.extend([FoldFails { permanent: false }, Waits("tried again: no space left"), Fold, Round(2)]);
    check(&plan(), &steps);
    let mut steps = closed.to_vec();
    steps.extend([FoldFails { permanent: true }, Over("failed", "cannot be folded: no space left")]);
    let world = check(&plan(), &steps);
    assert!(world.state.live_tasks().is_empty());
    assert_eq!(world.released_tasks.len(), 2);
}

#[test]
fn a_fold_counts_once_and_only_for_a_closed_stage() {
    let mut world = check(
        &plan(),
        &[
            Snapshot(&["a", "b"]),
            Submit("a"),
            Submit("b"),
            Fold,
            not(Fold, "not waiting for this"),
            Submit("a"),
        ],
    );
    let early = Event::Folded { round: 2, stage: stage("train"), versions: Vec::new() };
    assert!(world.apply(early).is_err());
}

#[test]
fn a_fold_without_the_model_is_refused() {
    let mut world = check(&plan(), &[Snapshot(&["a", "b"]), Submit("a"), Submit("b")]);
    let made = |lineages: &[LineageName]| Event::Folded {
        round: 1,
        stage: stage("train"),
        versions: lineages.iter().map(|lineage| crate::plans::new_version(lineage.clone(), 1, "x")).collect(),
    };
    let (global, best) = (LineageName::global(), LineageName::best());
    for lineages in [
        vec![],
        vec![crate::plans::moment("m")],
        vec![global.clone(), global.clone()],
        vec![global.clone(), best],
    ] {
        assert!(world.apply(made(&lineages)).is_err(), "{lineages:?}");
    }
    assert!(world.apply(made(&[global, crate::plans::moment("m")])).is_ok());
}
