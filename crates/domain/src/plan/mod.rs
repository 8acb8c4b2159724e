//! Plans: what a run is, as data. A plan says what is to be learned and by which rules; never what a site executes.
//!
//! [`Plan::parse`] reads the TOML form and refuses unknown keys, wrong units and impossible combinations with the line they
//! stand on. [`Plan::stages`] turns a plan into the stages the engine drives.

mod check;
mod file;
mod program;
mod source;
mod summary;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::stage::ClipBound;
use crate::{ConfigMap, Span};

/// The most rounds a plan may ask for.
pub const ROUNDS_MAX: u32 = 1_000_000;
/// The longest plan file, in bytes.
pub const PLAN_LEN_MAX: usize = 256 * 1024;

/// A checked plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The run's name, for people; `[run] name`.
    pub name: String,
    /// Rounds to train, at least 1; `[run] rounds`.
    pub rounds: u32,
    /// What all pseudo-randomness of the run derives from; `[run] seed`, default 0.
    pub seed: u64,
    /// How long participants' updates are kept; `[run] keep_updates`.
    pub keep_updates: Keep,
    /// How many versions of the global model are kept; `[run] keep_models`.
    pub keep_models: Keep,
    /// Where the first model comes from; `[model] init`.
    pub init: Init,
    /// How updates become the next model; `[strategy]`.
    pub strategy: StrategySpec,
    /// Who takes part and when a round closes; `[cohort]`.
    pub cohort: CohortSpec,
    /// The trainer asked for, by the name a site knows it under; `[task] trainer`.
    pub trainer: Option<String>,
    /// The app whose own participants work on the run, if any; `[task] app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppSpec>,
    /// Configuration of the `init` stage; `[task.init]`.
    pub init_config: ConfigMap,
    /// Configuration of the `train` stage; `[task.train]`.
    pub train_config: ConfigMap,
    /// Evaluation at the sites, if any; `[task.evaluate]`.
    pub evaluate: Option<EvaluateSpec>,
    /// Early stopping, if any; `[stop]`.
    pub stop: Option<StopSpec>,
}

/// An app that participants of another stack run, in place of a trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppSpec {
    /// Its directory or its bundle, beside the plan; `[task] app`.
    pub source: String,
    /// Settings of the app's own that this run gives other values; `[task.app_config]`.
    pub config: ConfigMap,
}

impl Plan {
    /// Whether participants that have trainers work on it.
    pub fn is_for_trainers(&self) -> bool {
        self.app.is_none() || self.trainer.is_some()
    }
}

/// How long something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Until its round is over.
    Round,
    /// For this many rounds.
    Rounds(u32),
    /// As long as the run.
    Run,
}

/// Where the first model comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// A file handed in with the plan (safetensors or npz).
    File(String),
    /// A trainer's own initialiser, run at one site; `init = "trainer"`.
    Trainer,
}

/// How updates become the next model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StrategySpec {
    /// Which strategy.
    pub kind: StrategyKind,
    /// A bound on each contribution, applied at fold time; means only.
    pub clip: Option<ClipBound>,
}

/// The strategies and their parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum StrategyKind {
    /// Weighted mean of the updates.
    Fedavg,
    /// FedAvg whose trainers add a proximal term.
    Fedprox {
        /// Weight of the proximal term.
        proximal_mu: f64,
    },
    /// FedAvg with server momentum.
    Fedavgm {
        /// Server learning rate, default 1.0.
        server_learning_rate: f64,
        /// Server momentum, default 0.9.
        server_momentum: f64,
    },
    /// FedAdagrad.
    Fedadagrad(AdaptiveSpec),
    /// FedAdam.
    Fedadam(AdaptiveSpec),
    /// FedYogi.
    Fedyogi(AdaptiveSpec),
    /// Coordinate median.
    Median,
    /// Coordinate trimmed mean.
    TrimmedMean {
        /// Share cut off at each end, in [0, 0.5).
        trim_share: f64,
    },
    /// Krum, or Multi-Krum with `keep` above 1.
    Krum {
        /// Faulty contributions withstood.
        byzantine: u32,
        /// Contributions averaged.
        keep: u32,
    },
}

impl StrategyKind {
    /// The name a plan knows it under.
    pub const fn name(&self) -> &'static str {
        match self {
            StrategyKind::Fedavg => "fedavg",
            StrategyKind::Fedprox { .. } => "fedprox",
            StrategyKind::Fedavgm { .. } => "fedavgm",
            StrategyKind::Fedadagrad(_) => "fedadagrad",
            StrategyKind::Fedadam(_) => "fedadam",
            StrategyKind::Fedyogi(_) => "fedyogi",
            StrategyKind::Median => "median",
            StrategyKind::TrimmedMean { .. } => "trimmed-mean",
            StrategyKind::Krum { .. } => "krum",
        }
    }

    /// Every name a plan may give as `[strategy] kind`.
    pub const NAMES: [&'static str; 9] = [
        "fedavg",
        "fedprox",
        "fedavgm",
        "fedadagrad",
        "fedadam",
        "fedyogi",
        "median",
        "trimmed-mean",
        "krum",
    ];
}

/// Parameters of the adaptive strategies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveSpec {
    /// Server learning rate.
    pub server_learning_rate: f64,
    /// First-moment decay, in [0, 1).
    pub beta1: f64,
    /// Second-moment decay, in [0, 1).
    pub beta2: f64,
    /// Degree of adaptivity, positive.
    pub tau: f64,
}

/// Who takes part and when a round closes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CohortSpec {
    /// The least number of participants in a round.
    pub min: u32,
    /// The share of those present that is sampled, in (0, 1].
    pub fraction: f64,
    /// The share of the cohort that closes a stage, in (0, 1].
    pub quorum: f64,
    /// When a stage closes with what it has (at least `min`).
    pub deadline: Option<Span>,
    /// How often a participant may fail at one stage of one round before it is given up.
    pub attempts: u32,
    /// The most examples a submission may claim.
    pub examples_max: f64,
}

/// Evaluation at the sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluateSpec {
    /// In every round whose number this divides, and in the last.
    pub every: u32,
    /// The metric that decides which model is best.
    pub metric: String,
    /// Whether more or less of it is better.
    pub better: Better,
    /// Configuration of the `evaluate` stage.
    pub config: ConfigMap,
}

/// Which direction of a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better, as of an accuracy.
    Higher,
    /// Less is better, as of a loss.
    Lower,
}

impl Better {
    /// Whether `new` is better than `old` by more than `min_delta`.
    pub fn improves(self, new: f64, old: f64, min_delta: f64) -> bool {
        match self {
            Better::Higher => new > old + min_delta,
            Better::Lower => new < old - min_delta,
        }
    }
}

/// Early stopping: the run ends when the evaluation metric has not improved for `patience` evaluations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StopSpec {
    /// Evaluations without improvement before the run ends, at least 1.
    pub patience: u32,
    /// What counts as an improvement, at least 0.
    pub min_delta: f64,
}
