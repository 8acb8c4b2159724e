//! The folds as their callers use them: reference vectors, properties, and refusals.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod levels;
mod openfl;
mod properties;
mod refusals;
mod vectors;

use sheaf_aggregate::{Error, Fold, Rule, TileSet};
use sheaf_tensor::Dtype;

/// The same tensor of every update and of the current model.
pub(crate) struct Column {
    pub(crate) dtype: Dtype,
    pub(crate) base: Vec<u8>,
    pub(crate) rows: Vec<Vec<u8>>,
}

impl Column {
    pub(crate) fn f64(base: &[f64], rows: &[Vec<f64>]) -> Column {
        let bytes = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Column { dtype: Dtype::F64, base: bytes(base), rows: rows.iter().map(|row| bytes(row)).collect() }
    }

    /// Hands every tile of `tile_len` elements to `visit`.
    pub(crate) fn tiles(
        &self,
        tile_len: usize,
        mut visit: impl FnMut(&TileSet<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let tile_bytes = tile_len * self.dtype.size();
        for start in (0..self.base.len()).step_by(tile_bytes) {
            let end = (start + tile_bytes).min(self.base.len());
            let rows: Vec<&[u8]> = self.rows.iter().map(|row| &row[start..end]).collect();
            visit(&TileSet { dtype: self.dtype, rows: &rows, base: Some(&self.base[start..end]) })?;
        }
        Ok(())
    }
}

/// What became of a cohort.
#[derive(Debug, PartialEq)]
pub(crate) struct Folded {
    pub(crate) tensors: Vec<Vec<f64>>,
    pub(crate) scales: Vec<f64>,
    pub(crate) selected: Vec<usize>,
}

/// Folds whole tensors the way the coordinator does, in tiles of `tile_len` elements.
pub(crate) fn fold_all(
    rule: Rule,
    weights: &[f64],
    columns: &[Column],
    tile_len: usize,
) -> Result<Folded, Error> {
    let mut fold = Fold::new(rule, weights)?;
    while fold.needs_prepass() {
        for column in columns {
            column.tiles(tile_len, |tiles| fold.observe(tiles))?;
        }
        fold.seal()?;
    }
    let mut tensors = Vec::new();
    for column in columns {
        let mut tensor = Vec::new();
        column.tiles(tile_len, |tiles| {
            let mut out = vec![f64::NAN; tiles.rows[0].len() / tiles.dtype.size()];
            fold.fold(tiles, &mut out)?;
            tensor.extend(out);
            Ok(())
        })?;
        tensors.push(tensor);
    }
    Ok(Folded { tensors, scales: fold.scales(), selected: fold.selected() })
}

pub(crate) fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * b.abs().max(1.0)
}
