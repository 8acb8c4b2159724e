//! Assignments and submissions: the unit of work, its slots, and what becomes of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ConfigMap, Digest, Manifest, RunId, SiteName, SlotName, StageName, TaskId, Timestamp, VersionRef,
};

/// Named real numbers reported with a submission, such as `loss`; always finite.
pub type Metrics = BTreeMap<String, f64>;

/// What the content of a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlotRole {
    /// Model weights.
    Weights,
    /// A difference from the version handed out in the assignment's input of the same lineage.
    Delta,
    /// The state of an optimiser: whoever has none leaves the slot out, and those who have some need not have the same tensors.
    OptimiserState,
}

/// An input of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSlot {
    /// The slot.
    pub slot: SlotName,
    /// What its content is.
    pub role: SlotRole,
    /// The version that fills it.
    pub version: VersionRef,
    /// The model digest of that version.
    pub digest: Digest,
}

/// An output an assignment asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSlot {
    /// The slot.
    pub slot: SlotName,
    /// What its content is.
    pub role: SlotRole,
    /// The version whose tensors (names, order, dtypes, shapes) it must have; any tensors where absent.
    pub like: Option<VersionRef>,
}

/// One piece of work for one participant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The key under which the result counts once.
    pub task: TaskId,
    /// The run.
    pub run: RunId,
    /// The run's name, for people.
    pub run_name: String,
    /// The round, from 1; 0 for initialisation.
    pub round: u32,
    /// The stage.
    pub stage: StageName,
    /// Who is to do it.
    pub site: SiteName,
    /// Which attempt of this participant at this stage and round, from 1.
    pub attempt: u32,
    /// What is handed out.
    pub inputs: Vec<InputSlot>,
    /// What is to come back.
    pub outputs: Vec<OutputSlot>,
    /// Typed configuration for the trainer.
    pub config: ConfigMap,
    /// The run's seed; trainers derive theirs from it, the round and the site's name.
    pub seed: u64,
    /// When the stage closes at the latest, on our clock.
    pub deadline: Option<Timestamp>,
}

/// The result of an assignment: all its outputs, or nothing.
///
/// # Examples
/// ```
/// use sheaf_domain::{Metrics, RunId, SiteName, StageName, Submission, TaskId};
///
/// let (run, site) = (RunId::new(1).ok_or("zero")?, SiteName::new("berlin")?);
/// let submission = Submission {
///     task: TaskId::derive(run, 1, &StageName::new("evaluate")?, &site, 1),
///     slots: Vec::new(),
///     num_examples: 120.0,
///     metrics: Metrics::from([("accuracy".to_owned(), 0.93)]),
/// };
/// assert!(submission.metrics.values().all(|value| value.is_finite()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The assignment it answers.
    pub task: TaskId,
    /// One entry an output slot.
    pub slots: Vec<SubmittedSlot>,
    /// The number of examples it rests on; what it weighs.
    pub num_examples: f64,
    /// Named numbers.
    pub metrics: Metrics,
}

/// The content of one output slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedSlot {
    /// The slot.
    pub slot: SlotName,
    /// Its tensors and where their bytes are.
    pub manifest: Manifest,
}

/// What became of a submission. Only [`SubmitOutcome::Accepted`] and [`SubmitOutcome::Duplicate`] count (once).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum SubmitOutcome {
    /// It is durable and counts.
    Accepted,
    /// It had already been accepted; nothing changed.
    Duplicate,
    /// The stage closed, the task was withdrawn or the run ended before it came; nothing changed.
    TooLate {
        /// Why, for people.
        reason: String,
    },
    /// It does not pass the gate; its bytes were freed.
    Refused {
        /// What is wrong with it.
        refusal: Refusal,
    },
}

/// Why a submission does not pass the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "refusal")]
#[non_exhaustive]
pub enum Refusal {
    /// Missing, extra or repeated output slots.
    #[error("wrong outputs: {message}")]
    Slots {
        /// What is wrong.
        message: String,
    },
    /// Names, order, dtypes or shapes differ from the model's.
    #[error("slot {slot}: {message}")]
    Schema {
        /// The slot.
        slot: SlotName,
        /// What differs.
        message: String,
    },
    /// A NaN or an infinity.
    #[error("slot {slot}: tensor {tensor:?} is not finite at index {index}")]
    NotFinite {
        /// The slot.
        slot: SlotName,
        /// The tensor.
        tensor: String,
        /// The flat, row-major index of the first such element.
        index: u64,
    },
    /// A weight that is not a positive, finite, believable number.
    #[error("num_examples of {value} is not above {min} and at most {max}")]
    Weight {
        /// What was given, as text.
        value: String,
        /// What it must be above.
        min: String,
        /// The most accepted.
        max: String,
    },
    /// A metric that is not finite, or too many or too long names.
    #[error("metric {name:?}: {message}")]
    Metric {
        /// The metric.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The manifest contradicts itself or names bytes that were not uploaded under this task.
    #[error("slot {slot}: {message}")]
    Bytes {
        /// The slot.
        slot: SlotName,
        /// What is wrong.
        message: String,
    },
    /// The message itself breaks a rule of its protocol: a field missing, over its bound, or of an unknown word.
    #[error("malformed submission: {message}")]
    Malformed {
        /// What is wrong.
        message: String,
    },
}

/// How an attempt at an assignment ended, as the status page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Not yet ended.
    Open,
    /// Accepted.
    Accepted,
    /// Ended without a result.
    Failed {
        /// Why.
        reason: String,
    },
    /// Taken back.
    Withdrawn {
        /// Why.
        reason: String,
    },
}
