//! Unit tests of programs that no plan makes yet: stages handed out together, several lineages.

use sheaf_domain::plan::{Better, CohortSpec, EvaluateSpec, Init, Keep, Plan, StrategyKind, StrategySpec};
use sheaf_domain::{
    Arithmetic, Assignment, CloseRule, ConfigMap, Digest, FoldRule, LineageName, Manifest, Metrics, Program,
    RunId, Selector, ServerStep, SiteName, SlotName, SlotRole, StageFold, StageInput, StageName, StageOutput,
    StageSpec, StageStart, Timestamp, Weight,
};

use crate::program;
use crate::{Action, Event, FoldOrder, NewVersion, Rejected, RunState, Start, StartVersion};

fn lineage(name: &str) -> LineageName {
    LineageName::new(name).unwrap()
}

fn model_slot() -> SlotName {
    SlotName::new("model").unwrap()
}

pub(crate) fn manifest() -> Manifest {
    Manifest::over_pieces(Vec::new(), 8, &[]).unwrap()
}

pub(crate) fn plan() -> Plan {
    let config = ConfigMap::new();
    Plan {
        name: "two".to_owned(),
        rounds: 3,
        seed: 1,
        keep_updates: Keep::Round,
        keep_models: Keep::Round,
        init: Init::Trainer,
        strategy: StrategySpec { kind: StrategyKind::Fedavg, clip: None },
        cohort: CohortSpec {
            min: 1,
            fraction: 1.0,
            quorum: 1.0,
            deadline: None,
            attempts: 1,
            examples_max: 1e6,
        },
        trainer: None,
        app: None,
        init_config: config.clone(),
        train_config: config.clone(),
        evaluate: Some(EvaluateSpec {
            every: 1,
            metric: "accuracy".to_owned(),
            better: Better::Higher,
            config,
        }),
        stop: None,
    }
}

/// A stage that is given the global model and makes a version of `target`, if it is to make one.
pub(crate) fn stage(name: &str, start: StageStart, selector: Selector, target: Option<&str>) -> StageSpec {
    let fold = |target: &str| StageFold {
        slot: model_slot(),
        rule: FoldRule::WeightedMean,
        weight: Weight::Uniform,
        step: ServerStep::Replace,
        target: lineage(target),
    };
    StageSpec {
        name: StageName::new(name).unwrap(),
        start,
        every: 1,
        selector,
        inputs: vec![StageInput {
            slot: model_slot(),
            role: SlotRole::Weights,
            lineage: LineageName::global(),
        }],
        outputs: target.map(|_| output(SlotRole::Weights)).into_iter().collect(),
        close: CloseRule::Quorum { share: 1.0, min: 1, deadline: None },
        folds: target.map(fold).into_iter().collect(),
        config: ConfigMap::new(),
        arithmetic: Arithmetic::Double,
    }
}

fn output(role: SlotRole) -> StageOutput {
    StageOutput { slot: model_slot(), role, like: Some(LineageName::global()) }
}

fn sample() -> Selector {
    Selector::Sample { fraction: 1.0, min: 1 }
}

fn same_as(name: &str) -> Selector {
    Selector::SameAs(StageName::new(name).unwrap())
}

fn program(stages: Vec<StageSpec>) -> Program {
    Program { init: None, stages, judges: Vec::new() }
}

fn changed(mut spec: StageSpec, change: impl FnOnce(&mut StageSpec)) -> StageSpec {
    change(&mut spec);
    spec
}

/// Makes a stage take differences in place of weights.
fn differences(spec: &mut StageSpec) {
    spec.outputs = vec![output(SlotRole::Delta)];
}

struct Run {
    state: RunState,
    actions: Vec<Action>,
}

