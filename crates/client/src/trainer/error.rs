//! Why a trainer yields nothing.

use std::path::PathBuf;

use sheaf_domain::{ErrorKind, Span};

/// A trainer's failure; its text goes to the server as the reason, so it holds no environment and no secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The site does not accept it.
    #[error("the site's policy refuses {what}: {reason}")]
    Refused {
        /// The run, trainer or plan key.
        what: String,
        /// Why.
        reason: String,
    },
    /// A plan's key the trainer has no use for, or a value it cannot take.
    #[error("plan key {key:?}: {reason}")]
    Config {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A trainer's own configuration at the site.
    #[error("trainer setting {setting}: {reason}")]
    Setting {
        /// The setting.
        setting: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Data the site cannot train on.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// A model the trainer cannot take, or that came to nothing.
    #[error(transparent)]
    Model(#[from] crate::nn::Error),
    /// A stage that needs a model came without one.
    #[error("stage {stage} was handed no model")]
    NoModel {
        /// The stage.
        stage: String,
    },
    /// The command ended without success.
    #[error("the command ended with {status}{}", if last_lines.is_empty() { String::new() } else { format!(": {last_lines}") })]
    Failed {
        /// Its exit status.
        status: String,
        /// The last lines it wrote to its standard error.
        last_lines: String,
    },
    /// The command did not end in time.
    #[error("the command was killed: it did not end within {after}")]
    TimedOut {
        /// The time allowed.
        after: Span,
    },
    /// A file the command left that is not of the contract.
    #[error("{file}: {reason}")]
    Output {
        /// The file's name in the contract.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Tensors that are not what they claim to be.
    #[error(transparent)]
    Tensor(#[from] sheaf_tensor::Error),
    /// A computation of ours that was cut off.
    #[error(transparent)]
    Cut(#[from] sheaf_runtime::ComputeError),
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Refused { .. } => ErrorKind::PermissionDenied,
            Error::Config { .. } | Error::Setting { .. } | Error::NoModel { .. } | Error::Tensor(_) => {
                ErrorKind::InvalidArgument
            }
            Error::Data(error) => error.kind(),
            Error::Model(error) => error.kind(),
            Error::TimedOut { .. } => ErrorKind::Timeout,
            Error::Failed { .. } | Error::Output { .. } | Error::File { .. } | Error::Cut(_) => {
                ErrorKind::Internal
            }
        }
    }

    /// Whether the same job may succeed later without being changed.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    pub(crate) fn config(key: &str, reason: impl Into<String>) -> Error {
        Error::Config { key: key.chars().take(128).collect(), reason: reason.into() }
    }

    pub(crate) fn setting(setting: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Setting { setting: setting.into(), reason: reason.into() }
    }

    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { action, path, source }
    }
}
