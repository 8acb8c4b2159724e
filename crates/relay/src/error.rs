//! Why the state machine refuses an event. A refusal leaves the state as it was.

use sheaf_domain::{Digest, ErrorKind};

/// Why an event was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The run is over.
    #[error("the run is over")]
    Over,
    /// The application is not where the event needs it to be.
    #[error("the application is {is}, not {wanted}")]
    NotThere {
        /// Where it is.
        is: &'static str,
        /// Where it would have to be.
        wanted: &'static str,
    },
    /// There is no such letter, or not for the one who asks.
    #[error("there is no letter {0}")]
    NoLetter(Digest),
    /// A letter of this name is there and is another one.
    #[error("letter {0} is there already and differs")]
    Taken(Digest),
    /// A letter was answered before.
    #[error("letter {0} was answered already")]
    Answered(Digest),
    /// A participant answers what it was not asked.
    #[error("a participant may only answer a letter that it was handed")]
    NotAsked,
    /// A letter is for nobody whom its sender may write to.
    #[error("the letter's recipient may not be written to by its sender")]
    WrongRecipient,
    /// An object names one that was not named before it.
    #[error("object {parent} names {child}, which neither the run nor the announcement knows")]
    Dangling {
        /// The object.
        parent: Digest,
        /// The one it names.
        child: Digest,
    },
    /// An object was announced with other children than before.
    #[error("object {0} was announced with other children before")]
    OtherChildren(Digest),
    /// More than the run may hold at once.
    #[error("the run holds {max} {what} already, which is the limit")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A text is too long.
    #[error("the {what} has {len} bytes, the limit is {max}")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// It has no time left, or is from no time at all.
    #[error("letter {0} has expired before it is posted")]
    Expired(Digest),
    /// The first event, or none but the first, creates a run.
    #[error("a run is created by its first event and by no other")]
    NotFirst,
}

impl Rejected {
    /// The kind of the error, by which callers decide.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Rejected::Over | Rejected::NotThere { .. } | Rejected::Answered(_) => ErrorKind::Conflict,
            Rejected::NoLetter(_) => ErrorKind::NotFound,
            Rejected::NotAsked | Rejected::WrongRecipient => ErrorKind::PermissionDenied,
            Rejected::TooMany { .. } => ErrorKind::Exhausted,
            _ => ErrorKind::InvalidArgument,
        }
    }
}
