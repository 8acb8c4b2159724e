//! What can be wrong with a strategy's parameters or with the slices it is given.

use sheaf_domain::ErrorKind;

/// A fold or a server step that cannot be made or cannot go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `adopt` takes one submission as it is; there is nothing to fold.
    #[error("the rule adopts one submission and folds nothing")]
    Adopts,
    /// A rule or a server step this version does not know.
    #[error("unknown {what}")]
    Unknown {
        /// `fold rule`, `server step` …
        what: &'static str,
    },
    /// A parameter out of its range.
    #[error("{name} is {value}, but must be {range}")]
    BadParameter {
        /// The parameter's name.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The values allowed.
        range: &'static str,
    },
    /// A slice that is not as long as the current values.
    #[error("{what} has {got} elements where {expected} are expected")]
    Length {
        /// `folded`, `next` or the moment's name.
        what: &'static str,
        /// Elements expected.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// More or fewer moments than the optimiser keeps.
    #[error("the optimiser keeps {expected} moments, got {got}")]
    Moments {
        /// Moments kept.
        expected: usize,
        /// Moments given.
        got: usize,
    },
    /// The fold failed.
    #[error("the fold failed")]
    Fold(#[from] sheaf_aggregate::Error),
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Unknown { .. } | Error::BadParameter { .. } => ErrorKind::InvalidArgument,
            Error::Adopts | Error::Length { .. } | Error::Moments { .. } => ErrorKind::Internal,
            Error::Fold(error) => fold_kind(error),
        }
    }

    /// Whether the same call may succeed later; never, for arithmetic.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }
}

fn fold_kind(error: &sheaf_aggregate::Error) -> ErrorKind {
    use sheaf_aggregate::Error::*;
    match error {
        BadShare { .. } | BadBound { .. } | BadWeight { .. } | WeightSum => ErrorKind::InvalidArgument,
        NonFinite { .. } | DistanceOverflow { .. } => ErrorKind::InvalidArgument,
        NoUpdates | TooFewUpdates { .. } | BadKeep { .. } => ErrorKind::Conflict,
        _ => ErrorKind::Internal,
    }
}
