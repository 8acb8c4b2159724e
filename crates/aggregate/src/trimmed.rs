//! The coordinate trimmed mean: the mean of the ranks left when as many are cut off at either end.
//!
//! # Numerics
//! The ranks left are added in f64 from the smallest to the largest and divided once by their number, so the order
//! of rows cannot show. NaN and infinity are refused and named, cut off or not.

use std::ops::Range;

use crate::network::{Columns, Network};
use crate::{Error, TileSet};

/// The ranks that stay: without the `floor(share × num_updates)` smallest and as many largest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share in [0, 0.5) of a count")]
pub(crate) fn ranks(num_updates: usize, share: f64) -> Range<usize> {
    let cut = (share * num_updates as f64).floor() as usize;
    cut..num_updates.saturating_sub(cut)
}

/// Writes the trimmed mean of every coordinate to `out`.
///
/// # Shapes
/// `tiles.rows: [K][P]`, `out: [P]`, checked by the caller; `network` wants `ranks`.
pub(crate) fn fold(
    network: &Network,
    ranks: &Range<usize>,
    tiles: &TileSet<'_>,
    out: &mut [f64],
) -> Result<(), Error> {
    let count = ranks.len() as f64;
    let pick = |sorted: &[Columns], out: &mut Columns| {
        out.fill(0.0);
        for columns in sorted.get(ranks.clone()).unwrap_or_default() {
            for (sum, value) in out.iter_mut().zip(columns) {
                *sum += value;
            }
        }
        for sum in out {
            *sum /= count;
        }
    };
    network.fold(tiles, pick, out)
}
