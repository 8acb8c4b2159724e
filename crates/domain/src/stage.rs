//! Stages: the named steps of a round, and the rules by which each selects, closes and folds.

use serde::{Deserialize, Serialize};

use crate::{ConfigMap, LineageName, SlotName, SlotRole, Span, StageName};

/// What a run is made of: the stage that makes its first model, and the stages of every round.
///
/// It stands in the run's journal, so that a run goes on as it began whatever a later release makes of its plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The one stage of round 0; absent where the first model is given.
    pub init: Option<StageSpec>,
    /// The stages of every later round, in order.
    pub stages: Vec<StageSpec>,
}

/// One step of a round, as the plan lays it down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageSpec {
    /// Its name, unique in the round.
    pub name: StageName,
    /// When it begins within its round.
    pub start: StageStart,
    /// It takes place in every round whose number this divides, and in the last; at least 1.
    pub every: u32,
    /// Which participants work on it.
    pub selector: Selector,
    /// What each is given: slot, role and the lineage whose newest version fills it.
    pub inputs: Vec<StageInput>,
    /// What each must hand in.
    pub outputs: Vec<StageOutput>,
    /// When it closes.
    pub close: CloseRule,
    /// What is made of the outputs; empty for a stage that yields metrics only.
    pub folds: Vec<StageFold>,
    /// Typed configuration handed to the trainer.
    pub config: ConfigMap,
}

/// When a stage begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageStart {
    /// Together with the stage before it.
    WithPrevious,
    /// When the stage before it has closed and its folds are done.
    AfterPrevious,
}

/// Which participants work on a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Selector {
    /// A seeded sample of those present: `ceil(fraction × present)`, at least `min`; waits until `min` are present.
    Sample {
        /// The share of those present, in (0, 1].
        fraction: f64,
        /// The least number of participants.
        min: u32,
    },
    /// Those an earlier stage of this round closed with; its cohort while it is open.
    SameAs(StageName),
    /// The first participant present, in canonical order.
    One,
}

/// What fills an input slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageInput {
    /// The slot.
    pub slot: SlotName,
    /// What its content is.
    pub role: SlotRole,
    /// The lineage whose newest version fills it.
    pub lineage: LineageName,
}

/// What an output slot must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageOutput {
    /// The slot.
    pub slot: SlotName,
    /// What its content is.
    pub role: SlotRole,
    /// The lineage whose tensors (names, order, dtypes, shapes) it must have; any tensors where absent.
    pub like: Option<LineageName>,
}

/// When a stage closes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloseRule {
    /// With `ceil(share × cohort)` submissions, or at the deadline with at least `min`, whichever comes first.
    Quorum {
        /// The share of the cohort, in (0, 1].
        share: f64,
        /// The least number of submissions a deadline may close with; past the deadline it closes with the `min`-th.
        min: u32,
        /// Time from the stage's start.
        deadline: Option<Span>,
    },
}

/// What is made of one output slot when its stage closes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageFold {
    /// The output slot that is folded.
    pub slot: SlotName,
    /// How the submissions become one.
    pub rule: FoldRule,
    /// What a contribution weighs.
    pub weight: Weight,
    /// How the folded value becomes the next version.
    pub step: ServerStep,
    /// The lineage that gets a new version.
    pub target: LineageName,
}

/// What a contribution weighs in a mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The submission's number of examples.
    NumExamples,
    /// One.
    Uniform,
}

/// How the submissions of a stage become one set of tensors. Parameters are checked by the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
#[non_exhaustive]
pub enum FoldRule {
    /// Sum of weight × value over sum of weights.
    WeightedMean,
    /// A weighted mean in which each contribution's distance from the global model is bounded first.
    NormClippedMean {
        /// The bound.
        bound: ClipBound,
    },
    /// The median of each coordinate; weights do not count.
    Median,
    /// The mean of each coordinate without the `share` smallest and largest; weights do not count.
    TrimmedMean {
        /// The share cut off at each end, in [0, 0.5).
        share: f64,
    },
    /// The mean of the `keep` contributions with the smallest Krum score; weights do not count.
    Krum {
        /// How many faulty contributions are to be withstood.
        byzantine: u32,
        /// How many contributions are averaged; 1 is Krum itself, more is Multi-Krum.
        keep: u32,
    },
    /// The one submission, as it is; for stages of a single participant.
    Adopt,
}

/// How far a contribution may be from the global model (L2 norm over all tensors).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipBound {
    /// This many times the cohort's median distance.
    NormRatio(f64),
    /// This distance.
    NormMax(f64),
}

/// How a folded value becomes the next version of a lineage: the server optimiser. `delta` is folded − current.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
#[non_exhaustive]
pub enum ServerStep {
    /// The folded value is the next version.
    Replace,
    /// FedAvgM: `m = momentum·m + delta; x += learning_rate·m`.
    Momentum {
        /// Server learning rate.
        learning_rate: f64,
        /// Momentum, in [0, 1).
        momentum: f64,
    },
    /// FedAdagrad, FedYogi and FedAdam.
    Adaptive {
        /// Which second-moment rule.
        kind: AdaptiveKind,
        /// Server learning rate.
        learning_rate: f64,
        /// First-moment decay.
        beta1: f64,
        /// Second-moment decay.
        beta2: f64,
        /// Degree of adaptivity.
        tau: f64,
    },
}

/// The second-moment rule of an adaptive server step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdaptiveKind {
    /// `v += delta²`.
    Adagrad,
    /// `v = beta2·v + (1 − beta2)·delta²`.
    Adam,
    /// `v −= (1 − beta2)·delta²·sign(v − delta²)`.
    Yogi,
}
