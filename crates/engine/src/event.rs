//! What can happen to a run. Events are the bodies of its journal; their JSON form is a file format.

use serde::{Deserialize, Serialize};
use sheaf_domain::plan::Plan;
use sheaf_domain::{
    Digest, LineageName, Manifest, Metrics, Program, Refusal, RunId, SiteName, StageName, SubmittedSlot,
    TaskId,
};

/// Something that happened to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run was created; always and only the first event.
    Created {
        /// The run.
        run: RunId,
        /// What it is to do.
        plan: Box<Plan>,
        /// The stages that comes to.
        program: Box<Program>,
        /// What it starts from.
        start: Start,
    },
    /// A participant is there and may be given work.
    SitePresent {
        /// The participant.
        site: SiteName,
    },
    /// Exactly these participants are there: what a run is told when it is created or extended, so that its first cohort
    /// is drawn from all of them and not from whoever was named first.
    SitesPresent {
        /// The participants, in any order.
        sites: Vec<SiteName>,
    },
    /// A participant has shown no sign of life for too long, or said goodbye.
    SiteLost {
        /// The participant.
        site: SiteName,
        /// Why it counts as lost.
        reason: String,
    },
    /// A participant may not take part any more.
    SiteRevoked {
        /// The participant.
        site: SiteName,
        /// Why.
        reason: String,
    },
    /// A submission passed the gate.
    Submitted {
        /// The assignment it answers.
        task: TaskId,
        /// Who did it.
        site: SiteName,
        /// Its outputs.
        slots: Vec<SubmittedSlot>,
        /// What it weighs; positive and finite.
        num_examples: f64,
        /// Its metrics, each finite.
        metrics: Metrics,
    },
    /// A submission did not pass the gate; the attempt is over.
    Refused {
        /// The assignment it answered.
        task: TaskId,
        /// Who did it.
        site: SiteName,
        /// What was wrong.
        refusal: Refusal,
    },
    /// A participant could not do an assignment; the attempt is over.
    Failed {
        /// The assignment.
        task: TaskId,
        /// Whose it was.
        site: SiteName,
        /// Why, in the participant's words (bounded).
        reason: String,
    },
    /// The deadline of a stage passed.
    DeadlinePassed {
        /// The round.
        round: u32,
        /// The stage.
        stage: StageName,
    },
    /// The submissions of a closed stage became new versions.
    Folded {
        /// The round.
        round: u32,
        /// The stage.
        stage: StageName,
        /// What came of it: one version of every lineage the stage makes, and of the optimiser's.
        versions: Vec<NewVersion>,
    },
    /// A fold did not succeed.
    FoldFailed {
        /// The round.
        round: u32,
        /// The stage.
        stage: StageName,
        /// Why.
        reason: String,
        /// Whether trying again is pointless; ends the run.
        permanent: bool,
    },
    /// An operator asked for the end of the run.
    StopRequested {
        /// Who and why.
        reason: String,
    },
    /// An operator asked for more rounds.
    Extended {
        /// How many more: beyond those asked for while it goes on, beyond those done when it has finished.
        rounds: u32,
    },
}

impl Event {
    /// The snake-case name of the event, as journal entries carry it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Event::Created { .. } => "created",
            Event::SitePresent { .. } => "site_present",
            Event::SitesPresent { .. } => "sites_present",
            Event::SiteLost { .. } => "site_lost",
            Event::SiteRevoked { .. } => "site_revoked",
            Event::Submitted { .. } => "submitted",
            Event::Refused { .. } => "refused",
            Event::Failed { .. } => "failed",
            Event::DeadlinePassed { .. } => "deadline_passed",
            Event::Folded { .. } => "folded",
            Event::FoldFailed { .. } => "fold_failed",
            Event::StopRequested { .. } => "stop_requested",
            Event::Extended { .. } => "extended",
        }
    }
}

/// What a run starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "start", rename_all = "snake_case")]
pub enum Start {
    /// A participant makes version 0 in an `init` stage.
    Trainer,
    /// These versions are version 0 of their lineages; `global` is among them.
    Versions {
        /// The run they come from, for a warm start.
        from: Option<RunId>,
        /// One entry a lineage.
        versions: Vec<StartVersion>,
    },
}

/// Version 0 of a lineage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartVersion {
    /// The lineage.
    pub lineage: LineageName,
    /// Its tensors.
    pub manifest: Manifest,
    /// Its model digest.
    pub digest: Digest,
}

/// A version made by a fold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewVersion {
    /// The lineage.
    pub lineage: LineageName,
    /// Its number, as of [`crate::FoldOrder::next`]; the moments of an optimiser have that of the version they belong to.
    pub version: u32,
    /// Its tensors.
    pub manifest: Manifest,
    /// Its model digest.
    pub digest: Digest,
}

/// An event that does not fit the state; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The first event was not `created`, or a later one was.
    #[error("a run is created once, by its first event")]
    Creation,
    /// The plan does not make a runnable program.
    #[error("the plan cannot be run: {0}")]
    Plan(String),
    /// The run has ended.
    #[error("the run has ended: {0}")]
    Over(String),
    /// No such assignment, or it is not this participant's.
    #[error("no such task")]
    UnknownTask,
    /// The assignment is no longer open.
    #[error("the task is closed: {0}")]
    Closed(String),
    /// The stage is not waiting for this.
    #[error("stage {stage} of round {round} is not waiting for this")]
    NotExpected {
        /// The round.
        round: u32,
        /// The stage.
        stage: StageName,
    },
    /// The event contradicts itself or what was asked for.
    #[error("the event is malformed: {0}")]
    Malformed(String),
    /// Rounds cannot be added to this run.
    #[error("the run cannot be extended: {0}")]
    NotExtendable(String),
}
