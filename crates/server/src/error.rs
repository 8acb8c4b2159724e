//! Why a server does not start or ends: one sentence with the remedy.

use std::net::SocketAddr;
use std::path::PathBuf;

use sheaf_domain::{ErrorKind, code};

/// A server that did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that is refused.
    #[error("{place}: {message}")]
    Config {
        /// Where it stands: a file with its line, an environment variable, or a flag.
        place: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// Another server has the data directory.
    #[error("{} is in use by another sheaf server; stop it, or give this one a directory of its own (--data-dir; of a superlink --database, of an OpenFL plan persistent_db_path) [{}]", path.display(), code::DATA_DIR_LOCKED)]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory has another format.
    #[error("{} has the data format {found:?}, this sheaf knows {supported:?}; use the sheaf that wrote it, or another directory [{}]", path.display(), code::FOREIGN_FORMAT)]
    Format {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: String,
        /// The format known.
        supported: String,
    },
    /// The data directory was in use and has lost a part.
    #[error("{} was in use, but {} is gone; bring it back, or `sheaf restore` a backup into another directory [{}]", path.display(), missing.display(), code::DATA_DIR_INCOMPLETE)]
    Missing {
        /// The directory.
        path: PathBuf,
        /// The file that is gone.
        missing: PathBuf,
    },
    /// The port is taken.
    #[error(
        "{addr} is in use; stop what listens there or choose another address (--listen; of a superlink --port, of an OpenFL plan agg_port) [{}]",
        code::PORT_IN_USE
    )]
    PortInUse {
        /// The address.
        addr: SocketAddr,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file or directory that cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Keys or certificates.
    #[error("keys and certificates")]
    Pki(#[from] sheaf_pki::Error),
    /// The state store.
    #[error("the state store")]
    Store(#[from] sheaf_store::Error),
    /// The blob store.
    #[error("the blob store")]
    Blob(#[from] sheaf_blob::Error),
    /// The coordinator.
    #[error("the coordinator")]
    Coordinator(#[from] sheaf_coordinator::Error),
    /// What keeps applications of others apart.
    #[error("starting applications of others")]
    Sandbox(#[from] sheaf_sandbox::Error),
    /// Logs or metrics.
    #[error("logs and metrics")]
    Telemetry(#[from] sheaf_telemetry::Error),
    /// A signal handler or another part of the process.
    #[error("the process")]
    Process(#[source] std::io::Error),
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Config { .. } => ErrorKind::InvalidArgument,
            Error::Locked { .. } | Error::Format { .. } | Error::Missing { .. } | Error::PortInUse { .. } => {
                ErrorKind::Conflict
            }
            Error::Listen { .. } | Error::File { .. } | Error::Process(_) => ErrorKind::Unavailable,
            Error::Pki(error) => error.kind(),
            Error::Store(error) => error.kind(),
            Error::Blob(error) => error.kind(),
            Error::Coordinator(error) => error.kind(),
            Error::Sandbox(error) => error.kind(),
            Error::Telemetry(error) => error.kind(),
        }
    }
}
