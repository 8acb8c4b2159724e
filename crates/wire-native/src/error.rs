//! What a request can be answered instead of a result, before it is put into the words of a transport.

use sheaf_domain::{ErrorKind, Span, Timestamp, code};
use sheaf_pki::SignatureError;

/// A request that was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The coordinator said no.
    #[error(transparent)]
    Coordinator(#[from] sheaf_coordinator::Error),
    /// The message breaks a rule of the protocol.
    #[error(transparent)]
    Message(#[from] sheaf_messages::Error),
    /// The caller did not prove who it is.
    #[error("{0}")]
    Unauthenticated(String),
    /// A signed request whose signature is refused.
    #[error("{error}")]
    Signature {
        /// Why.
        error: SignatureError,
        /// The server's time where it matters: a client whose clock is off may sign again by it.
        server_time: Option<Timestamp>,
    },
    /// The caller's site was revoked while the request was held.
    #[error("the site was revoked [{}]", code::SITE_REVOKED)]
    Revoked,
    /// A body that is not the JSON of the message expected.
    #[error("the body is not the message expected: {0}")]
    Json(String),
    /// A body beyond its bound.
    #[error("the body exceeds the limit of {limit} bytes")]
    BodyTooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// A body that ended or broke before its declared length.
    #[error("the body broke off after {received} bytes")]
    Truncated {
        /// Bytes that had come.
        received: u64,
    },
    /// An upload whose length is not declared.
    #[error("an upload must declare its length")]
    LengthRequired,
    /// A range that is not of the stream.
    #[error("the range is not within the {total} bytes there are")]
    RangeNotSatisfiable {
        /// The length of the stream, in bytes.
        total: u64,
    },
    /// A stream of messages in the wrong order.
    #[error("{0}")]
    Protocol(&'static str),
    /// Nothing is served at this path.
    #[error("nothing is served at this path")]
    NoSuchPath,
    /// The path does not take this method.
    #[error("this path does not take this method")]
    WrongMethod,
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Coordinator(error) => error.kind(),
            Error::Message(error) => error.kind(),
            Error::Unauthenticated(_) => ErrorKind::Unauthenticated,
            Error::Signature { error, .. } => error.kind(),
            Error::Revoked => ErrorKind::PermissionDenied,
            Error::NoSuchPath => ErrorKind::NotFound,
            Error::Truncated { .. } => ErrorKind::Unavailable,
            Error::Json(_)
            | Error::BodyTooLarge { .. }
            | Error::LengthRequired
            | Error::RangeNotSatisfiable { .. }
            | Error::Protocol(_)
            | Error::WrongMethod => ErrorKind::InvalidArgument,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// When to try again, where that makes sense.
    pub fn retry_after(&self) -> Option<Span> {
        match self {
            Error::Coordinator(error) => error.retry_after(),
            Error::Signature { error: SignatureError::BeforeStart { retry_after }, .. } => Some(*retry_after),
            Error::Signature { error: SignatureError::Full { window }, .. } => Some(*window),
            _ => None,
        }
    }
}
