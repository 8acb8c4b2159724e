//! What can be wrong with a message.

use sheaf_domain::ErrorKind;

/// A message that breaks a rule of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Absent {
        /// The field.
        field: &'static str,
    },
    /// A field beyond its bound.
    #[error("{field} exceeds the limit of {limit}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// The bound, in bytes or entries.
        limit: u64,
    },
    /// A word that is none of those the protocol knows.
    #[error("{field}: {value:?} is not one of {allowed}")]
    UnknownWord {
        /// The field.
        field: &'static str,
        /// The first characters of what was given.
        value: String,
        /// The words there are.
        allowed: &'static str,
    },
    /// A field whose value breaks a rule.
    #[error("{field}: {reason}")]
    Bad {
        /// The field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// The kind of every error here: the peer sent something wrong.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }

    /// Never: the same message is wrong again.
    pub fn is_transient(&self) -> bool {
        false
    }

    pub(crate) fn bad(field: &'static str, reason: impl std::fmt::Display) -> Error {
        Error::Bad { field, reason: reason.to_string() }
    }

    pub(crate) fn unknown(field: &'static str, value: &str, allowed: &'static str) -> Error {
        Error::UnknownWord { field, value: value.chars().take(64).collect(), allowed }
    }
}
