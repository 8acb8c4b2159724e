//! What a call on the coordinator can answer instead of a result. Messages are safe to show to the peer.

use sheaf_domain::{ErrorKind, Span, code};

/// A call that was not done.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Span>,
}

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        let retry_after = kind.is_transient().then(|| Span::from_secs(1));
        Error { kind, message: message.into(), retry_after }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Conflict, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn denied(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::PermissionDenied, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unavailable, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message)
    }

    pub(crate) fn shutting_down() -> Error {
        Error::unavailable("the server is shutting down")
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        self.kind.is_transient()
    }

    /// When to try again, where that makes sense.
    pub fn retry_after(&self) -> Option<Span> {
        self.retry_after
    }
}

impl From<sheaf_store::Error> for Error {
    /// Faults of the store are logged with their cause; the peer is not told about files of this machine.
    fn from(error: sheaf_store::Error) -> Error {
        use sheaf_store::Error::{Database, Io};
        if matches!(error, Database(_) | Io { .. }) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the state store cannot do this now");
            return Error::new(error.kind(), "the state store cannot do this now");
        }
        Error::new(error.kind(), error.to_string())
    }
}

impl From<sheaf_blob::Error> for Error {
    /// Faults of the disk may pass; they are logged with their cause, and the peer is not told about files of this machine.
    fn from(error: sheaf_blob::Error) -> Error {
        use sheaf_blob::Error::{Corrupt, DiskFull, Format, Full, Io, Locked, Poisoned};
        let logged = |kind, message: String| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the blob store cannot do this");
            Error::new(kind, message)
        };
        match &error {
            Full { .. } => Error::new(error.kind(), format!("{error} [{}]", code::STORE_FULL)),
            DiskFull { .. } => {
                let message = format!("the disk of the blob store is full [{}]", code::DISK_FULL);
                logged(ErrorKind::Exhausted, message)
            }
            Io { .. } | Poisoned { .. } | Locked { .. } => {
                logged(ErrorKind::Unavailable, "the disk of the blob store failed".to_owned())
            }
            Corrupt { .. } | Format { .. } => {
                logged(ErrorKind::Internal, "the blob store is damaged".to_owned())
            }
            _ => Error::new(error.kind(), error.to_string()),
        }
    }
}

impl From<sheaf_pki::Limited> for Error {
    fn from(limited: sheaf_pki::Limited) -> Error {
        Error { retry_after: Some(limited.retry_after), ..Error::new(limited.kind(), limited.to_string()) }
    }
}

impl From<sheaf_runtime::ComputeError> for Error {
    fn from(error: sheaf_runtime::ComputeError) -> Error {
        Error::internal(error.to_string())
    }
}

impl From<sheaf_engine::Rejected> for Error {
    fn from(rejected: sheaf_engine::Rejected) -> Error {
        use sheaf_engine::Rejected::*;
        let kind = match &rejected {
            UnknownTask => ErrorKind::NotFound,
            Plan(_) => ErrorKind::InvalidArgument,
            _ => ErrorKind::Conflict,
        };
        Error::new(kind, rejected.to_string())
    }
}

impl From<sheaf_relay::Rejected> for Error {
    fn from(rejected: sheaf_relay::Rejected) -> Error {
        Error::new(rejected.kind(), rejected.to_string())
    }
}

impl From<sheaf_domain::Error> for Error {
    fn from(error: sheaf_domain::Error) -> Error {
        Error::new(error.kind(), error.to_string())
    }
}
