//! Stages that close together: who is done, what counts, when a round ends without some.

use std::collections::BTreeSet;

use sheaf_domain::plan::Better;
use sheaf_domain::{
    CloseRule, Digest, Judge, LineageName, Metrics, Program, RunId, RunPhase, Selector, ServerStep, SiteName,
    Span, StageName, StageSpec, StageStart, Timestamp,
};

use crate::tests::{manifest, plan, stage};
use crate::{Action, Event, NewVersion, Rejected, RunState, Start, StartVersion, program};

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn named(names: &[&str]) -> Selector {
    Selector::Named { sites: names.iter().map(|name| site(name)).collect() }
}

/// Validation, training and validation again, each for those named.
fn stages(close: &CloseRule, sites: [&[&str]; 3]) -> Vec<StageSpec> {
    let [before, train, after] = sites;
    let mut stages = vec![
        stage("before", StageStart::AfterPrevious, named(before), None),
        stage("train", StageStart::WithPrevious, named(train), Some("global")),
        stage("after", StageStart::WithPrevious, named(after), None),
    ];
    for spec in &mut stages {
        spec.close = close.clone();
        for fold in &mut spec.folds {
            fold.step = ServerStep::Told { as_difference: true, codec: None, optimiser: None };
        }
    }
    stages
}

fn everybody() -> CloseRule {
    CloseRule::Together { share: 1.0, min: 1, deadline: None }
}

fn with_judge(stages: Vec<StageSpec>) -> Program {
    let judge = Judge { stage: StageName::new("before").unwrap(), better: Better::Higher };
    Program { init: None, stages, judges: vec![judge] }
}

struct Run {
    state: RunState,
    actions: Vec<Action>,
}

impl Run {
    fn new(stages: Vec<StageSpec>) -> Run {
        let global = LineageName::global();
        let version = StartVersion { lineage: global, manifest: manifest(), digest: Digest::of(b"start") };
        let start = Start::Versions { from: None, versions: vec![version] };
        let run = RunId::new(1).unwrap();
        let (plan, program) = (Box::new(plan()), Box::new(with_judge(stages)));
        let created = Event::Created { run, plan, program, start };
        let (state, actions) = RunState::create(Timestamp::default(), &created).unwrap();
        Run { state, actions }
    }

    fn apply(&mut self, event: Event) -> Result<(), Rejected> {
        self.actions = self.state.apply(Timestamp::default(), &event)?;
        Ok(())
    }

    fn present(&mut self, name: &str) {
        self.apply(Event::SitePresent { site: site(name) }).unwrap();
    }

    /// The stages in which a participant has work, in order.
    fn work(&self, name: &str) -> Vec<String> {
        let of = |action: Action| match action {
            Action::Assign(assignment) if assignment.site.as_str() == name => {
                Some(assignment.stage.to_string())
            }
            _ => None,
        };
        self.state.outstanding().into_iter().filter_map(of).collect()
    }

    fn submit(&mut self, name: &str, stage: &str, accuracy: f64) {
        let task = self.state.outstanding().into_iter().find_map(|action| match action {
            Action::Assign(assignment)
                if assignment.site.as_str() == name && assignment.stage.as_str() == stage =>
            {
                Some(assignment.task)
            }
            _ => None,
        });
        let metrics = Metrics::from([("accuracy".to_owned(), accuracy)]);
        let event = Event::Submitted {
            task: task.expect("it has that work"),
            site: site(name),
            slots: Vec::new(),
            num_examples: 1.0,
            metrics,
        };
        self.apply(event).unwrap();
    }

    fn does_all(&mut self, name: &str, accuracy: f64) {
        for stage in self.work(name) {
            self.submit(name, &stage, accuracy);
        }
    }

    /// Folds what is to be folded; whose submissions those are.
    fn fold(&mut self) -> Vec<String> {
        let order = self.state.outstanding().into_iter().find_map(|action| match action {
            Action::Fold(order) => Some(*order),
            _ => None,
        });
        let order = order.expect("a fold is due");
        let global = LineageName::global();
        let made = [global.clone(), LineageName::difference(&global).unwrap()];
        let versions = made.map(|lineage| NewVersion {
            version: order.next(&global),
            lineage,
            manifest: manifest(),
            digest: Digest::of(b"made"),
        });
        let folded = order.inputs.iter().map(|input| input.site.to_string()).collect();
        let (round, stage) = (order.key.round, order.key.stage);
        self.apply(Event::Folded { round, stage, versions: versions.to_vec() }).unwrap();
        folded
    }

    fn round(&self) -> u32 {
        self.state.status().round
    }
}

#[test]
fn whoever_comes_has_all_of_its_work_at_once_and_does_not_wait_for_others() {
    let mut run = Run::new(stages(&everybody(), [&["a", "b"]; 3]));
    assert!(run.work("a").is_empty());
    run.present("a");
    assert_eq!(run.work("a"), ["before", "train", "after"]);
    run.does_all("a", 0.5);
    assert_eq!((run.work("a").len(), run.round()), (0, 1));
    assert!(run.state.handed_in(&StageName::new("train").unwrap(), &site("a")).is_some());
    run.present("b");
    run.submit("b", "before", 0.7);
    run.submit("b", "train", 0.0);
    assert!(!run.state.outstanding().iter().any(|action| matches!(action, Action::Fold(_))));
    run.submit("b", "after", 0.0);
    assert_eq!(run.fold(), ["a", "b"]);
    assert_eq!(run.round(), 2);
    assert_eq!(run.work("b"), ["before", "train", "after"]);
    assert_eq!(run.state.status().best, Some((0, 0.6)));
    let kept: Vec<_> = run.state.live_versions().map(|(l, version, _)| (l.to_string(), version)).collect();
    let kept: Vec<_> = kept.iter().map(|(lineage, version)| (lineage.as_str(), *version)).collect();
    assert_eq!(kept, [("global", 0), ("global", 1), ("global.difference", 1)]);
}

