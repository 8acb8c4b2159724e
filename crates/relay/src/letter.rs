//! A letter: a message between an application and a participant, named by the object that it is.

use sheaf_domain::{Digest, Principal, Timestamp};

use crate::event::Loss;

/// Where a letter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Objects below it are still to come.
    Incoming,
    /// It waits for its recipient.
    Waiting,
    /// Its recipient was handed it and has not said that it has everything.
    HandedOut,
    /// Its recipient has everything of it.
    Confirmed,
    /// This letter answers it.
    Answered {
        /// The answer.
        by: Digest,
    },
    /// It will not be answered.
    Lost {
        /// Why.
        why: Loss,
        /// Since when.
        at: Timestamp,
    },
}

/// A letter of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Who sent it.
    pub from: Principal,
    /// Who is to have it.
    pub to: Principal,
    /// The letter it answers.
    pub answers: Option<Digest>,
    /// What the front-end keeps with it.
    pub header: String,
    /// When it was posted.
    pub posted_at: Timestamp,
    /// When it stops being handed out.
    pub expires_at: Timestamp,
    /// Where it is.
    pub standing: Standing,
    /// Its place in the order of posting.
    pub(crate) number: u64,
    /// Whether it still names its objects.
    pub(crate) holds_objects: bool,
}

impl Letter {
    /// Whether a participant was handed it and has not answered it.
    pub(crate) fn is_with_recipient(&self) -> bool {
        matches!(self.standing, Standing::HandedOut | Standing::Confirmed)
    }
}
