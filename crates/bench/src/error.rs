//! What can go wrong while measuring.

use sheaf_domain::ErrorKind;

/// A measurement that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine did not let us measure.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A participant of the load met a failure.
    #[error(transparent)]
    Client(#[from] sheaf_client::Error),
    /// A key or certificate of the load.
    #[error(transparent)]
    Pki(#[from] sheaf_pki::Error),
    /// The state store of a measurement.
    #[error(transparent)]
    Store(#[from] sheaf_store::Error),
    /// The blob store of a measurement.
    #[error(transparent)]
    Blob(#[from] sheaf_blob::Error),
    /// A fold that was refused.
    #[error(transparent)]
    Fold(#[from] sheaf_aggregate::Error),
    /// A name or a quantity that cannot be used.
    #[error(transparent)]
    Domain(#[from] sheaf_domain::Error),
    /// A tensor that cannot be made.
    #[error(transparent)]
    Tensor(#[from] sheaf_tensor::Error),
    /// A server that did not behave as the load needs.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Client(error) => error.kind(),
            Error::Pki(error) => error.kind(),
            Error::Store(error) => error.kind(),
            Error::Blob(error) => error.kind(),
            Error::Domain(error) => error.kind(),
            Error::Tensor(_) => ErrorKind::InvalidArgument,
            Error::Io { .. } | Error::Fold(_) | Error::Unexpected(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { action, source }
    }

    pub(crate) fn errno(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
        move |errno| Error::Io { action, source: errno.into() }
    }

    pub(crate) fn unexpected(what: impl std::fmt::Display) -> Error {
        Error::Unexpected(what.to_string())
    }
}

impl From<sheaf_runtime::ComputeError> for Error {
    fn from(error: sheaf_runtime::ComputeError) -> Error {
        Error::unexpected(error)
    }
}
