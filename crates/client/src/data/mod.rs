//! Data at a site: a matrix of features with a label for each row, read from CSV and `.npz`, and how it is shared out.
//!
//! Refuses what it cannot read without doubt (ragged lines, labels that are no classes, NaN), naming the line or row. A
//! [`Dataset`] is never empty, all its features are finite and all its labels are below its number of classes.

mod csv;
mod error;
mod npz;
mod partition;
#[cfg(test)]
mod tests;

use std::path::Path;

use bytes::Bytes;

pub use error::Error;
pub use partition::{EXAMPLES_MIN, dirichlet, split_holdout};

/// The most bytes of a data file that are read.
pub const FILE_LEN_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// The most classes a data set may have.
pub const CLASSES_MAX: usize = 65_536;

/// Examples: features and labels.
///
/// # Shapes
/// Features `[N][F]`, row-major; labels `[N]`, each below the number of classes.
///
/// # Examples
/// ```
/// use sheaf_client::data::{Dataset, ReadOptions};
///
/// let data = Dataset::from_csv("0,16,1\n8,0,0\n", &ReadOptions { scale: 1.0 / 16.0, ..Default::default() })?;
/// assert_eq!(data.row(0), [0.0, 1.0]);
/// assert_eq!(data.labels(), [1, 0]);
/// # Ok::<(), sheaf_client::data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    features: Vec<f64>,
    labels: Vec<usize>,
    num_features: usize,
    num_classes: usize,
}

/// How a data file is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// The column of a CSV that is the label, by its name in the header; the last column where absent.
    pub label: Option<String>,
    /// The number of classes; the greatest label plus one where absent.
    pub num_classes: Option<usize>,
    /// What every feature is multiplied by.
    pub scale: f64,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { label: None, num_classes: None, scale: 1.0 }
    }
}

impl Dataset {
    /// Makes a data set.
    ///
    /// # Errors
    /// [`Error::Empty`]; [`Error::Ragged`] when the features are not as many as rows of `num_features` take;
    /// [`Error::NotFinite`]; [`Error::BadLabel`]; [`Error::Classes`] for no or too many classes.
    pub fn new(
        features: Vec<f64>,
        labels: Vec<usize>,
        num_features: usize,
        num_classes: usize,
    ) -> Result<Dataset, Error> {
        if labels.is_empty() || num_features == 0 {
            return Err(Error::Empty);
        }
        if labels.len().checked_mul(num_features) != Some(features.len()) {
            return Err(Error::Ragged { num_values: features.len(), rows: labels.len(), num_features });
        }
        if num_classes == 0 || num_classes > CLASSES_MAX {
            return Err(Error::Classes { num_classes });
        }
        if let Some(at) = features.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite { row: at / num_features, column: at % num_features });
        }
        if let Some(row) = labels.iter().position(|label| *label >= num_classes) {
            let label = labels.get(row).copied().unwrap_or_default();
            return Err(Error::BadLabel { row, label, num_classes });
        }
        Ok(Dataset { features, labels, num_features, num_classes })
    }

    /// Reads a `.csv` or `.npz` file.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::TooLarge`] above [`FILE_LEN_MAX`]; [`Error::Unknown`] for another ending; the errors of
    /// [`Dataset::from_csv`] and [`Dataset::from_npz`].
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Dataset, Error> {
        let unreadable = |source| Error::File { path: path.to_owned(), source };
        let len = std::fs::metadata(path).map_err(unreadable)?.len();
        if len > FILE_LEN_MAX {
            return Err(Error::TooLarge { path: path.to_owned(), len });
        }
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("csv") => Dataset::from_csv(&std::fs::read_to_string(path).map_err(unreadable)?, options),
            Some("npz") => Dataset::from_npz(Bytes::from(std::fs::read(path).map_err(unreadable)?), options),
            _ => Err(Error::Unknown { path: path.to_owned() }),
        }
    }

    /// Reads the text of a CSV: numbers separated by commas, one example a line.
    ///
    /// The first line is a header if any of its fields is no number. The label is the column named in `options`, or the
    /// last. Empty lines at the end do not count.
    ///
    /// # Errors
    /// [`Error::Line`], naming the line; those of [`Dataset::new`].
    pub fn from_csv(text: &str, options: &ReadOptions) -> Result<Dataset, Error> {
        csv::read(text, options)
    }

    /// Reads an archive of two arrays: `x`, whose first axis runs over examples, and `y`, one whole number an example.
    ///
    /// # Errors
    /// [`Error::Array`]; [`Error::Tensor`] for a file that is no such archive; those of [`Dataset::new`].
    pub fn from_npz(file: Bytes, options: &ReadOptions) -> Result<Dataset, Error> {
        npz::read(file, options)
    }

    /// The number of examples, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a data set is never empty")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The number of features of an example.
    pub fn num_features(&self) -> usize {
        self.num_features
    }

    /// The number of classes.
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// The labels, in order.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// The features of an example; empty for one that does not exist.
    pub fn row(&self, idx: usize) -> &[f64] {
        let start = idx.saturating_mul(self.num_features);
        self.features.get(start..start.saturating_add(self.num_features)).unwrap_or_default()
    }

    /// The examples at `rows`, in that order, of as many classes.
    ///
    /// # Errors
    /// [`Error::NoRow`] for a row that does not exist; [`Error::Empty`] for none.
    pub fn subset(&self, rows: &[usize]) -> Result<Dataset, Error> {
        let labels = rows
            .iter()
            .map(|row| self.labels.get(*row).copied().ok_or(Error::NoRow { row: *row, rows: self.len() }))
            .collect::<Result<Vec<_>, _>>()?;
        let features = rows.iter().flat_map(|row| self.row(*row)).copied().collect();
        Dataset::new(features, labels, self.num_features, self.num_classes)
    }

    /// Takes both a training and a test set from it, as [`split_holdout`] does.
    ///
    /// # Errors
    /// Those of [`split_holdout`] and [`Dataset::subset`].
    pub fn split(&self, share: f64, seed: u64) -> Result<(Dataset, Dataset), Error> {
        let (train, test) = split_holdout(self.len(), share, seed)?;
        Ok((self.subset(&train)?, self.subset(&test)?))
    }
}

/// Makes a data set of what a file held.
fn assemble(
    mut features: Vec<f64>,
    labels: Vec<usize>,
    num_features: usize,
    options: &ReadOptions,
) -> Result<Dataset, Error> {
    let greatest = labels.iter().max().map_or(0, |label| label.saturating_add(1));
    for value in &mut features {
        *value *= options.scale;
    }
    Dataset::new(features, labels, num_features, options.num_classes.unwrap_or(greatest))
}

/// A label, from a number that should be one.
fn label_of(value: f64) -> Option<usize> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number below CLASSES_MAX"
    )]
    let label =
        (value >= 0.0 && value.fract() == 0.0 && value < CLASSES_MAX as f64).then_some(value as usize);
    label
}
