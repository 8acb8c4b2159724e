//! Ends: all rounds, early stop, stop on request, and going on after an end.

use sheaf_domain::plan::ROUNDS_MAX;

use crate::plans::{deadline, evaluating, patience, plan, plan_with, site};
use crate::world::*;

fn rounds(values: &[f64]) -> Vec<Step> {
    let mut steps = vec![Snapshot(&["a", "b"])];
    for value in values {
        steps.extend([Submit("a"), Submit("b"), Fold, Report("a", *value, 1.0), Report("b", *value, 1.0)]);
    }
    steps
}

fn stopping(stop_after: u32, min_delta: f64) -> sheaf_domain::plan::Plan {
    plan_with(|plan| {
        plan.rounds = 10;
        plan.evaluate = evaluating(1);
        plan.stop = patience(stop_after, min_delta);
    })
}

#[test]
fn an_early_stop_ends_after_patience_evaluations_without_gain() {
    let mut steps = rounds(&[0.5, 0.6, 0.6]);
    steps.push(Round(4));
    steps.extend(rounds(&[0.55]));
    steps.push(Over("finished", "early stop: no improvement in 2 evaluations"));
    let world = check(&stopping(2, 0.0), &steps);
    assert_eq!(world.state.status().best, Some((2, 0.6)));
    assert_eq!(world.state.status().round, 4);
}

#[test]
fn small_improvements_add_up() {
    let mut steps = rounds(&[0.50, 0.54, 0.58, 0.62, 0.66]);
    steps.push(Round(6));
    let world = check(&stopping(2, 0.05), &steps);
    assert_eq!(world.state.status().best, Some((5, 0.66)));
    let mut steps = rounds(&[0.50, 0.51, 0.52]);
    steps.push(Over("finished", "early stop"));
    check(&stopping(2, 0.05), &steps);
}

#[test]
fn evaluations_without_the_metric_are_no_gain() {
    let mut plan = stopping(2, 0.0);
    plan.evaluate.as_mut().unwrap().metric = "f1".to_owned();
    let mut steps = rounds(&[0.1, 0.2]);
    steps.push(Over("finished", "early stop"));
    check(&plan, &steps);
}

#[test]
fn a_stop_on_request_withdraws_everything() {
    let plan = plan_with(|plan| plan.cohort.deadline = deadline());
    let world = check(
        &plan,
        &[
            Present("a"),
            Present("b"),
            Present("c"),
            Submit("a"),
            Stop,
            Over("stopped", "ops: enough"),
            Open(&[]),
            not(Stop, "the run has ended"),
            not(Deadline, "the run has ended"),
            not(Extend(1), "start another run from its model"),
            Present("d"),
            Lost("b"),
            Open(&[]),
        ],
    );
    assert_eq!(world.released_tasks.len(), 2);
    assert!(world.state.outstanding().is_empty());
}

#[test]
fn a_fold_that_ends_after_a_stop_is_refused() {
    check(&plan(), &[Snapshot(&["a", "b"]), Submit("a"), Submit("b"), Stop, not(Fold, "the run has ended")]);
}

#[test]
fn a_run_that_waits_can_be_stopped() {
    check(&plan(), &[Stop, Over("stopped", "enough")]);
}

#[test]
fn a_finished_run_goes_on_with_those_that_are_there_then() {
    let train = [Submit("a"), Submit("b"), Fold];
    let mut steps = vec![Snapshot(&["a", "b"])];
    steps.extend(train.iter().cloned().cycle().take(6));
    steps.extend([
        Over("finished", "all 2 rounds"),
        not(Extend(0), "no rounds"),
        not(Extend(ROUNDS_MAX), "more than"),
        not(Extend(u32::MAX), "more than"),
        Extend(1),
        Round(3),
        Waits("0 of 2 present"),
        Snapshot(&["b", "c"]),
        Open(&["b", "c"]),
        Submit("b"),
        Submit("c"),
        Fold,
        Over("finished", "all 3 rounds"),
    ]);
    let world = check(&plan(), &steps);
    assert_eq!(world.state.status().history.len(), 3);
}

#[test]
fn an_early_stop_is_extended_from_where_it_stopped() {
    let mut steps = rounds(&[0.5, 0.4, 0.4]);
    steps.extend([Over("finished", "early stop"), Extend(1), Round(4)]);
    steps.extend(rounds(&[0.3]));
    steps.push(Over("finished", "all 4 rounds"));
    check(&stopping(2, 0.0), &steps);
}

#[test]
fn rounds_added_while_the_last_one_goes_on_are_done() {
    let plan = plan_with(|plan| {
        plan.rounds = 1;
        plan.evaluate = evaluating(5);
    });
    let world = check(
        &plan,
        &[
            Snapshot(&["a", "b"]),
            Submit("a"),
            Extend(1),
            Submit("b"),
            Fold,
            Waits("evaluate"),
            Submit("a"),
            Submit("b"),
            Round(2),
            Open(&["a", "b"]),
        ],
    );
    assert_eq!(world.state.status().rounds, 2);
    assert_eq!(world.open(&site("a")).unwrap().round, 2);
}
