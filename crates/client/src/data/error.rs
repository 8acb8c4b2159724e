//! What can be wrong with data.

use std::path::PathBuf;

use sheaf_domain::ErrorKind;

/// Data that cannot be used, and where it is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No examples, or examples without features.
    #[error("the data has no examples or no features")]
    Empty,
    /// Features that do not fill whole rows.
    #[error("{num_values} values are not {rows} rows of {num_features} features")]
    Ragged {
        /// Values given.
        num_values: usize,
        /// Rows expected.
        rows: usize,
        /// Features of a row.
        num_features: usize,
    },
    /// No classes, or too many.
    #[error("{num_classes} classes are not from 1 to {}", super::CLASSES_MAX)]
    Classes {
        /// The number of classes.
        num_classes: usize,
    },
    /// A NaN or an infinity.
    #[error("feature {column} of example {row} is not a finite number")]
    NotFinite {
        /// The example, from 0.
        row: usize,
        /// The feature, from 0.
        column: usize,
    },
    /// A label that is none of the classes.
    #[error("example {row} has label {label}, of {num_classes} classes from 0")]
    BadLabel {
        /// The example, from 0.
        row: usize,
        /// Its label.
        label: usize,
        /// The number of classes.
        num_classes: usize,
    },
    /// A row that does not exist.
    #[error("there is no example {row} among {rows}")]
    NoRow {
        /// The row asked for, from 0.
        row: usize,
        /// The number of rows.
        rows: usize,
    },
    /// A line of a CSV that is not of its form.
    #[error("line {line}: {reason}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An array of an archive that is missing or of the wrong kind.
    #[error("array {name:?}: {reason}")]
    Array {
        /// The array.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An archive that cannot be read.
    #[error(transparent)]
    Tensor(#[from] sheaf_tensor::Error),
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file beyond the bound.
    #[error("{} is {len} bytes long, more than the {} that are read", path.display(), super::FILE_LEN_MAX)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// A file of neither format.
    #[error("{} is neither a .csv nor an .npz file", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// More sites than the data allows.
    #[error(
        "{examples} examples cannot be shared out among {sites} sites with at least {} each; at most {sites_max} sites \
         are possible",
        super::EXAMPLES_MIN
    )]
    TooManySites {
        /// The sites asked for.
        sites: usize,
        /// The examples there are.
        examples: usize,
        /// The most sites possible.
        sites_max: usize,
    },
    /// A split that never gave every site enough.
    #[error(
        "{draws} splits of {examples} examples among {sites} sites with alpha = {alpha} all left a site under {}; take \
         fewer sites or a greater alpha",
        super::EXAMPLES_MIN
    )]
    NoSplit {
        /// How many were drawn.
        draws: u32,
        /// The examples there are.
        examples: usize,
        /// The sites asked for.
        sites: usize,
        /// The concentration.
        alpha: f64,
    },
    /// A parameter of a split out of its range.
    #[error("{name} = {value} is not {range}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: f64,
        /// What it must be.
        range: &'static str,
    },
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::File { .. } => ErrorKind::Internal,
            _ => ErrorKind::InvalidArgument,
        }
    }

    /// Whether the same call may succeed later without being changed.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }
}
