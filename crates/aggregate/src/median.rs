//! The coordinate median: the middle rank, or the mean of the two middle ranks of an even cohort.
//!
//! # Numerics
//! Exact up to the rounding of one midpoint, which cannot overflow. Values are compared as f64. NaN and infinity
//! are refused and named. The order of rows cannot show: see [`crate::network`].

use std::ops::Range;

use sheaf_tensor::cpu::Level;

use crate::key::{Columns, Key};
use crate::network::{Network, Pick};
use crate::tile::Element;
use crate::{Error, TileSet};

/// The ranks the median of `num_updates` rows is made of: one or two.
pub(crate) fn ranks(num_updates: usize) -> Range<usize> {
    num_updates.saturating_sub(1) / 2..num_updates / 2 + 1
}

/// Writes the median of every coordinate to `out`.
///
/// # Shapes
/// `tiles.rows: [K][P]`, `out: [P]`, checked by the caller; `network` wants [`ranks`] of `K`.
pub(crate) fn fold(
    level: Level,
    network: &Network,
    tiles: &TileSet<'_>,
    out: &mut [f64],
) -> Result<(), Error> {
    let num_updates = tiles.rows.len();
    let middle = Middle { lower: num_updates.saturating_sub(1) / 2, upper: num_updates / 2 };
    network.fold(level, tiles, middle, out)
}

/// The two middle ranks; the same one twice in an odd cohort.
#[derive(Clone, Copy)]
struct Middle {
    lower: usize,
    upper: usize,
}

impl Pick for Middle {
    #[inline(always)]
    fn pick<E: Element>(self, sorted: &[<E::Key as Key>::Columns], out: &mut [f64]) {
        if let (Some(lower), Some(upper)) = (sorted.get(self.lower), sorted.get(self.upper)) {
            for ((out, lower), upper) in out.iter_mut().zip(lower.keys()).zip(upper.keys()) {
                *out = midpoint(E::value_of_key(*lower), E::value_of_key(*upper));
            }
        }
    }
}

/// As [`f64::midpoint`] of finite values, without its branches.
#[inline(always)]
fn midpoint(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if sum.is_finite() { sum / 2.0 } else { a / 2.0 + b / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_midpoint_is_the_one_of_the_standard_library() {
        let least = f64::from_bits(1);
        let values =
            [0.0, 1.0, -3.5, least, f64::MIN_POSITIVE, 1e300, f64::MAX, f64::MIN, f64::MAX / 2.0, -1e-310];
        for a in values {
            for b in values {
                assert_eq!(midpoint(a, b).to_bits(), f64::midpoint(a, b).to_bits(), "{a} {b}");
            }
        }
    }
}
