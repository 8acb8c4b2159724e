//! What can go wrong in a store.
//!
//! A refusal (the store works, the request does not fit) and a fault (the store does not work) are different kinds;
//! neither has changed anything.

use std::path::PathBuf;
use std::sync::Arc;

use sheaf_domain::{ErrorKind, JournalId, Principal, Timestamp, code};

/// A request a store could not carry out; nothing of it was applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's lease was taken over, released, or never given.
    #[error("lease {epoch} on journal {journal} is not held any more")]
    Fenced {
        /// The journal.
        journal: JournalId,
        /// The epoch the caller named.
        epoch: u64,
    },
    /// Another holder's lease is live.
    #[error("journal {journal} is leased to {holder:?} until {} ms after 1970", expires_at.as_millis())]
    LeaseHeld {
        /// The journal.
        journal: JournalId,
        /// Who holds it.
        holder: String,
        /// Until when, if it is not renewed.
        expires_at: Timestamp,
    },
    /// The journal does not stand where the caller believes.
    #[error("journal {journal} stands at entry {found}, not at entry {expected}")]
    WrongSeq {
        /// The journal.
        journal: JournalId,
        /// Where the caller believes it to stand.
        expected: u64,
        /// Where it stands.
        found: u64,
    },
    /// The recipient has as much mail waiting as it may have.
    #[error("the mailbox of {recipient} is full: {limit} mails wait in it")]
    MailboxFull {
        /// Whose mailbox.
        recipient: Principal,
        /// How many mails it may hold.
        limit: u32,
    },
    /// The record contradicts one that is there.
    #[error("{0}")]
    Conflict(String),
    /// The record named is not there.
    #[error("{0} is not known")]
    NotFound(String),
    /// The request itself is wrong, or beyond a bound.
    #[error("{0}")]
    InvalidArgument(String),
    /// The disk or the store's own limit is used up.
    #[error("the state store is full: free space on its disk or raise its limit [{}]", code::DISK_FULL)]
    Full(#[source] Arc<sqlx::Error>),
    /// The database did not do what it was asked.
    #[error("the state store failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// The store was closed.
    #[error("the state store is closed")]
    Closed,
    /// The file is something else than a state store of ours.
    #[error("{} is not a sheaf state store: {found}; name another data directory [{}]", path.display(), code::FOREIGN_FORMAT)]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: String,
    },
    /// The file's format is newer than this binary.
    #[error(
        "{} was written by a newer sheaf (format {found}, this binary knows up to {supported}): \
         run `sheaf serve` of that release, or `sheaf restore` a backup of format {supported} [{}]",
        path.display(),
        code::FOREIGN_FORMAT
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest format version this binary knows.
        supported: u32,
    },
    /// Stored content that no write of ours could have left.
    #[error("stored {what} is damaged: {reason}")]
    Damaged {
        /// Which record.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{} cannot be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Fenced { .. }
            | Error::LeaseHeld { .. }
            | Error::WrongSeq { .. }
            | Error::Conflict(_)
            | Error::Foreign { .. }
            | Error::Newer { .. } => ErrorKind::Conflict,
            Error::MailboxFull { .. } | Error::Full(_) => ErrorKind::Exhausted,
            Error::NotFound(_) => ErrorKind::NotFound,
            Error::InvalidArgument(_) => ErrorKind::InvalidArgument,
            Error::Database(_) | Error::Closed | Error::Io { .. } => ErrorKind::Unavailable,
            Error::Damaged { .. } => ErrorKind::Internal,
        }
    }

    /// Whether the same request may succeed later without being changed.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// Whether the store itself failed, so that its connection is not to be trusted further.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(self, Error::Full(_) | Error::Database(_))
    }

    /// The same fault once more, for another request that it ended.
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::Full(source) => Error::Full(Arc::clone(source)),
            Error::Database(source) => Error::Database(Arc::clone(source)),
            // A transaction is ended by these two only.
            _ => Error::Closed,
        }
    }

    /// Damage found in `what`.
    pub(crate) fn damaged(what: impl Into<String>, reason: impl std::fmt::Display) -> Error {
        Error::Damaged { what: what.into(), reason: reason.to_string() }
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Error {
        let code = source
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .and_then(|code| code.parse::<u32>().ok());
        match (&source, code.map(|code| code & 0xff)) {
            (_, Some(SQLITE_FULL)) => Error::Full(Arc::new(source)),
            (sqlx::Error::PoolClosed, _) => Error::Closed,
            _ => Error::Database(Arc::new(source)),
        }
    }
}

impl From<sheaf_domain::Error> for Error {
    fn from(source: sheaf_domain::Error) -> Error {
        Error::InvalidArgument(source.to_string())
    }
}

/// The primary result code of a write that found no space.
const SQLITE_FULL: u32 = 13;
