//! Random sequences of events: the engine and the plain reference model must agree after every one.
//!
//! A sequence that fails is cut down to what fails and written to `random.regressions`, which is committed and tried first from
//! then on. A failure names the seed of the whole run; `PROPTEST_RNG_SEED` repeats it, `PROPTEST_CASES` asks for more.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{
    Config, FailurePersistence as _, FileFailurePersistence, RngSeed, TestError, TestRunner,
};
use sheaf_domain::plan::{Keep, Plan};
use sheaf_domain::{Refusal, SiteName, TaskId, Wait};
use sheaf_engine::{Event, StageKey, Start, TaskStanding};

use crate::plans::{accuracy, deadline, evaluating, patience, plan_with, site, stage, start};
use crate::reference::{Reference, Share};
use crate::world::{World, fold_of, submitted};

const SITES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One thing that may happen.
#[derive(Debug, Clone)]
enum Op {
    Present(usize),
    Snapshot(u8),
    Lost(usize),
    Revoked(usize),
    /// One of the open tasks is handed in.
    Submit {
        nth: usize,
        examples: u8,
        value: u8,
    },
    /// A task given earlier, whatever became of it.
    SubmitOld {
        site: usize,
        back: usize,
    },
    Refuse(usize),
    Fail(usize),
    Deadline,
    Fold,
    /// A fold that is over already.
    FoldOld,
    FoldFails {
        permanent: bool,
    },
    Stop,
    Extend(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let one = || 0..SITES.len();
    prop_oneof![
        10 => one().prop_map(Op::Present),
        2 => any::<u8>().prop_map(Op::Snapshot),
        5 => one().prop_map(Op::Lost),
        1 => one().prop_map(Op::Revoked),
        40 => (one(), 1..4u8, 0..4u8).prop_map(|(nth, examples, value)| Op::Submit { nth, examples, value }),
        3 => (one(), 0..6usize).prop_map(|(site, back)| Op::SubmitOld { site, back }),
        1 => one().prop_map(Op::Refuse),
        3 => one().prop_map(Op::Fail),
        3 => Just(Op::Deadline),
        14 => Just(Op::Fold),
        1 => Just(Op::FoldOld),
        2 => prop::bool::weighted(0.1).prop_map(|permanent| Op::FoldFails { permanent }),
        1 => prop::bool::weighted(0.2).prop_map(|stop| if stop { Op::Stop } else { Op::Extend(1) }),
        2 => (1..3u32).prop_map(Op::Extend),
    ]
}

/// A plan with the shares it was made of, and whether a trainer makes its first model.
type Drawn = (Plan, Share, Share, bool);

fn drawn_plan() -> impl Strategy<Value = Drawn> {
    let keep = || prop_oneof![Just(Keep::Round), Just(Keep::Rounds(2)), Just(Keep::Run)];
    let shares = prop_oneof![2 => Just((1, 1)), 1 => Just((1, 2)), 1 => Just((2, 3))];
    let fraction = prop_oneof![2 => Just((1u32, 1u32)), 1 => Just((1, 2))];
    let cohort = (fraction, shares, 1..4u32, any::<bool>(), 1..4u32);
    let rest = (1..4u32, keep(), keep(), 0..3u32, prop::option::of(1..3u32), any::<bool>(), any::<u64>());
    (cohort, rest).prop_map(|((fraction, quorum, min, timed, attempts), rest)| {
        let (rounds, updates, models, every, stop_after, from_trainer, seed) = rest;
        let plan = plan_with(|plan| {
            plan.rounds = rounds;
            plan.seed = seed;
            plan.keep_updates = updates;
            plan.keep_models = models;
            plan.cohort.min = min;
            plan.cohort.attempts = attempts;
            plan.cohort.fraction = f64::from(fraction.0) / f64::from(fraction.1);
            plan.cohort.quorum = f64::from(quorum.0) / f64::from(quorum.1);
            plan.cohort.deadline = if timed { deadline() } else { None };
            plan.evaluate = if every == 0 { None } else { evaluating(every) };
            plan.stop = stop_after.filter(|_| every > 0).and_then(|after| patience(after, 0.1));
        });
        (plan, fraction, quorum, from_trainer)
    })
}

/// What the sequences reached, over all cases.
#[derive(Default)]
struct Reached {
    applied: Cell<u64>,
    rejected: Cell<u64>,
    skipped: Cell<u64>,
    folds: Cell<u64>,
    finished: Cell<u64>,
    failed: Cell<u64>,
    stopped: Cell<u64>,
    extended: Cell<u64>,
}

fn more(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// The engine's world and the reference model side by side.
struct Pair {
    world: World,
    reference: Reference,
}

impl Pair {
    fn new((plan, fraction, quorum, from_trainer): &Drawn) -> Pair {
        let from = if *from_trainer { Start::Trainer } else { start() };
        Pair {
            world: World::new(plan, from),
            reference: Reference::new(plan, *fraction, *quorum, *from_trainer),
        }
    }

    fn step(&mut self, op: &Op, reached: &Reached) {
        let Some((event, expected)) = self.predict(op) else { return more(&reached.skipped) };
        let extends = matches!(event, Event::Extended { .. }) && self.world.state.phase().is_over();
        let outcome = self.world.apply(event.clone());
        assert_eq!(outcome.is_ok(), expected, "{event:?}: {outcome:?}");
        more(if expected { &reached.applied } else { &reached.rejected });
        if expected && extends {
            more(&reached.extended);
        }
        self.compare();
    }

    /// The event an operation stands for and whether it is to be taken; none where there is nothing it could mean.
    fn predict(&mut self, op: &Op) -> Option<(Event, bool)> {
        let reference = &mut self.reference;
        let name = |idx: &usize| site(SITES[*idx]);
        let reason = || "why".to_owned();
        Some(match op {
            Op::Present(idx) => (Event::SitePresent { site: name(idx) }, {
                reference.arrive(&name(idx));
                true
            }),
            Op::Snapshot(bits) => {
                let named: BTreeSet<SiteName> =
                    (0..SITES.len()).filter(|idx| bits >> idx & 1 == 1).map(|idx| name(&idx)).collect();
                reference.snapshot(&named);
                (Event::SitesPresent { sites: named.into_iter().rev().collect() }, true)
            }
            Op::Lost(idx) => {
                reference.lose(&name(idx));
                (Event::SiteLost { site: name(idx), reason: reason() }, true)
            }
            Op::Revoked(idx) => {
                reference.revoke(&name(idx));
                (Event::SiteRevoked { site: name(idx), reason: reason() }, true)
            }
            Op::Submit { nth, examples, value } => {
                let open = self.world.outbox.values().nth(nth % self.world.outbox.len().max(1))?;
                let (task, name) = (open.task, open.site.clone());
                self.submit(task, name, f64::from(*examples), f64::from(*value) / 4.0)
            }
            Op::SubmitOld { site, back } => {
                let given = self.world.given.get(&name(site))?;
                let task = given.iter().rev().nth(*back)?.task;
                self.submit(task, name(site), 1.0, 0.5)
            }
            Op::Refuse(idx) => {
                let task = self.world.open(&name(idx))?.task;
                let refusal = Refusal::Slots { message: "none".to_owned() };
                let taken = reference.fail(task, &name(idx));
                (Event::Refused { task, site: name(idx), refusal }, taken)
            }
            Op::Fail(idx) => {
                let task = self.world.open(&name(idx))?.task;
                let taken = reference.fail(task, &name(idx));
                (Event::Failed { task, site: name(idx), reason: reason() }, taken)
            }
            Op::Deadline => {
                let key = self.world.armed.first().map(|(key, _)| key.clone());
                let StageKey { round, stage } =
                    key.unwrap_or_else(|| StageKey { round: 1, stage: stage("train") });
                let taken = reference.deadline(round, stage.as_str());
                (Event::DeadlinePassed { round, stage }, taken)
            }
            Op::Fold => self.fold(false)?,
            Op::FoldOld => self.fold(true)?,
            Op::FoldFails { permanent } => {
                let key = self.world.pending_folds.first()?.key.clone();
                let taken = reference.fold_failed(key.round, key.stage.as_str(), *permanent);
                let (round, stage) = (key.round, key.stage);
                (Event::FoldFailed { round, stage, reason: reason(), permanent: *permanent }, taken)
            }
            Op::Stop => (Event::StopRequested { reason: reason() }, reference.stop()),
            Op::Extend(rounds) => (Event::Extended { rounds: *rounds }, reference.extend(*rounds)),
        })
    }

    fn submit(&mut self, task: TaskId, name: SiteName, examples: f64, value: f64) -> (Event, bool) {
        let taken = self.reference.hand_in(task, &name, examples, value);
        (submitted(task, name, examples, accuracy(value)), taken)
    }

    fn fold(&mut self, old: bool) -> Option<(Event, bool)> {
        let order = if old { self.world.orders.first()? } else { self.world.pending_folds.first()? };
        let taken = self.reference.folded(order.key.round, order.key.stage.as_str());
        Some((fold_of(order), taken))
    }

    fn compare(&self) {
        let (state, reference) = (&self.world.state, &self.reference);
        let status = state.status();
        assert_eq!(status.phase.name(), reference.over.unwrap_or("running"), "{:?}", status.phase);
        assert_eq!((status.round, status.rounds), (reference.round, reference.rounds));
        assert_eq!(state.present(), &reference.present);
        let open: BTreeSet<TaskId> = self.world.outbox.keys().copied().collect();
        assert_eq!(open, reference.open());
        assert_eq!(state.live_tasks(), reference.live());
        let models: BTreeSet<u32> = state.live_versions().map(|(_, version, _)| version).collect();
        assert_eq!(models, reference.models);
        assert_eq!(status.best, reference.best);
        let history: Vec<(u32, &str, Vec<SiteName>)> =
            status.history.iter().map(|r| (r.round, r.stage.as_str(), r.accepted.clone())).collect();
        assert_eq!(history, reference.history);
        let waits_for_sites = status.waits.iter().any(|wait| matches!(wait, Wait::Participants { .. }));
        assert_eq!(waits_for_sites, reference.waits_for_sites, "{:?}", status.waits);
        self.compare_stage(&status.waits);
        self.compare_fates();
    }

    fn compare_stage(&self, waits: &[Wait]) {
        let Some(now) = &self.reference.now else { return };
        let agreed = waits.iter().any(|wait| match wait {
            Wait::Fold { stage } | Wait::FoldRetry { stage, .. } => now.folding && stage.as_str() == now.name,
            Wait::Submissions { stage, accepted, .. } => {
                !now.folding && stage.as_str() == now.name && *accepted as usize == now.results.len()
            }
            _ => false,
        });
        assert!(agreed, "{now:?} is not what {waits:?} say");
    }

    fn compare_fates(&self) {
        for (task, (name, fate)) in &self.reference.tasks {
            match (self.world.state.task(*task, name), fate) {
                (TaskStanding::Open(_), None)
                | (TaskStanding::Accepted, Some(true))
                | (TaskStanding::Closed(_), Some(false)) => {}
                // Forgotten, which only old tasks are.
                (TaskStanding::Unknown, Some(_)) => {
                    let given = self.world.given[name].iter().rev().take(8);
                    assert!(
                        given.clone().all(|assignment| assignment.task != *task) || self.reference.round >= 8
                    );
                }
                (standing, fate) => panic!("{task} of {name} is {standing:?}, expected {fate:?}"),
            }
        }
    }
}

/// The sequences that failed once.
fn regressions() -> FileFailurePersistence {
    FileFailurePersistence::WithSource("regressions")
}

/// A configuration whose seed is known, so that it can be told.
fn config(cases: u32) -> Config {
    let chosen = Config::default();
    let seed = match chosen.rng_seed {
        RngSeed::Random => RngSeed::Fixed(RandomState::new().build_hasher().finish()),
        fixed => fixed,
    };
    Config {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { chosen.cases } else { cases },
        rng_seed: seed,
        source_file: Some(file!()),
        failure_persistence: Some(Box::new(regressions())),
        ..chosen
    }
}

/// Runs a property; a failure tells the least input found and the seed.
fn holds<S: Strategy>(cases: u32, inputs: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: std::fmt::Debug,
{
    let config = config(cases);
    let seed = config.rng_seed;
    if let Err(error) = TestRunner::new(config).run(inputs, property) {
        panic!("PROPTEST_RNG_SEED={seed}: {error}");
    }
}

#[test]
fn engine_and_reference_model_agree_on_random_sequences() {
    let reached = Reached::default();
    let sequences = (drawn_plan(), prop::collection::vec(op(), 1..160));
    holds(600, &sequences, |(drawn, ops)| {
        let mut pair = Pair::new(&drawn);
        pair.compare();
        // Everybody is there at first; from then on they come and go.
        pair.step(&Op::Snapshot(0b11_1111), &reached);
        for op in &ops {
            pair.step(op, &reached);
        }
        pair.world.check_replay();
        reached.folds.set(reached.folds.get() + pair.world.orders.len() as u64);
        match pair.world.state.phase().name() {
            "finished" => more(&reached.finished),
            "failed" => more(&reached.failed),
            "stopped" => more(&reached.stopped),
            _ => {}
        }
        Ok(())
    });
    let seen = [
        &reached.folds,
        &reached.finished,
        &reached.failed,
        &reached.stopped,
        &reached.extended,
        &reached.rejected,
    ];
    println!(
        "applied {} rejected {} skipped {}",
        reached.applied.get(),
        reached.rejected.get(),
        reached.skipped.get()
    );
    println!("folds, finished, failed, stopped, extended, rejected: {:?}", seen.map(Cell::get));
    assert!(seen.into_iter().all(|counter| counter.get() > 0), "the sequences do not reach everything");
    assert!(reached.applied.get() > reached.skipped.get() / 2, "most operations mean nothing");
}

#[test]
fn the_order_of_arrival_does_not_change_the_fold() {
    let order = Just(SITES.to_vec()).prop_shuffle();
    holds(64, &(order, any::<u64>()), |(order, seed)| {
        let plan = plan_with(|plan| plan.seed = seed);
        let fold = |names: &[&str]| {
            let mut world = World::new(&plan, start());
            let sites = SITES.iter().map(|name| site(name)).collect();
            world.apply(Event::SitesPresent { sites }).unwrap();
            for name in names {
                let task = world.open(&site(name)).unwrap().task;
                world.apply(submitted(task, site(name), name.len() as f64, accuracy(0.5))).unwrap();
            }
            world.orders.remove(0)
        };
        prop_assert_eq!(fold(&order), fold(&SITES));
        Ok(())
    });
}

#[test]
fn sequences_that_failed_once_are_tried_again() {
    assert!(!regressions().load_persisted_failures2(Some(file!())).is_empty());
}

#[test]
fn a_sequence_that_fails_is_cut_down_to_what_fails() {
    let sequences = (drawn_plan(), prop::collection::vec(op(), 1..160));
    let config = Config { failure_persistence: None, ..config(64) };
    let outcome = TestRunner::new(config).run(&sequences, |(drawn, ops)| {
        let mut pair = Pair::new(&drawn);
        pair.step(&Op::Snapshot(0b11_1111), &Reached::default());
        ops.iter().for_each(|op| pair.step(op, &Reached::default()));
        assert!(pair.world.orders.is_empty(), "nothing is ever folded");
        Ok(())
    });
    let Err(TestError::Fail(_, (_, ops))) = outcome else { panic!("{outcome:?}") };
    // Six participants hand in, at most, for a stage to be folded; everything else goes.
    assert!(ops.len() <= SITES.len(), "{ops:?}");
}