impl Run {
    /// A run of one participant, `a`.
    fn new(stages: Vec<StageSpec>) -> Run {
        let version = StartVersion {
            lineage: LineageName::global(),
            manifest: manifest(),
            digest: Digest::of(b"start"),
        };
        let start = Start::Versions { from: None, versions: vec![version] };
        let run = RunId::new(1).unwrap();
        let (plan, program) = (Box::new(plan()), Box::new(program(stages)));
        let created = RunState::create(Timestamp::default(), &Event::Created { run, plan, program, start });
        let (state, actions) = created.unwrap();
        let mut run = Run { state, actions };
        run.apply(Event::SitePresent { site: SiteName::new("a").unwrap() });
        run
    }

    fn apply(&mut self, event: Event) {
        self.actions = self.state.apply(Timestamp::default(), &event).unwrap();
    }

    fn assigned(&self, stage: &str) -> Assignment {
        let outstanding = self.state.outstanding().into_iter().find_map(|action| match action {
            Action::Assign(assignment) if assignment.stage.as_str() == stage => Some(*assignment),
            _ => None,
        });
        outstanding.unwrap()
    }

    fn submit(&mut self, stage: &str) {
        let Assignment { task, site, .. } = self.assigned(stage);
        let metrics = Metrics::from([("accuracy".to_owned(), 0.5)]);
        self.apply(Event::Submitted { task, site, slots: Vec::new(), num_examples: 1.0, metrics });
    }

    fn fold(&mut self, stage: &str) {
        let order = self.order(stage);
        let made = |lineage: &LineageName| NewVersion {
            lineage: lineage.clone(),
            version: order.next(lineage),
            manifest: manifest(),
            digest: Digest::of(stage.as_bytes()),
        };
        let versions = order.folds.iter().map(|fold| made(&fold.target)).collect();
        self.apply(Event::Folded { round: order.key.round, stage: order.key.stage, versions });
    }

    fn order(&self, stage: &str) -> FoldOrder {
        let outstanding = self.state.outstanding().into_iter().find_map(|action| match action {
            Action::Fold(order) if order.key.stage.as_str() == stage => Some(*order),
            _ => None,
        });
        outstanding.unwrap()
    }

    fn versions(&self) -> Vec<(&str, u32)> {
        self.state.live_versions().map(|(lineage, version, _)| (lineage.as_str(), version)).collect()
    }
}

#[test]
fn a_version_stays_while_an_open_assignment_hands_it_out() {
    let mut run = Run::new(vec![
        stage("train", StageStart::AfterPrevious, sample(), Some("global")),
        stage("evaluate", StageStart::WithPrevious, same_as("train"), None),
    ]);
    let before = run.assigned("evaluate");
    run.submit("train");
    run.fold("train");
    assert_eq!(run.assigned("evaluate"), before);
    assert_eq!(run.versions(), [("global", 0), ("global", 1)]);
    run.submit("evaluate");
    // What was evaluated is version 0, which is thereby the best.
    assert_eq!(run.state.status().best, Some((0, 0.5)));
    assert_eq!(run.versions(), [("global", 0), ("global", 1)]);
    assert_eq!(run.state.status().round, 2);
}

#[test]
fn a_fold_stands_on_the_versions_of_the_moment_its_stage_closed() {
    let mut run = Run::new(vec![
        stage("train", StageStart::AfterPrevious, sample(), Some("global")),
        stage("variate", StageStart::WithPrevious, sample(), Some("control")),
    ]);
    run.submit("train");
    run.submit("variate");
    let ordered = run.order("variate");
    assert_eq!(ordered.current[&LineageName::global()].0, 0);
    run.fold("train");
    assert_eq!(run.order("variate"), ordered);
    assert_eq!(run.versions(), [("global", 0), ("global", 1)]);
    run.fold("variate");
    assert_eq!(run.versions(), [("control", 0), ("global", 1)]);
    let freed = Action::ReleaseVersion { lineage: LineageName::global(), version: 0 };
    assert!(run.actions.contains(&freed));
}

#[test]
fn stages_one_after_another_wait_for_the_fold() {
    let mut run = Run::new(vec![
        stage("train", StageStart::AfterPrevious, sample(), Some("global")),
        stage("tune", StageStart::AfterPrevious, same_as("train"), Some("control")),
    ]);
    run.submit("train");
    assert!(!run.state.outstanding().iter().any(|action| matches!(action, Action::Assign(_))));
    run.fold("train");
    assert_eq!(run.assigned("tune").inputs[0].version.version, 1);
}

