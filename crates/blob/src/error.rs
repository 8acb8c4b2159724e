//! What can go wrong in a blob store.
//!
//! No error here has lost or changed an acknowledged object. Errors are cloneable because one failed flush is told to
//! every writer that waited for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheaf_domain::{Digest, ErrorKind};

/// A request a blob store could not carry out.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No object of this digest is stored.
    #[error("object {} is not stored", object.short())]
    NotFound {
        /// The object asked for.
        object: Digest,
    },
    /// A read beyond the end of an object.
    #[error("bytes {offset} to {offset}+{len} are outside object {} of {object_len} bytes", object.short())]
    OutOfRange {
        /// The object.
        object: Digest,
        /// Where the read begins.
        offset: u64,
        /// How many bytes it wants.
        len: u64,
        /// How many bytes the object has.
        object_len: u64,
    },
    /// More or fewer bytes arrived than were declared.
    #[error("{received} bytes arrived where {declared} were declared")]
    Length {
        /// How many were declared.
        declared: u64,
        /// How many arrived, as far as they were counted.
        received: u64,
    },
    /// The bytes are not those that were promised.
    #[error("the bytes hash to {} where {} was expected", found.short(), expected.short())]
    DigestMismatch {
        /// The digest promised.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The store's own limit is reached.
    #[error("the blob store has no room for {requested} bytes: {used} of {max} bytes are in use")]
    Full {
        /// How many bytes were asked for.
        requested: u64,
        /// How many bytes are in use, reservations included.
        used: u64,
        /// How many bytes the store may use.
        max: u64,
    },
    /// The disk under the store is full.
    #[error("no space is left on the disk of {path:?}")]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The disk failed.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A flush of this file failed before; bytes written to it and not yet acknowledged may be lost.
    #[error("an earlier flush of {path:?} failed, so bytes in it that were not acknowledged are given up")]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
    /// A file of the store does not say what it must.
    #[error("{path:?} is damaged at byte {offset}: {what}; restore it from a backup")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A file of another format version.
    #[error("{path:?} has blob format version {found}, this program reads version {supported}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u32,
        /// The version that is read here.
        supported: u32,
    },
    /// Another process has the directory open.
    #[error("{path:?} is in use by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A hold that is not well formed.
    #[error("{value:?} is not a valid hold: {rule}")]
    BadHold {
        /// The first characters of what was given.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// An earlier write of this object failed or was cut off, so the object cannot be completed.
    #[error("an earlier write of this object did not complete")]
    Incomplete,
    /// The store is closed, or its work was cut off by shutdown.
    #[error("the blob store is closed")]
    Closed,
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::OutOfRange { .. }
            | Error::Length { .. }
            | Error::DigestMismatch { .. }
            | Error::BadHold { .. }
            | Error::Incomplete => ErrorKind::InvalidArgument,
            Error::Full { .. } | Error::DiskFull { .. } => ErrorKind::Exhausted,
            Error::Poisoned { .. } | Error::Locked { .. } | Error::Closed => ErrorKind::Unavailable,
            Error::Io { .. } | Error::Corrupt { .. } | Error::Format { .. } => ErrorKind::Internal,
        }
    }

    /// Whether the same request may succeed later without being changed.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// An I/O error, or [`Error::DiskFull`] when that is what it is.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        let (path, kind) = (path.to_owned(), source.kind());
        let source = Arc::new(source);
        match kind {
            // A limit on the size of files leaves as little room as a full disk does.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::DiskFull { path, source }
            }
            _ => Error::Io { action, path, source },
        }
    }

    /// Whether the disk under the store is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self, Error::DiskFull { .. })
    }
}

impl From<sheaf_runtime::ComputeError> for Error {
    fn from(_: sheaf_runtime::ComputeError) -> Error {
        Error::Closed
    }
}
