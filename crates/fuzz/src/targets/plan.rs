//! Plans: the TOML an operator hands in.

use sheaf_domain::TOML_MARKS_MAX;
use sheaf_domain::plan::{PLAN_LEN_MAX, Plan};

use crate::form::{self, Form};
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `Plan::parse`. TOML is held as a tree with the place of every value; each of the few tables a text may have takes a kilobyte.
pub(super) const TARGET: Target = Target {
    name: "plan",
    about: "a plan in TOML",
    form: Form::Text(form::PLAN),
    len_max: PLAN_LEN_MAX + 1,
    ceiling: Ceiling { per_byte: 256, constant: 64 * 1024 + TOML_MARKS_MAX as u64 * 1024 },
    samples,
    body,
};

fn body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let text = match super::text(input) {
        Ok(text) => text,
        Err(refused) => return refused,
    };
    let plan = match probe.watch(|| Plan::parse(text)) {
        Ok(plan) => plan,
        Err(error) => return Verdict::refused(error),
    };
    assert_eq!(plan.check(), Ok(()), "what was read passes its own check");
    let stages = plan.stages().map(|stages| stages.len());
    assert!(stages.is_ok() && plan.init_stage().is_ok(), "a checked plan has its stages");
    assert!(!plan.summary().is_empty());
    // The journal keeps a plan as JSON.
    let json = serde_json::to_vec(&plan).unwrap_or_else(|error| panic!("no JSON form: {error}"));
    let again = serde_json::from_slice::<Plan>(&json).map_err(|error| error.to_string());
    assert_eq!(again.as_ref(), Ok(&plan), "the journal's form is another plan");
    Verdict::Accepted(format!("{} with {} stages", plan.strategy.kind.name(), stages.unwrap_or(0)))
}

fn samples() -> Vec<Vec<u8>> {
    let kinds = [
        "kind = \"fedavg\"\nclip = { norm_ratio = 4.0 }",
        "kind = \"fedprox\"\nproximal_mu = 0.1",
        "kind = \"fedavgm\"\nserver_momentum = 0.9",
        "kind = \"fedadagrad\"\ntau = 1e-3",
        "kind = \"fedadam\"\nbeta1 = 0.9\nbeta2 = 0.99",
        "kind = \"fedyogi\"\nserver_learning_rate = 0.01",
        "kind = \"median\"",
        "kind = \"trimmed-mean\"\ntrim_share = 0.1",
        "kind = \"krum\"\nbyzantine = 1\nkeep = 2",
    ];
    let plan = |kind: &&str| {
        format!(
            "[run]\nname = \"digits\"\nrounds = 20\nseed = 7\nkeep_updates = 3\nkeep_models = \"run\"\n\
             [model]\ninit = \"model.npz\"\n[strategy]\n{kind}\n\
             [cohort]\nmin = 5\nfraction = 0.5\nquorum = 1.0\ndeadline = \"10m\"\nattempts = 2\n\
             [task]\ntrainer = \"mlp\"\n[task.train]\nepochs = 5\nrate = 0.1\nlayers = [64, [1, 2], \"relu\"]\n\
             [task.evaluate]\nevery = 2\nmetric = \"loss\"\n[stop]\npatience = 3\nmin_delta = 0.001\n"
        )
    };
    let mut samples: Vec<Vec<u8>> = kinds.iter().map(|kind| plan(kind).into_bytes()).collect();
    samples.push(b"[run]\nname = \"digits\"\nrounds = 1\n".to_vec());
    samples
}
