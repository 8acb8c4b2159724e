//! Versions and updates: what is kept, what is freed, which model is best, what a warm start begins with.

use sheaf_domain::plan::{Better, Keep};
use sheaf_domain::{Digest, LineageName, Metrics};
use sheaf_engine::{Event, RunState, Start, StartVersion};

use crate::plans::{created, evaluating, manifest, plan, plan_with, site, stage, start};
use crate::world::*;

/// A round of two participants; `value` is the accuracy both find.
fn round(value: f64) -> Vec<Step> {
    vec![Submit("a"), Submit("b"), Fold, Report("a", value, 1.0), Report("b", value, 1.0)]
}

fn rounds(values: &[f64]) -> Vec<Step> {
    let mut steps = vec![Snapshot(&["a", "b"])];
    steps.extend(values.iter().flat_map(|value| round(*value)));
    steps
}

fn global(world: &World) -> Vec<u32> {
    let global = LineageName::global();
    world.versions.iter().filter(|(lineage, _)| *lineage == global).map(|(_, version)| *version).collect()
}

#[test]
fn the_best_model_outlives_its_round() {
    let plan = plan_with(|plan| {
        plan.rounds = 5;
        plan.evaluate = evaluating(1);
    });
    let world = check(&plan, &rounds(&[0.5, 0.9, 0.8, 0.9]));
    assert_eq!(world.state.status().best, Some((2, 0.9)));
    assert_eq!(global(&world), [2, 4]);
    let best = world.state.newest(&LineageName::best()).unwrap();
    assert_eq!((best.0, best.1.digest), (2, Digest::of(b"2/train")));
    let world = check(&plan, &rounds(&[0.5, 0.9, 0.8, 0.95]));
    assert_eq!(global(&world), [4]);
}

#[test]
fn the_direction_of_the_metric_decides() {
    let plan = plan_with(|plan| {
        plan.rounds = 3;
        plan.evaluate = evaluating(1);
        plan.evaluate.as_mut().unwrap().better = Better::Lower;
    });
    let world = check(&plan, &rounds(&[0.5, 0.9, 0.4]));
    assert_eq!(world.state.status().best, Some((3, 0.4)));
}

#[test]
fn an_evaluation_without_the_metric_is_visible_and_not_best() {
    let plan = plan_with(|plan| {
        plan.evaluate = evaluating(1);
        plan.evaluate.as_mut().unwrap().metric = "f1".to_owned();
    });
    let world = check(&plan, &rounds(&[0.5]));
    assert_eq!(world.state.status().best, None);
    assert_eq!(world.last_error("b").as_deref(), Some("its evaluation of round 1 has no metric \"f1\""));
}

#[test]
fn models_are_kept_for_as_many_rounds_as_asked() {
    let kept = |keep| {
        let plan = plan_with(|plan| {
            plan.rounds = 4;
            plan.keep_models = keep;
        });
        let mut steps = vec![Snapshot(&["a", "b"])];
        steps.extend([Submit("a"), Submit("b"), Fold].into_iter().cycle().take(9));
        global(&check(&plan, &steps))
    };
    assert_eq!(kept(Keep::Round), [3]);
    assert_eq!(kept(Keep::Rounds(2)), [2, 3]);
    assert_eq!(kept(Keep::Run), [0, 1, 2, 3]);
}

#[test]
fn updates_are_kept_for_as_many_rounds_as_asked() {
    let freed = |keep| {
        let plan = plan_with(|plan| {
            plan.rounds = 3;
            plan.keep_updates = keep;
        });
        let mut steps = vec![Snapshot(&["a", "b"])];
        steps.extend([Submit("a"), Submit("b"), Fold].into_iter().cycle().take(9));
        let world = check(&plan, &steps);
        assert_eq!(world.released_tasks.len() + world.state.live_tasks().len(), 6);
        world.released_tasks.len()
    };
    assert_eq!(freed(Keep::Round), 6);
    assert_eq!(freed(Keep::Rounds(2)), 2);
    assert_eq!(freed(Keep::Run), 0);
}

#[test]
fn a_warm_start_takes_over_every_lineage() {
    let version = |lineage: LineageName| {
        let label = lineage.to_string();
        StartVersion { lineage, manifest: manifest(&label), digest: Digest::of(label.as_bytes()) }
    };
    let versions = vec![version(LineageName::global()), version(crate::plans::moment("m"))];
    let world = check_from(
        &plan(),
        Start::Versions { from: Some(crate::plans::run_id()), versions },
        &[Round(1), Snapshot(&["a", "b"]), Submit("a"), Submit("b")],
    );
    let current: Vec<&str> = world.orders[0].current.keys().map(LineageName::as_str).collect();
    assert_eq!(current, ["global", "global.opt.m"]);
    assert_eq!(world.open(&site("a")), None);
}

#[test]
fn a_run_whose_updates_are_kept_keeps_what_a_replay_starts_from() {
    let kept = |keep, versions: &[LineageName]| {
        let version = |lineage: &LineageName| {
            let digest = Digest::of(lineage.to_string().as_bytes());
            StartVersion { lineage: lineage.clone(), manifest: manifest(lineage.as_str()), digest }
        };
        let given = versions.iter().map(version).collect();
        let plan = plan_with(|plan| {
            plan.rounds = 3;
            plan.keep_updates = keep;
        });
        let start = Start::Versions { from: None, versions: given };
        let mut world = check_from(&plan, start, &[Snapshot(&["a", "b"]), Submit("a"), Submit("b")]);
        for round in 1..=2 {
            let made =
                versions.iter().map(|lineage| crate::plans::new_version(lineage.clone(), round, "made"));
            let folded = Event::Folded { round, stage: stage("train"), versions: made.collect() };
            world.apply(folded).unwrap();
            for name in ["a", "b"] {
                let task = world.open(&site(name)).unwrap().task;
                world.apply(submitted(task, site(name), 1.0, Metrics::new())).unwrap();
            }
        }
        let live = world.state.live_versions();
        live.map(|(lineage, version, _)| format!("{lineage} {version}")).collect::<Vec<_>>()
    };
    let both = [LineageName::global(), crate::plans::moment("m")];
    assert_eq!(kept(Keep::Run, &both), ["global 0", "global 2", "global.opt.m 0", "global.opt.m 2"]);
    assert_eq!(kept(Keep::Round, &both), ["global 2", "global.opt.m 2"]);
    assert_eq!(kept(Keep::Run, &both[..1]), ["global 0", "global 2"]);
}

#[test]
fn a_start_that_is_none_is_refused() {
    let Start::Versions { versions, .. } = start() else { panic!() };
    let named = |lineage: LineageName| StartVersion { lineage, ..versions[0].clone() };
    let starts = [
        vec![],
        vec![named(crate::plans::moment("m"))],
        vec![versions[0].clone(), versions[0].clone()],
        vec![versions[0].clone(), named(LineageName::best())],
    ];
    for versions in starts {
        let event = created(&plan(), Start::Versions { from: None, versions });
        assert!(RunState::create(Default::default(), &event).is_err());
    }
    let none = plan_with(|plan| plan.rounds = 0);
    assert!(RunState::create(Default::default(), &created(&none, start())).is_err());
}