#[test]
fn stages_one_after_another_may_each_make_the_model() {
    let mut run = Run::new(vec![
        stage("north", StageStart::AfterPrevious, sample(), Some("global")),
        stage("south", StageStart::AfterPrevious, sample(), Some("global")),
    ]);
    for (made, name) in [(1, "north"), (2, "south"), (3, "north"), (4, "south")] {
        assert_eq!(run.assigned(name).inputs[0].version.version, made - 1);
        run.submit(name);
        assert_eq!(run.order(name).next(&LineageName::global()), made);
        run.fold(name);
    }
    assert_eq!(run.state.version_of_round(2).map(|(version, _)| version), Some(4));
    let of_round: Vec<_> = run.state.status().history.iter().map(|made| (made.round, made.version)).collect();
    assert_eq!(of_round, [(1, Some(1)), (1, Some(2)), (2, Some(3)), (2, Some(4))]);
}

#[test]
fn differences_are_from_the_version_that_was_handed_out() {
    let mut run = Run::new(vec![
        changed(stage("train", StageStart::AfterPrevious, sample(), Some("global")), differences),
        stage("tune", StageStart::AfterPrevious, sample(), Some("control")),
    ]);
    run.submit("train");
    let order = run.order("train");
    assert_eq!(order.bases[&model_slot()].0, 0);
    assert_eq!(order.next(&LineageName::global()), 1);
    run.fold("train");
    run.submit("tune");
    assert!(run.order("tune").bases.is_empty());
}

#[test]
fn a_version_out_of_order_is_refused() {
    let mut run = Run::new(vec![stage("train", StageStart::AfterPrevious, sample(), Some("global"))]);
    run.submit("train");
    for version in [0, 2] {
        let made = NewVersion {
            lineage: LineageName::global(),
            version,
            manifest: manifest(),
            digest: Digest::of(b"x"),
        };
        let event = Event::Folded { round: 1, stage: StageName::new("train").unwrap(), versions: vec![made] };
        let outcome = run.state.apply(Timestamp::default(), &event);
        assert!(matches!(outcome, Err(Rejected::Malformed(_))), "{version}");
    }
}

#[test]
fn programs_that_cannot_work_are_refused() {
    let train = || stage("train", StageStart::AfterPrevious, sample(), Some("global"));
    let other = |name, selector, target| stage(name, StageStart::AfterPrevious, selector, target);
    let long = "x".repeat(60);
    let rare = |spec, every| changed(spec, |spec| spec.every = every);
    let refused = [
        vec![],
        vec![train(), train()],
        vec![train(), stage("more", StageStart::WithPrevious, sample(), Some("global"))],
        vec![other("train", sample(), Some("global.opt.m"))],
        vec![other("train", sample(), Some(&long))],
        vec![changed(train(), |spec| spec.outputs.clear())],
        vec![train(), changed(other("b", sample(), Some("control")), differences)],
        vec![changed(train(), |spec| {
            differences(spec);
            spec.folds[0].rule = FoldRule::Adopt;
        })],
        vec![changed(train(), |spec| {
            differences(spec);
            spec.folds[0].rule = FoldRule::CompatibleMeanAndSum { summed: vec!["_u".to_owned()] };
        })],
        vec![train(), other("more", sample(), Some("best"))],
        vec![other("evaluate", same_as("train"), None), train()],
        vec![train(), rare(other("b", sample(), None), 2), other("c", same_as("b"), None)],
        vec![rare(train(), 2)],
    ];
    for stages in refused {
        let outcome = program::check(&program(stages.clone()));
        assert!(matches!(outcome, Err(Rejected::Plan(_))), "{stages:?}");
    }
    let sound = program(vec![train(), rare(other("b", same_as("train"), None), 2)]);
    assert_eq!(program::check(&sound), Ok(()));
}
