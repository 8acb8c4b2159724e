//! Seats: participants that are lost, come back, fail, are replaced or revoked.

use sheaf_engine::Start;

use crate::plans::{deadline, evaluating, plan, plan_with, site};
use crate::world::*;

#[test]
fn a_lost_participant_keeps_its_task_when_nobody_can_take_it() {
    let world = check(
        &plan(),
        &[
            Snapshot(&["a", "b"]),
            Lost("b"),
            Waits("b (lost: no sign of life)"),
            Open(&["a", "b"]),
            Submit("a"),
            Present("b"),
            Waits("b (working)"),
            Submit("b"),
            Waits("folding"),
        ],
    );
    assert_eq!(world.given[&site("b")].len(), 1);
}

#[test]
fn a_lost_participant_may_still_hand_in() {
    check(&plan(), &[Snapshot(&["a", "b"]), Lost("b"), Submit("b"), Submit("a"), Waits("folding")]);
}

#[test]
fn the_loss_of_everybody_is_a_wait_with_names() {
    check(
        &plan(),
        &[
            Snapshot(&["a", "b"]),
            Lost("a"),
            Lost("b"),
            Waits("missing a (lost: no sign of life), b (lost: no sign of life)"),
            Snapshot(&["a", "b"]),
            Waits("missing a (working), b (working)"),
        ],
    );
}

#[test]
fn another_participant_takes_the_place_of_a_lost_one() {
    let plan = plan_with(|plan| plan.cohort.fraction = 0.5);
    let mut world = check(&plan, &[Snapshot(&["a", "b", "c"])]);
    let seated: Vec<_> = world.outbox.values().map(|assignment| assignment.site.clone()).collect();
    let free = ["a", "b", "c"].map(site).into_iter().find(|name| !seated.contains(name)).unwrap();
    let leaver = seated[0].clone();
    let task = world.open(&leaver).unwrap().task;
    let lost = sheaf_engine::Event::SiteLost { site: leaver.clone(), reason: "gone".to_owned() };
    world.apply(lost).unwrap();
    assert!(world.open(&free).is_some());
    let late = world.apply(submitted(task, leaver, 1.0, Default::default())).unwrap_err();
    assert!(late.to_string().contains("took the place of"), "{late}");
    world.check_replay();
}

#[test]
fn who_sits_down_again_gets_a_new_task() {
    let world = check(
        &plan(),
        &[
            Present("a"),
            Present("b"),
            Present("c"),
            Lost("a"),
            Open(&["b", "c"]),
            Present("a"),
            Open(&["b", "c"]),
            Lost("c"),
            Open(&["a", "b"]),
            not(Again("a", 0), "c took the place of a"),
            Submit("a"),
            Submit("b"),
            Waits("folding"),
        ],
    );
    let attempts: Vec<u32> = world.given[&site("a")].iter().map(|assignment| assignment.attempt).collect();
    assert_eq!(attempts, [1, 2]);
}

#[test]
fn coming_and_going_does_not_fill_memory() {
    let mut steps = vec![Present("a"), Present("b"), Present("c")];
    for _ in 0..40 {
        steps.extend([Lost("a"), Present("a"), Lost("c"), Present("c")]);
    }
    steps.push(not(Again("a", 0), "no such task"));
    steps.push(not(Again("a", 38), "took the place of"));
    check(&plan(), &steps);
}

#[test]
fn a_failure_is_tried_again_until_the_participant_is_given_up() {
    let world = check(
        &plan(),
        &[
            Snapshot(&["a", "b"]),
            Fail("a"),
            Waits("a (working, attempt 2)"),
            not(Again("a", 0), "out of memory"),
            Refuse("a"),
            Over(
                "failed",
                "stage train needs 2 submissions, has 0 and can get at most 1 (a: 2 attempts failed",
            ),
        ],
    );
    assert_eq!(world.last_error("a").as_deref(), Some("refused: wrong outputs: slot model is missing"));
    assert_eq!(world.state.status().sites[0].refused, 1);
}

#[test]
fn a_participant_given_up_is_replaced_and_does_not_get_the_stage_again() {
    check(
        &plan(),
        &[
            Present("a"),
            Present("b"),
            Present("c"),
            Fail("a"),
            Fail("a"),
            Open(&["b", "c"]),
            Lost("c"),
            Waits("c (lost"),
            Open(&["b", "c"]),
            Present("c"),
            Submit("b"),
            Submit("c"),
            Fold,
            Round(2),
            Open(&["a", "b", "c"]),
        ],
    );
}

#[test]
fn a_quorum_may_do_without_those_given_up() {
    let plan = plan_with(|plan| plan.cohort.quorum = 0.6);
    check(
        &plan,
        &[
            Snapshot(&["a", "b", "c"]),
            Fail("a"),
            Fail("a"),
            Waits("0 of 2"),
            Submit("b"),
            Submit("c"),
            Waits("folding"),
        ],
    );
}

