//! Plans and the small values tests are made of.

use sheaf_domain::plan::{
    Better, CohortSpec, EvaluateSpec, Init, Keep, Plan, StopSpec, StrategyKind, StrategySpec,
};
use sheaf_domain::{
    ConfigMap, Digest, LineageName, Manifest, Metrics, Program, RunId, SiteName, SlotName, Span, StageName,
    SubmittedSlot,
};
use sheaf_engine::{Event, NewVersion, Start, StartVersion};
use sheaf_tensor::{Dtype, TensorSpec};

pub(crate) fn run_id() -> RunId {
    RunId::new(0x5eaf).unwrap()
}

pub(crate) fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

pub(crate) fn stage(name: &str) -> StageName {
    StageName::new(name).unwrap()
}

/// Two rounds, at least two participants, quorum 1.0, no deadline, no evaluation.
pub(crate) fn plan() -> Plan {
    Plan {
        name: "digits".to_owned(),
        rounds: 2,
        seed: 7,
        keep_updates: Keep::Round,
        keep_models: Keep::Round,
        init: Init::File("init.npz".to_owned()),
        strategy: StrategySpec { kind: StrategyKind::Fedavg, clip: None },
        cohort: CohortSpec {
            min: 2,
            fraction: 1.0,
            quorum: 1.0,
            deadline: None,
            attempts: 2,
            examples_max: 1e9,
        },
        trainer: None,
        app: None,
        init_config: ConfigMap::new(),
        train_config: ConfigMap::new(),
        evaluate: None,
        stop: None,
    }
}

/// [`plan`], changed.
pub(crate) fn plan_with(change: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = plan();
    change(&mut plan);
    plan
}

pub(crate) fn evaluating(every: u32) -> Option<EvaluateSpec> {
    let config = ConfigMap::new();
    Some(EvaluateSpec { every, metric: "accuracy".to_owned(), better: Better::Higher, config })
}

pub(crate) fn patience(patience: u32, min_delta: f64) -> Option<StopSpec> {
    Some(StopSpec { patience, min_delta })
}

pub(crate) fn deadline() -> Option<Span> {
    Some(Span::from_secs(60))
}

/// A model of one tensor of one element, told apart by its piece.
pub(crate) fn manifest(label: &str) -> Manifest {
    let spec = TensorSpec::new("w", Dtype::F32, [1]).unwrap();
    Manifest::over_pieces(vec![spec], 8, &[Digest::of(label.as_bytes())]).unwrap()
}

pub(crate) fn slots(label: &str) -> Vec<SubmittedSlot> {
    vec![SubmittedSlot { slot: SlotName::new("model").unwrap(), manifest: manifest(label) }]
}

pub(crate) fn accuracy(value: f64) -> Metrics {
    Metrics::from([("accuracy".to_owned(), value)])
}

pub(crate) fn new_version(lineage: LineageName, version: u32, label: &str) -> NewVersion {
    NewVersion { lineage, version, manifest: manifest(label), digest: Digest::of(label.as_bytes()) }
}

/// The lineage of a moment of the global model's optimiser.
pub(crate) fn moment(name: &str) -> LineageName {
    LineageName::optimiser(&LineageName::global(), name).unwrap()
}

pub(crate) fn start() -> Start {
    let version = StartVersion {
        lineage: LineageName::global(),
        manifest: manifest("start"),
        digest: Digest::of(b"start"),
    };
    Start::Versions { from: None, versions: vec![version] }
}

pub(crate) fn created(plan: &Plan, start: Start) -> Event {
    let program = Program {
        init: Some(plan.init_stage().unwrap()),
        stages: plan.stages().unwrap(),
        judges: Vec::new(),
    };
    Event::Created { run: run_id(), plan: Box::new(plan.clone()), program: Box::new(program), start }
}
