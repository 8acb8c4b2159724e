//! The errors of this crate. None carries a secret.

use std::io;
use std::path::PathBuf;

use sheaf_domain::{ErrorKind, code};

/// Why a program is not started, or cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing would keep the program from our keys.
    #[error(
        "nothing walls the program in: this kernel offers no Landlock and no account is configured [{}]",
        code::NO_WALLS
    )]
    NoWalls,
    /// An account that does not exist, or is root.
    #[error("{name:?} is no account a program can run as: {reason} [{}]", code::NO_WALLS)]
    BadAccount {
        /// What was configured.
        name: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// The walls would stand open, or stood open when they were tried.
    #[error("the program could reach {}, which is hidden from it: {reason} [{}]", path.display(), code::WALLS_OPEN)]
    WallsOpen {
        /// The hidden path.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// A program that contradicts itself.
    #[error("the program cannot be started as described: {0}")]
    BadProgram(&'static str),
    /// A step of the start failed.
    #[error("the program was not started: cannot {step}: {reason} [{}]", code::PROGRAM_NOT_STARTED)]
    NotStarted {
        /// What was tried.
        step: String,
        /// What the system says.
        reason: String,
    },
    /// The process that raises the walls did not speak as it should.
    #[error(
        "the program was not started: the process that raises its walls {what} [{}]",
        code::PROGRAM_NOT_STARTED
    )]
    Confiner {
        /// What it did.
        what: &'static str,
    },
    /// A process cannot be looked at.
    #[error("cannot {action} process {pid}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// Its number.
        pid: u32,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A log cannot be read.
    #[error("cannot {action} the log {}", path.display())]
    Log {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The work was cut off by a shutdown.
    #[error("the work was cut off")]
    CutOff,
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NoWalls | Error::BadAccount { .. } | Error::WallsOpen { .. } => {
                ErrorKind::PermissionDenied
            }
            Error::BadProgram(_) => ErrorKind::InvalidArgument,
            Error::Log { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Error::NotStarted { .. } | Error::Confiner { .. } | Error::Process { .. } | Error::Log { .. } => {
                ErrorKind::Internal
            }
            Error::CutOff => ErrorKind::Unavailable,
        }
    }
}
