//! What can happen to a relayed run. Events are the bodies of its journal; their JSON form is a file format.

use serde::{Deserialize, Serialize};
use sheaf_domain::{Digest, Principal, RunId, SiteName, Timestamp};

/// Something that happened to a relayed run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run was created; always and only the first event.
    Created {
        /// The run.
        run: RunId,
        /// The operator who asked for it.
        by: SiteName,
        /// The stored bundle that holds the application.
        bundle: Digest,
        /// What the front-end keeps with the run, in its own words.
        header: String,
        /// Whether the server itself is the application: a run that a plan drives. It is at work from the beginning, and nobody
        /// claims it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        coordinated: bool,
    },
    /// Somebody took it upon himself to run the application, and has a token of which this is the SHA-256.
    Claimed {
        /// SHA-256 of the token.
        token: Digest,
    },
    /// The application was started by this server as a process.
    Launched {
        /// What tells the process apart from every other, in the launcher's words.
        process: String,
    },
    /// The application reported for work.
    Begun,
    /// A claim came to nothing; the application waits to be claimed again.
    Returned {
        /// Why.
        reason: String,
    },
    /// The application, and with it the run, is over.
    Ended {
        /// How.
        outcome: Outcome,
        /// More about it, for people.
        details: String,
    },
    /// Letters were announced. They travel once every object below them is there.
    Posted {
        /// What the sender names the objects' upload by.
        session: String,
        /// Who sends them.
        from: Principal,
        /// The letters.
        letters: Vec<LetterDraft>,
        /// Objects below them that the run did not know, children before parents.
        objects: Vec<ObjectDraft>,
    },
    /// Letters whose objects never came were given up.
    Abandoned {
        /// The letters.
        letters: Vec<Digest>,
        /// Why.
        reason: String,
    },
    /// A letter was handed to its recipient.
    HandedOut {
        /// The letter.
        letter: Digest,
    },
    /// The recipient has everything of a letter.
    Confirmed {
        /// The letter.
        letter: Digest,
    },
    /// A participant began anew: what it was handed and has not answered waits for it again.
    Reopened {
        /// The participant.
        site: SiteName,
    },
    /// A letter can no longer be answered by its recipient.
    Lost {
        /// The letter.
        letter: Digest,
        /// Why.
        why: Loss,
    },
}

impl Event {
    /// The snake-case name of the event, as journal entries carry it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Event::Created { .. } => "created",
            Event::Claimed { .. } => "claimed",
            Event::Launched { .. } => "launched",
            Event::Begun => "begun",
            Event::Returned { .. } => "returned",
            Event::Ended { .. } => "ended",
            Event::Posted { .. } => "posted",
            Event::Abandoned { .. } => "abandoned",
            Event::HandedOut { .. } => "handed_out",
            Event::Confirmed { .. } => "confirmed",
            Event::Reopened { .. } => "reopened",
            Event::Lost { .. } => "lost",
        }
    }
}

/// How an application ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it was to do.
    Completed,
    /// It did not.
    Failed,
    /// An operator stopped it.
    Stopped,
}

/// Why a letter will not be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Its time ran out.
    Expired,
    /// Its recipient is not there any more.
    RecipientGone,
    /// The application took it back; the letter goes with it.
    Withdrawn,
}

/// A letter not yet posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterDraft {
    /// The object that is the letter; its name within the run.
    pub id: Digest,
    /// Who is to have it.
    pub to: Principal,
    /// The letter it answers.
    pub answers: Option<Digest>,
    /// What the front-end keeps with it, in its own words.
    pub header: String,
    /// When it stops being handed out.
    pub expires_at: Timestamp,
}

/// An object and those it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectDraft {
    /// The SHA-256 of its bytes.
    pub id: Digest,
    /// The objects it names, each once, in its order.
    pub children: Vec<Digest>,
}
