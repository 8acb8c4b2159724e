//! The norm-clipped mean: distances from the current model, the scales they lead to, and the scaled mean.
//!
//! # Numerics
//! Squared differences are summed in f64 in eight interleaved sums, whatever the tile length. An update exactly at
//! the current model (distance 0) is not scaled. A NaN or an infinity stops the prepass and is named; one that
//! first shows up while folding propagates to its coordinate.

use crate::distance::{Lanes, Walk, add_squares, is_finite, total};
use crate::tile::{Element, with_element};
use crate::{Clip, Error, TileSet};

/// The squared distance of every update from the current model, as far as it has been seen.
#[derive(Debug, Clone)]
pub(crate) struct Norms {
    squares: Vec<Lanes>,
    walk: Walk,
}

impl Norms {
    pub(crate) fn new(num_updates: usize) -> Norms {
        Norms { squares: vec![Lanes::default(); num_updates], walk: Walk::default() }
    }

    /// Takes in the next tile.
    pub(crate) fn observe(&mut self, tiles: &TileSet<'_>) -> Result<(), Error> {
        let base = tiles.base.ok_or(Error::MissingBase)?;
        let mut rows = Vec::with_capacity(tiles.rows.len() + 1);
        rows.push(base);
        rows.extend_from_slice(tiles.rows);
        let squares = &mut self.squares;
        self.walk.blocks(tiles.dtype, &rows, |lane, block| {
            let Some((base, rows)) = block.split_first() else { return };
            for (lanes, row) in squares.iter_mut().zip(rows) {
                add_squares(lanes, lane, row, base);
            }
        });
        match self.squares.iter().position(|lanes| !is_finite(lanes)) {
            Some(row) => Err(tiles.non_finite().unwrap_or(Error::DistanceOverflow { row })),
            None => Ok(()),
        }
    }

    /// The scale of every update: `min(1, bound / distance)`.
    pub(crate) fn scales(&self, clip: Clip) -> Result<Vec<f64>, Error> {
        let distances: Vec<f64> = self.squares.iter().map(|lanes| total(lanes).sqrt()).collect();
        if let Some(row) = distances.iter().position(|distance| !distance.is_finite()) {
            return Err(Error::DistanceOverflow { row });
        }
        let bound = match clip {
            Clip::NormMax(bound) => bound,
            Clip::NormRatio(ratio) => ratio * median(&distances),
        };
        let scale = |distance: &f64| if *distance <= bound { 1.0 } else { bound / distance };
        Ok(distances.iter().map(scale).collect())
    }
}

/// Writes `base + sum c_k (x_k - base) / total` to `out`, where `c_k` is weight × scale.
///
/// # Shapes
/// `tiles.rows: [K][P]`, `coefficients: [K]`, `out: [P]`, checked by the caller.
pub(crate) fn fold(
    tiles: &TileSet<'_>,
    coefficients: &[f64],
    total: f64,
    out: &mut [f64],
) -> Result<(), Error> {
    let base = tiles.base.ok_or(Error::MissingBase)?;
    with_element!(tiles.dtype, E => fold_elements::<E>(tiles.rows, base, coefficients, total, out));
    Ok(())
}

fn fold_elements<E: Element>(rows: &[&[u8]], base: &[u8], coefficients: &[f64], total: f64, out: &mut [f64]) {
    let mut rows: Vec<_> = rows.iter().map(|row| E::raw(row).chunks(BLOCK_LEN)).collect();
    let bases = E::raw(base).chunks(BLOCK_LEN);
    for (sums, base) in out.chunks_mut(BLOCK_LEN).zip(bases) {
        sums.fill(0.0);
        for (row, coefficient) in rows.iter_mut().zip(coefficients) {
            let block = row.next().unwrap_or_default();
            for ((sum, raw), base) in sums.iter_mut().zip(block).zip(base) {
                *sum += coefficient * (E::value(*raw) - E::value(*base));
            }
        }
        for (sum, base) in sums.iter_mut().zip(base) {
            *sum = E::value(*base) + *sum / total;
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    f64::midpoint(lower, upper)
}

const BLOCK_LEN: usize = 1024;