#[test]
fn with_a_deadline_a_stage_closes_at_once_when_nobody_else_can_hand_in() {
    let plan = plan_with(|plan| plan.cohort.deadline = deadline());
    check(
        &plan,
        &[
            Snapshot(&["a", "b", "c"]),
            Submit("b"),
            Submit("c"),
            Fail("a"),
            Waits("2 of 3"),
            Fail("a"),
            Waits("folding"),
        ],
    );
}

#[test]
fn a_first_model_is_made_by_another_when_one_cannot() {
    check_from(
        &plan(),
        Start::Trainer,
        &[
            Snapshot(&["a", "b"]),
            Open(&["a"]),
            Fail("a"),
            Fail("a"),
            Open(&["b"]),
            Submit("b"),
            Fold,
            Round(1),
        ],
    );
    check_from(
        &plan(),
        Start::Trainer,
        &[
            Snapshot(&["a"]),
            Revoked("a"),
            Waits("a (to be replaced: key stolen)"),
            Present("b"),
            Open(&["b"]),
        ],
    );
}

#[test]
fn a_revoked_participant_leaves_the_cohort() {
    let world = check(
        &plan(),
        &[
            Snapshot(&["a", "b", "c"]),
            Revoked("b"),
            Open(&["a", "c"]),
            not(Again("b", 0), "key stolen"),
            Present("b"),
            Open(&["a", "c"]),
            Submit("a"),
            Submit("c"),
            Waits("folding"),
            Fold,
            Open(&["a", "c"]),
        ],
    );
    assert_eq!(world.state.status().sites[1].presence, "revoked");
    assert_eq!(world.state.status().history[0].cohort, 2);
}

#[test]
fn a_cohort_never_shrinks_below_the_least_number() {
    check(
        &plan(),
        &[
            Snapshot(&["a", "b"]),
            Submit("a"),
            Revoked("b"),
            Waits("1 of 2 submissions in; missing b (to be replaced: key stolen)"),
            Lost("b"),
            Waits("to be replaced: key stolen"),
            Present("c"),
            Open(&["c"]),
            Submit("c"),
            Waits("folding"),
        ],
    );
}

#[test]
fn what_a_participant_handed_in_before_it_was_revoked_counts() {
    let world =
        check(&plan(), &[Snapshot(&["a", "b"]), Submit("b"), Revoked("b"), Submit("a"), Waits("folding")]);
    assert_eq!(world.orders[0].inputs.len(), 2);
}

#[test]
fn who_is_lost_while_folding_gets_the_evaluation_when_it_is_back() {
    let plan = plan_with(|plan| plan.evaluate = evaluating(1));
    check(
        &plan,
        &[
            Snapshot(&["a", "b"]),
            Submit("a"),
            Submit("b"),
            Lost("b"),
            Fold,
            Waits("evaluate: 0 of 2 submissions in; missing a (working), b (lost: not present"),
            Submit("a"),
            Present("b"),
            Submit("b"),
            Waits("1 of 2 present"),
        ][..9],
    );
}

#[test]
fn who_is_revoked_while_folding_is_not_asked_to_evaluate() {
    let plan = plan_with(|plan| plan.evaluate = evaluating(1));
    let trained = [Snapshot(&["a", "b"]), Submit("a"), Submit("b")];
    let mut steps = trained.to_vec();
    steps.extend([Revoked("b"), Fold, Open(&["a"]), Submit("a"), Round(2), Waits("1 of 2 present")]);
    check(&plan, &steps);
    let mut steps = trained.to_vec();
    steps.extend([Revoked("a"), Revoked("b"), Fold, Over("failed", "nobody of its cohort is left")]);
    check(&plan, &steps);
    let mut steps = trained.to_vec();
    steps.extend([
        Fold,
        Revoked("a"),
        Open(&["b"]),
        Waits("0 of 1"),
        Revoked("b"),
        Over("failed", "b: key stolen"),
    ]);
    check(&plan, &steps);
}

#[test]
fn a_snapshot_loses_those_it_does_not_name() {
    let world = check(
        &plan(),
        &[
            Snapshot(&["a", "b"]),
            Snapshot(&["b"]),
            Waits("a (lost: not present any more)"),
            Snapshot(&["c", "b"]),
            Open(&["b", "c"]),
        ],
    );
    assert_eq!(world.last_error("a").as_deref(), Some("not present any more"));
}

#[test]
fn a_stranger_that_is_lost_is_nobody() {
    let world = check(&plan(), &[Lost("x")]);
    assert!(world.state.status().sites.is_empty());
}

#[test]
fn reasons_are_bounded() {
    let mut world = check(&plan(), &[Snapshot(&["a", "b"])]);
    let task = world.open(&site("a")).unwrap().task;
    world.apply(sheaf_engine::Event::Failed { task, site: site("a"), reason: "é".repeat(10_000) }).unwrap();
    assert_eq!(world.last_error("a").unwrap().chars().count(), 500);
}
