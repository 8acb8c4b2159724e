//! Stages: the named steps of a round, and the rules by which each selects, closes and folds.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::plan::Better;
use crate::{ConfigMap, LineageName, SiteName, SlotName, SlotRole, Span, StageName};

/// What a run is made of: the stage that makes its first model, and the stages of every round.
///
/// It stands in the run's journal, so that a run goes on as it began whatever a later release makes of its plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The one stage of round 0; absent where the first model is given.
    pub init: Option<StageSpec>,
    /// The stages of every later round, in order.
    pub stages: Vec<StageSpec>,
    /// The stages whose metrics tell which model is best, in place of what the plan says of evaluation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judges: Vec<Judge>,
}

/// A stage whose metrics tell how good the model is that it hands out: the best of them counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judge {
    /// The stage.
    pub stage: StageName,
    /// Whether more or less of each is better.
    pub better: Better,
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
    /// What the means of its metrics are computed in.
    #[serde(default, skip_serializing_if = "Arithmetic::is_double")]
    pub arithmetic: Arithmetic,
}

/// What a mean of metrics is computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// f64, and one division.
    #[default]
    Double,
    /// float32, each weight divided by their sum first: what [`FoldRule::CompatibleMean`] does.
    Single,
}

impl Arithmetic {
    fn is_double(&self) -> bool {
        *self == Arithmetic::Double
    }
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
    /// These participants, whether they are there or not; waits until anybody is.
    Named {
        /// Who.
        sites: BTreeSet<SiteName>,
    },
    /// Of these participants those in some places of an order that is drawn anew for every round, whether they are there or not;
    /// waits until anybody is. Stages that name the same participants draw the same order.
    Drawn {
        /// Out of whom.
        sites: BTreeSet<SiteName>,
        /// The places, each from the first to before the second.
        places: Vec<(u32, u32)>,
    },
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
    /// Together with the stages that are open beside it and close like this: once `ceil(share × participants)` of those with work in any
    /// of them, and at least `min`, have handed in all of theirs, or at the deadline with at least `min`. What others handed in
    /// does not count.
    Together {
        /// The share of the participants, in (0, 1].
        share: f64,
        /// The least number of participants that must be done, however many there are.
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
    /// The same as others compute it that have nothing but float32: each weight is first divided by their sum, and every product, sum and
    /// quotient is rounded to float32, in canonical order.
    CompatibleMean,
    /// As [`FoldRule::CompatibleMean`], but for tensors with certain names: those are added up in float32, and weights do not count.
    CompatibleMeanAndSum {
        /// How the names end of the tensors that are added up.
        summed: Vec<String>,
    },
    /// Of every tensor by itself the point whose weighted L2 distances from the contributions are the least, after four steps from the
    /// weighted mean.
    GeometricMedian,
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
    /// The next version is what participants make of it who are told it through a codec. float32 only.
    Told {
        /// Whether they are told what the folded value differs by from the current version, and add it to that. It is kept beside
        /// the version, as its difference.
        as_difference: bool,
        /// The codec, as the one who has it knows it; none where nothing is lost.
        codec: Option<String>,
        /// What they are told in place of the folded value: the current version, a step of this optimiser further. Tensors that have no
        /// version yet, or may be left out, are not stepped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        optimiser: Option<GradientOptimiser>,
    },
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

/// An optimiser that takes current − folded for a gradient. Moments of an element begin with `start`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum GradientOptimiser {
    /// `v += gradient²; x −= learning_rate·gradient / (sqrt(v) + epsilon)`.
    Adagrad {
        /// Server learning rate.
        learning_rate: f64,
        /// What `v` is before the first step, at least 0.
        start: f64,
        /// What keeps the quotient finite.
        epsilon: f64,
    },
    /// `m = beta1·m + (1 − beta1)·gradient; v = beta2·v + (1 − beta2)·gradient²;
    /// x −= learning_rate·m / (1 − beta1^t) / (sqrt(v / (1 − beta2^t)) + epsilon)` in step `t`, from 1.
    Adam {
        /// Server learning rate.
        learning_rate: f64,
        /// First-moment decay.
        beta1: f64,
        /// Second-moment decay.
        beta2: f64,
        /// What `m` and `v` are before the first step, at least 0.
        start: f64,
        /// What keeps the quotient finite.
        epsilon: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_older_journals_have_no_optimiser_and_such_steps_are_written_as_before() {
        let written = r#"{"step":"told","as_difference":true,"codec":null}"#;
        let step = ServerStep::Told { as_difference: true, codec: None, optimiser: None };
        assert_eq!(serde_json::from_str::<ServerStep>(written).unwrap(), step);
        assert_eq!(serde_json::to_string(&step).unwrap(), written);
        assert_eq!(
            serde_json::to_string(&FoldRule::CompatibleMean).unwrap(),
            r#"{"rule":"compatible_mean"}"#
        );
    }

    #[test]
    fn an_optimiser_reads_back_as_it_was_written() {
        let adagrad = GradientOptimiser::Adagrad { learning_rate: 0.01, start: 0.1, epsilon: 1e-10 };
        let (learning_rate, beta1, beta2, start, epsilon) = (0.3, 0.9, 0.999, 0.0, 1e-8);
        let adam = GradientOptimiser::Adam { learning_rate, beta1, beta2, start, epsilon };
        for optimiser in [adagrad, adam] {
            let step = ServerStep::Told { as_difference: false, codec: None, optimiser: Some(optimiser) };
            let written = serde_json::to_string(&step).unwrap();
            assert_eq!(serde_json::from_str::<ServerStep>(&written).unwrap(), step, "{written}");
        }
        let rule = FoldRule::CompatibleMeanAndSum { summed: vec!["_u".to_owned()] };
        let written = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<FoldRule>(&written).unwrap(), rule, "{written}");
    }
}
