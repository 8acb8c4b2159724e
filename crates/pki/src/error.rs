//! The errors of this crate. None carries a secret; each says what is wrong and, where there is one, the remedy.

use std::path::PathBuf;

use sheaf_domain::{Digest, ErrorKind, Timestamp};

/// Why a credential, a file or a request for one is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// A file that would be overwritten.
    #[error("{} exists already and is not overwritten: move it away first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A secret that others on the machine may read.
    #[error("{} holds a secret and may be read by others (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// More bytes than such a thing may have.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// The bound, in bytes.
        max: usize,
    },
    /// Bytes that are not what they should be.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A key of a type or size that is not accepted.
    #[error(
        "the key is not accepted: {found}; use ECDSA P-256 or P-384, Ed25519, or RSA of at least 2048 bits"
    )]
    UnsupportedKey {
        /// What the key is.
        found: String,
    },
    /// A signature that the key did not make.
    #[error("the signature of {what} does not verify")]
    BadSignature {
        /// What was signed.
        what: &'static str,
    },
    /// A certificate that names nobody.
    #[error("the certificate carries no identity of this system")]
    NoIdentity,
    /// A certificate of another federation.
    #[error("the certificate belongs to trust domain {found:?}, not {expected:?}")]
    ForeignTrustDomain {
        /// This federation's trust domain.
        expected: String,
        /// The certificate's.
        found: String,
    },
    /// A CA certificate that is not the pinned one.
    #[error(
        "the CA certificate is not the pinned one: its key has the fingerprint {found}, the pin is {pinned}"
    )]
    PinMismatch {
        /// The fingerprint that was expected.
        pinned: Digest,
        /// The fingerprint of the certificate's key.
        found: Digest,
    },
    /// A certificate and a key that do not belong together.
    #[error("the certificate was not issued for this key")]
    KeyMismatch,
    /// A CA that can issue nothing any more.
    #[error("the CA certificate ended at {} ms since the epoch: make a new CA", not_after.as_millis())]
    AuthorityExpired {
        /// When it ended.
        not_after: Timestamp,
    },
    /// An argument that breaks a rule.
    #[error("{0}")]
    InvalidArgument(String),
    /// A kit that is refused, with the line it stands on where one is known.
    #[error("the kit is refused: {}{message}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    Kit {
        /// Line in the file, from 1.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
    /// No randomness.
    #[error("no random bytes for {0}")]
    Entropy(&'static str, #[source] sheaf_runtime::EntropyError),
    /// The cryptographic library failed on valid input.
    #[error("cannot {action}: {reason}")]
    Crypto {
        /// What was tried.
        action: &'static str,
        /// What the library says.
        reason: String,
    },
}

impl Error {
    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Error::File { .. }
            | Error::Entropy(..)
            | Error::Crypto { .. }
            | Error::AuthorityExpired { .. } => ErrorKind::Internal,
            Error::Exists { .. } => ErrorKind::Conflict,
            Error::BadSignature { .. }
            | Error::NoIdentity
            | Error::ForeignTrustDomain { .. }
            | Error::PinMismatch { .. } => ErrorKind::Unauthenticated,
            Error::ReadableByOthers { .. }
            | Error::TooLarge { .. }
            | Error::Malformed { .. }
            | Error::UnsupportedKey { .. }
            | Error::KeyMismatch
            | Error::InvalidArgument(_)
            | Error::Kit { .. } => ErrorKind::InvalidArgument,
        }
    }

    pub(crate) fn malformed(what: &'static str, reason: impl Into<String>) -> Error {
        Error::Malformed { what, reason: reason.into() }
    }

    pub(crate) fn crypto(action: &'static str, reason: impl std::fmt::Display) -> Error {
        Error::Crypto { action, reason: reason.to_string() }
    }
}
