//! The application that decides in a relayed run: waiting, claimed, at work, over.

use sheaf_domain::{Digest, Timestamp};

use crate::event::Outcome;

/// Where the application is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nobody runs it yet.
    Pending,
    /// Somebody claimed it and is starting it.
    Starting,
    /// It is at work.
    Running,
    /// It is over.
    Ended {
        /// How it ended.
        outcome: Outcome,
        /// More about it, for people.
        details: String,
    },
}

impl Phase {
    /// The lower-case name.
    pub const fn name(&self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Ended { .. } => "ended",
        }
    }

    /// Whether it is over.
    pub const fn is_over(&self) -> bool {
        matches!(self, Phase::Ended { .. })
    }
}

/// The application of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Where it is.
    pub phase: Phase,
    /// SHA-256 of the token of whoever claimed it.
    pub token: Option<Digest>,
    /// The process that this server started for it.
    pub process: Option<String>,
    /// When the run was created.
    pub pending_at: Timestamp,
    /// When it was claimed last.
    pub starting_at: Option<Timestamp>,
    /// When it reported for work.
    pub running_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl Application {
    /// One that is at work from the beginning.
    pub(crate) fn at_work(at: Timestamp) -> Application {
        let (starting_at, running_at) = (Some(at), Some(at));
        Application { phase: Phase::Running, starting_at, running_at, ..Application::new(at) }
    }

    pub(crate) fn new(at: Timestamp) -> Application {
        Application {
            phase: Phase::Pending,
            token: None,
            process: None,
            pending_at: at,
            starting_at: None,
            running_at: None,
            ended_at: None,
        }
    }
}
