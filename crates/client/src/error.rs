//! What can go wrong at a participant.

use std::path::PathBuf;

use sheaf_domain::{ErrorKind, Span};

/// A participant's failure. Secrets and the parts of a proxy's address that name a user appear in none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with a refusal.
    #[error("the server refused: {message}")]
    Refused {
        /// What sort of refusal it is.
        kind: ErrorKind,
        /// What the server said.
        message: String,
        /// When to try again, if it said so.
        retry_after: Option<Span>,
    },
    /// No connection, or one that broke.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// Where to.
        address: String,
        /// What happened.
        reason: String,
    },
    /// No answer in the time allowed.
    #[error("{call} was not answered within {after}")]
    Timeout {
        /// The call.
        call: &'static str,
        /// The time allowed.
        after: Span,
    },
    /// An answer that is not of the protocol.
    #[error("the server's answer to {call} is not of the protocol: {reason}")]
    BadAnswer {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A proxy that does not let us through.
    #[error("the proxy {proxy} does not connect us: {reason}")]
    Proxy {
        /// The proxy's host and port.
        proxy: String,
        /// What it said.
        reason: String,
    },
    /// A setting that cannot be used.
    #[error("{what}: {reason}")]
    Setting {
        /// The setting.
        what: String,
        /// Why not.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried: `read`, `write`, `create`…
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A key, certificate or kit that cannot be used.
    #[error(transparent)]
    Pki(#[from] sheaf_pki::Error),
    /// Tensors that are not what they claim to be.
    #[error(transparent)]
    Tensor(#[from] sheaf_tensor::Error),
    /// A model whose bytes are not those its digest names.
    #[error("slot {slot}: the bytes read are not the model {expected}")]
    WrongModel {
        /// The input slot.
        slot: String,
        /// The digest expected.
        expected: String,
    },
    /// The server no longer takes anything from this site.
    #[error("this site may not take part: {message}")]
    Revoked {
        /// What the server said.
        message: String,
    },
    /// Another process uses the site's directory.
    #[error("another participant is running in {}", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A computation of ours that was cut off, or randomness that could not be had.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Refused { kind, .. } => *kind,
            Error::Unreachable { .. } | Error::Proxy { .. } => ErrorKind::Unavailable,
            Error::Timeout { .. } => ErrorKind::Timeout,
            Error::BadAnswer { .. } | Error::Internal(_) | Error::WrongModel { .. } => ErrorKind::Internal,
            Error::Setting { .. } | Error::Tensor(_) => ErrorKind::InvalidArgument,
            Error::File { .. } => ErrorKind::Internal,
            Error::Pki(error) => error.kind(),
            Error::Revoked { .. } => ErrorKind::PermissionDenied,
            Error::InUse { .. } => ErrorKind::Conflict,
        }
    }

    /// Whether the same call may succeed later without being changed.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// When the server asks to be called again.
    pub fn retry_after(&self) -> Option<Span> {
        match self {
            Error::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn setting(what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Setting { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn bad_answer(call: &'static str, reason: impl std::fmt::Display) -> Error {
        Error::BadAnswer { call, reason: reason.to_string() }
    }

    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { action, path, source }
    }
}
