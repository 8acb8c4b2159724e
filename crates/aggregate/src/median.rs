//! The coordinate median: the middle rank, or the mean of the two middle ranks of an even cohort.
//!
//! # Numerics
//! Exact up to the rounding of one midpoint, which cannot overflow. Values are compared as f64. NaN and infinity
//! are refused and named. The order of rows cannot show: see [`crate::network`].

use std::ops::Range;

use crate::network::{Columns, Network};
use crate::{Error, TileSet};

/// The ranks the median of `num_updates` rows is made of: one or two.
pub(crate) fn ranks(num_updates: usize) -> Range<usize> {
    num_updates.saturating_sub(1) / 2..num_updates / 2 + 1
}

/// Writes the median of every coordinate to `out`.
///
/// # Shapes
/// `tiles.rows: [K][P]`, `out: [P]`, checked by the caller; `network` wants [`ranks`] of `K`.
pub(crate) fn fold(network: &Network, tiles: &TileSet<'_>, out: &mut [f64]) -> Result<(), Error> {
    let ranks = ranks(tiles.rows.len());
    let pick = |sorted: &[Columns], out: &mut Columns| {
        let middle = sorted.get(ranks.clone()).unwrap_or_default();
        if let (Some(lower), Some(upper)) = (middle.first(), middle.last()) {
            for ((out, lower), upper) in out.iter_mut().zip(lower).zip(upper) {
                *out = f64::midpoint(*lower, *upper);
            }
        }
    };
    network.fold(tiles, pick, out)
}
