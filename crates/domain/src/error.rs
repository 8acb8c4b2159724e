//! The error vocabulary every library of the project shares.

use crate::code;

/// What sort of failure an error is. Callers branch on this, never on text.
///
/// # Examples
/// ```
/// use sheaf_domain::ErrorKind;
///
/// assert!(ErrorKind::Unavailable.is_transient());
/// assert_eq!(ErrorKind::from_name("not_found"), Some(ErrorKind::NotFound));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The thing named does not exist (or the caller may not know that it does).
    NotFound,
    /// The request contradicts the present state.
    Conflict,
    /// The request itself is wrong.
    InvalidArgument,
    /// The caller did not prove who it is.
    Unauthenticated,
    /// The caller is known and may not do this.
    PermissionDenied,
    /// A budget, quota or rate is used up.
    Exhausted,
    /// Temporarily impossible; the same request may succeed later.
    Unavailable,
    /// The time allowed ran out.
    Timeout,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// Whether the same request may succeed later without being changed.
    pub const fn is_transient(self) -> bool {
        matches!(self, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Exhausted)
    }

    /// The snake-case name, as wires and logs carry it.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::InvalidArgument => "invalid_argument",
            ErrorKind::Unauthenticated => "unauthenticated",
            ErrorKind::PermissionDenied => "permission_denied",
            ErrorKind::Exhausted => "exhausted",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Internal => "internal",
        }
    }

    /// Finds the kind of a [`ErrorKind::name`].
    pub fn from_name(name: &str) -> Option<ErrorKind> {
        use ErrorKind::*;
        [
            NotFound,
            Conflict,
            InvalidArgument,
            Unauthenticated,
            PermissionDenied,
            Exhausted,
            Unavailable,
            Timeout,
            Internal,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

/// A value that breaks a rule of the domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An identifier that is not well formed.
    #[error("{value:?} is not a valid {what}: {rule}")]
    BadId {
        /// Which identifier.
        what: &'static str,
        /// The first characters of what was given.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A quantity that does not parse.
    #[error("{value:?} is not a {what}: write it like {example}")]
    BadQuantity {
        /// `duration` or `size`.
        what: &'static str,
        /// The first characters of what was given.
        value: String,
        /// A well-formed example.
        example: &'static str,
    },
    /// A manifest that contradicts itself.
    #[error("bad manifest: {0}")]
    BadManifest(String),
    /// A plan that is refused, with the line of the file it stands on where one is known.
    #[error("{}{message} [{}]", line.map(|line| format!("line {line}: ")).unwrap_or_default(), code::PLAN_REFUSED)]
    BadPlan {
        /// Line in the plan file, from 1.
        line: Option<usize>,
        /// What is wrong and what would be right.
        message: String,
    },
    /// Mail or configuration beyond its bounds.
    #[error("{0}")]
    OutOfBounds(String),
}

impl Error {
    /// The kind of every error here: the caller gave something wrong.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}