#[test]
fn enough_close_the_round_and_what_the_others_began_does_not_count() {
    let close = CloseRule::Together { share: 0.5, min: 1, deadline: None };
    let mut run = Run::new(stages(&close, [&["a", "b", "c", "d"]; 3]));
    for name in ["a", "b", "c"] {
        run.present(name);
    }
    run.submit("a", "before", 0.9);
    run.submit("a", "train", 0.9);
    let early = run.state.handed_in(&StageName::new("train").unwrap(), &site("a")).unwrap().0;
    run.does_all("b", 0.1);
    assert_eq!(run.round(), 1);
    run.does_all("c", 0.3);
    assert!(run.actions.contains(&Action::ReleaseTask(early)));
    assert_eq!(run.fold(), ["b", "c"]);
    let history = run.state.status().history;
    assert!(history.iter().all(|record| record.accepted == [site("b"), site("c")]), "{history:?}");
    assert_eq!(history[0].metrics["accuracy"], 0.2);
    // The next round is for everybody again.
    assert_eq!((run.round(), run.work("d").len()), (2, 3));
}

#[test]
fn a_deadline_closes_with_those_who_are_done_and_then_with_the_next() {
    let deadline = Some(Span::from_secs(60));
    let close = CloseRule::Together { share: 1.0, min: 1, deadline };
    let passed = || Event::DeadlinePassed { round: 1, stage: StageName::new("before").unwrap() };
    let mut run = Run::new(stages(&close, [&["a", "b"]; 3]));
    run.present("a");
    run.does_all("a", 0.5);
    assert_eq!(run.round(), 1);
    run.apply(passed()).unwrap();
    assert_eq!(run.fold(), ["a"]);

    let mut run = Run::new(stages(&close, [&["a", "b"]; 3]));
    run.present("a");
    run.submit("a", "before", 0.5);
    run.apply(passed()).unwrap();
    run.submit("a", "after", 0.5);
    run.submit("a", "train", 0.5);
    assert_eq!(run.fold(), ["a"]);
}

#[test]
fn each_is_done_with_its_own_work() {
    let mut run = Run::new(stages(&everybody(), [&["a", "b"], &["a"], &["a"]]));
    run.present("b");
    assert_eq!(run.work("b"), ["before"]);
    run.does_all("b", 0.5);
    run.present("a");
    run.does_all("a", 0.5);
    assert_eq!(run.fold(), ["a"]);

    // Nobody is left who trains: the round has no new model.
    let close = CloseRule::Together { share: 0.5, min: 1, deadline: None };
    let mut run = Run::new(stages(&close, [&["a", "b"], &["a"], &["a"]]));
    run.present("b");
    run.does_all("b", 0.5);
    assert_eq!(run.round(), 2);
    assert_eq!(run.state.newest(&LineageName::global()).map(|(version, _)| version), Some(0));
}

#[test]
fn who_cannot_go_on_ends_the_run_where_it_is_needed() {
    let mut run = Run::new(stages(&everybody(), [&["a", "b"]; 3]));
    run.present("a");
    run.does_all("a", 0.5);
    run.present("b");
    let Some(Action::Assign(assignment)) =
        run.state.outstanding().into_iter().find(|action| matches!(action, Action::Assign(_)))
    else {
        panic!("b has work")
    };
    let event = Event::Failed { task: assignment.task, site: site("b"), reason: "no data".to_owned() };
    run.apply(event).unwrap();
    let status = run.state.status();
    assert!(matches!(&status.phase, RunPhase::Failed { reason } if reason.contains("no data")), "{status:?}");
}

#[test]
fn stages_that_close_together_do_so_by_one_rule_and_are_for_somebody() {
    let check = |stages| program::check(&with_judge(stages));
    assert_eq!(check(stages(&everybody(), [&["a"]; 3])), Ok(()));
    let mut other = stages(&everybody(), [&["a"]; 3]);
    other[2].close = CloseRule::Together { share: 0.5, min: 1, deadline: None };
    assert!(matches!(check(other.clone()), Err(Rejected::Plan(_))));
    other[2].start = StageStart::AfterPrevious;
    assert_eq!(check(other), Ok(()));
    let mut nobody = stages(&everybody(), [&["a"]; 3]);
    nobody[1].selector = Selector::Named { sites: BTreeSet::new() };
    assert!(matches!(check(nobody.clone()), Err(Rejected::Plan(_))));
    nobody[1].selector = Selector::Drawn { sites: BTreeSet::from([site("a")]), places: vec![(1, 2)] };
    assert!(matches!(check(nobody), Err(Rejected::Plan(_))));
    let mut judged = with_judge(stages(&everybody(), [&["a"]; 3]));
    judged.judges[0].stage = StageName::new("nowhere").unwrap();
    assert!(matches!(program::check(&judged), Err(Rejected::Plan(_))));
}
