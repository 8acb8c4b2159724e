//! Data sets as two arrays of an archive: `x` and `y`.

use bytes::Bytes;
use sheaf_tensor::{ParamSet, Tensor, npz};

use super::{Dataset, Error, FILE_LEN_MAX, ReadOptions, assemble, label_of};

pub(super) fn read(file: Bytes, options: &ReadOptions) -> Result<Dataset, Error> {
    let limits = npz::Limits { entries_max: 64, total_bytes_max: FILE_LEN_MAX, ..npz::Limits::default() };
    let arrays = npz::read(file, limits)?;
    let (x, y) = (array(&arrays, "x")?, array(&arrays, "y")?);
    let num_rows = y.spec.shape.num_elements();
    if y.spec.shape.dims().len() != 1 {
        return Err(bad("y", format!("its shape is {}, not one number an example", y.spec.shape)));
    }
    let [rows, ..] = x.spec.shape.dims() else {
        return Err(bad("x", "it is a single number".to_owned()));
    };
    if *rows != num_rows {
        return Err(bad("x", format!("it has {rows} examples where \"y\" has {num_rows}")));
    }
    let labels = y
        .to_f64()?
        .into_iter()
        .enumerate()
        .map(|(row, value)| {
            label_of(value)
                .ok_or_else(|| bad("y", format!("{value} at index {row} is not the number of a class")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let features = x.to_f64()?;
    let num_features = features.len().checked_div(labels.len()).unwrap_or(0);
    assemble(features, labels, num_features, options)
}

fn array<'a>(arrays: &'a ParamSet, name: &'static str) -> Result<&'a Tensor, Error> {
    arrays.get(name).ok_or_else(|| bad(name, "the archive has none of this name".to_owned()))
}

fn bad(name: &'static str, reason: String) -> Error {
    Error::Array { name, reason }
}
