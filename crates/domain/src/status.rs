//! What a run is doing and, above all, what it is waiting for: the facts behind `sheaf status`.

use serde::{Deserialize, Serialize};

use crate::{Digest, Metrics, RunId, SiteName, Span, StageName, Timestamp};

/// Where a run stands in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
#[non_exhaustive]
pub enum RunPhase {
    /// Rounds are going on (or waited for).
    Running,
    /// All rounds done, or early stop.
    Finished {
        /// Why it ended, for people.
        reason: String,
    },
    /// Stopped on request.
    Stopped {
        /// Who asked and why.
        reason: String,
    },
    /// It cannot go on.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// Its journal cannot be followed: it is set aside until that is repaired.
    Broken {
        /// At which entry and why, for people.
        reason: String,
    },
}

impl RunPhase {
    /// Whether the run has ended, or is set aside: nothing happens in it any more.
    pub fn is_over(&self) -> bool {
        !matches!(self, RunPhase::Running)
    }
    /// The lower-case name.
    pub fn name(&self) -> &'static str {
        match self {
            RunPhase::Running => "running",
            RunPhase::Finished { .. } => "finished",
            RunPhase::Stopped { .. } => "stopped",
            RunPhase::Failed { .. } => "failed",
            RunPhase::Broken { .. } => "broken",
        }
    }
    /// Why it ended, if it has.
    pub fn reason(&self) -> Option<&str> {
        match self {
            RunPhase::Running => None,
            RunPhase::Finished { reason }
            | RunPhase::Stopped { reason }
            | RunPhase::Failed { reason }
            | RunPhase::Broken { reason } => Some(reason),
        }
    }
}

/// Why a run is not moving on at this moment. Every wait has one.
///
/// # Examples
/// ```
/// use sheaf_domain::Wait;
///
/// let wait = Wait::Participants { present: 1, needed: 3 };
/// assert_eq!(wait.to_string(), "waiting for participants: 1 of 3 present");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "wait")]
#[non_exhaustive]
pub enum Wait {
    /// Too few participants are present.
    Participants {
        /// How many are present.
        present: u32,
        /// How many are needed.
        needed: u32,
    },
    /// Submissions are outstanding.
    Submissions {
        /// The stage.
        stage: StageName,
        /// How many are in.
        accepted: u32,
        /// How many close the stage.
        needed: u32,
        /// Who has not handed in, and in what state each is.
        missing: Vec<Missing>,
        /// When the stage closes at the latest.
        deadline: Option<Timestamp>,
    },
    /// The submissions are being folded.
    Fold {
        /// The stage.
        stage: StageName,
    },
    /// A fold failed for a passing reason and will be tried again.
    FoldRetry {
        /// The stage.
        stage: StageName,
        /// What went wrong.
        reason: String,
    },
}

/// A participant that has not handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The participant.
    pub site: SiteName,
    /// Whether it is there: `working`, `lost`, `failed` …, for people.
    pub state: String,
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wait::Participants { present, needed } => {
                write!(f, "waiting for participants: {present} of {needed} present")
            }
            Wait::Submissions { stage, accepted, needed, missing, .. } => {
                write!(f, "{stage}: {accepted} of {needed} submissions in")?;
                for (idx, missing) in missing.iter().take(5).enumerate() {
                    let lead = if idx == 0 { "; missing " } else { ", " };
                    write!(f, "{lead}{} ({})", missing.site, missing.state)?;
                }
                if missing.len() > 5 {
                    write!(f, " and {} more", missing.len() - 5)?;
                }
                Ok(())
            }
            Wait::Fold { stage } => write!(f, "{stage}: folding"),
            Wait::FoldRetry { stage, reason } => write!(f, "{stage}: the fold will be tried again: {reason}"),
        }
    }
}

/// What one closed stage of one round came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// The round, from 1; 0 for initialisation.
    pub round: u32,
    /// The stage.
    pub stage: StageName,
    /// Whose submissions it closed with, in canonical order.
    pub accepted: Vec<SiteName>,
    /// How large the cohort was.
    pub cohort: u32,
    /// Means of the metrics weighted by examples, over the metrics every submission has.
    pub metrics: Metrics,
    /// Bytes of model the accepted submissions refer to.
    pub bytes: u64,
    /// Sum of the submissions' examples.
    pub num_examples: f64,
    /// The digest of the global model it made, if it made one.
    pub model: Option<Digest>,
    /// The version of that model.
    pub version: Option<u32>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it closed.
    pub closed_at: Timestamp,
}

impl RoundRecord {
    /// How long the stage was open.
    pub fn duration(&self) -> Span {
        self.closed_at.since(self.started_at)
    }
}

/// What a run knows of one participant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// The participant.
    pub site: SiteName,
    /// `present` or `lost`, for people.
    pub presence: String,
    /// Submissions accepted in this run.
    pub accepted: u32,
    /// Submissions refused in this run.
    pub refused: u32,
    /// The last thing that went wrong, if anything did.
    pub last_error: Option<String>,
}

/// The state of a run, for people and tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    /// The run.
    pub run: RunId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[serde(flatten)]
    pub phase: RunPhase,
    /// The round going on or done last.
    pub round: u32,
    /// Rounds in all.
    pub rounds: u32,
    /// What it waits for; empty when it is over.
    pub waits: Vec<Wait>,
    /// Every closed stage, oldest first.
    pub history: Vec<RoundRecord>,
    /// The participants it has met, in canonical order.
    pub sites: Vec<SiteStatus>,
    /// What its operators should know of how it is served, such as that nobody checks who calls.
    #[serde(default)]
    pub notices: Vec<String>,
    /// The digest of the newest global model.
    pub model: Option<Digest>,
    /// The round that made the global model evaluated best, and its metric; round 0 for the one the run began with.
    pub best: Option<(u32, f64)>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}
