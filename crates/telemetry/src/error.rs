//! Why telemetry could not be set up. Nothing here fails once a process runs.

use sheaf_domain::ErrorKind;

/// A failure to set up logs or metrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log filter does not parse.
    #[error("{filter:?} is not a log filter ({message}): write it like info or info,sheaf_server=debug")]
    BadFilter {
        /// The first characters of what was given.
        filter: String,
        /// What is wrong with it.
        message: String,
    },
    /// The log format is not one of ours.
    #[error("{0:?} is not a log format: write json or text")]
    BadFormat(String),
    /// Another subscriber or recorder was installed in this process by someone else.
    #[error("{0} were already set up by another part of this process")]
    Taken(&'static str),
}

impl Error {
    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::BadFilter { .. } | Error::BadFormat(_) => ErrorKind::InvalidArgument,
            Error::Taken(_) => ErrorKind::Internal,
        }
    }

    /// Whether the same call may succeed later: never.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }
}
