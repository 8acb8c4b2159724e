//! The coordinate trimmed mean: the mean of the ranks left when as many are cut off at either end.
//!
//! # Numerics
//! The ranks left are added in f64 from the smallest to the largest and divided once by their number, so the order
//! of rows cannot show. NaN and infinity are refused and named, cut off or not.

use std::ops::Range;

use sheaf_tensor::cpu::Level;

use crate::key::{Columns, Key};
use crate::network::{Network, Pick};
use crate::tile::Element;
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
    level: Level,
    network: &Network,
    ranks: &Range<usize>,
    tiles: &TileSet<'_>,
    out: &mut [f64],
) -> Result<(), Error> {
    network.fold(level, tiles, Between { first: ranks.start, end: ranks.end }, out)
}

/// The ranks from `first` to before `end`.
#[derive(Clone, Copy)]
struct Between {
    first: usize,
    end: usize,
}

impl Pick for Between {
    #[inline(always)]
    fn pick<E: Element>(self, sorted: &[<E::Key as Key>::Columns], out: &mut [f64]) {
        out.fill(0.0);
        let kept = sorted.get(self.first..self.end).unwrap_or_default();
        for columns in kept {
            for (sum, value) in out.iter_mut().zip(columns.keys()) {
                *sum += E::value_of_key(*value);
            }
        }
        for sum in out {
            *sum /= kept.len() as f64;
        }
    }
}
