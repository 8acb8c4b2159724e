//! Networks of compare-exchanges that bring the wanted ranks of `k` rows into place, for 32 columns at once.
//!
//! The sequence of exchanges depends on `k` alone, never on the values, so every column takes the same path and
//! the inner loop is a minimum and a maximum. Values must be finite; a NaN or an infinity is refused and named.
//!
//! # Source
//! Batcher's merge exchange: Knuth, "The Art of Computer Programming" vol. 3, section 5.2.2, Algorithm M, for any
//! `k`; exchanges that no wanted rank depends on are dropped.

use std::ops::Range;

use crate::tile::{Element, with_element};
use crate::{Error, TileSet};

/// Compare-exchanges `(low, high)` in order.
#[derive(Debug, Clone)]
pub(crate) struct Network(Vec<(usize, usize)>);

/// One value of each of 32 columns.
pub(crate) type Columns = [f64; NUM_COLUMNS];

impl Network {
    /// The network that puts the `wanted` ranks (smallest first) of `num_rows` rows in place; the other rows end in
    /// any order.
    pub(crate) fn new(num_rows: usize, wanted: Range<usize>) -> Network {
        let mut needed: Vec<bool> = (0..num_rows).map(|rank| wanted.contains(&rank)).collect();
        let mut kept: Vec<_> = merge_exchange(num_rows)
            .into_iter()
            .rev()
            .filter(|&(low, high)| {
                let counts = needed[low] || needed[high];
                needed[low] |= counts;
                needed[high] |= counts;
                counts
            })
            .collect();
        kept.reverse();
        Network(kept)
    }

    /// Runs the network over all columns of a tile and lets `pick` make the output of each block of columns from
    /// the rows in order.
    ///
    /// # Numerics
    /// Negative zero is taken as zero, so that equal values are the same bits and the order of rows cannot show.
    pub(crate) fn fold(
        &self,
        tiles: &TileSet<'_>,
        pick: impl Fn(&[Columns], &mut Columns),
        out: &mut [f64],
    ) -> Result<(), Error> {
        let finite = with_element!(tiles.dtype, E => self.fold_elements::<E>(tiles.rows, pick, out));
        if finite {
            return Ok(());
        }
        // The scan finds what the kernel saw.
        Err(tiles.non_finite().unwrap_or(Error::NonFinite { row: 0, element: 0 }))
    }

    /// Returns whether all values were finite.
    fn fold_elements<E: Element>(
        &self,
        rows: &[&[u8]],
        pick: impl Fn(&[Columns], &mut Columns),
        out: &mut [f64],
    ) -> bool {
        let mut rows: Vec<_> = rows.iter().map(|row| E::raw(row).chunks(NUM_COLUMNS)).collect();
        let mut block = vec![[0.0; NUM_COLUMNS]; rows.len()];
        let mut picked = [0.0; NUM_COLUMNS];
        for out in out.chunks_mut(NUM_COLUMNS) {
            let mut finite = true;
            for (columns, row) in block.iter_mut().zip(&mut rows) {
                for (value, raw) in columns.iter_mut().zip(row.next().unwrap_or_default()) {
                    *value = E::value(*raw) + 0.0;
                    finite &= value.is_finite();
                }
            }
            if !finite {
                return false;
            }
            self.run(&mut block);
            pick(&block, &mut picked);
            for (out, value) in out.iter_mut().zip(picked) {
                *out = value;
            }
        }
        true
    }

    fn run(&self, rows: &mut [Columns]) {
        for &(low, high) in &self.0 {
            let (head, tail) = rows.split_at_mut(high);
            if let (Some(low), Some(high)) = (head.get_mut(low), tail.first_mut()) {
                exchange(low, high);
            }
        }
    }
}

/// Two comparisons rather than one, so that either line is a minimum or maximum instruction and not a branch.
fn exchange(low: &mut Columns, high: &mut Columns) {
    for (a, b) in low.iter_mut().zip(high) {
        let (x, y) = (*a, *b);
        *a = if x < y { x } else { y };
        *b = if x > y { x } else { y };
    }
}

fn merge_exchange(num_rows: usize) -> Vec<(usize, usize)> {
    let mut exchanges = Vec::new();
    let top = num_rows.next_power_of_two() / 2;
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            let fits = (0..num_rows.saturating_sub(d)).filter(|low| low & p == r);
            exchanges.extend(fits.map(|low| (low, low + d)));
            if q == p {
                break;
            }
            (d, q, r) = (q - p, q / 2, p);
        }
        p /= 2;
    }
    exchanges
}

const NUM_COLUMNS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// By the 0-1 principle a network that is right for all zeros and ones is right for all values.
    #[test]
    fn every_wanted_rank_is_in_place_for_all_zeros_and_ones() {
        for num_rows in 1..=13 {
            for wanted in
                [0..num_rows, (num_rows - 1) / 2..num_rows / 2 + 1, num_rows / 4..num_rows - num_rows / 4]
            {
                let network = Network::new(num_rows, wanted.clone());
                for bits in 0u32..1 << num_rows {
                    let mut rows: Vec<Columns> =
                        (0..num_rows).map(|row| [f64::from(bits >> row & 1); NUM_COLUMNS]).collect();
                    network.run(&mut rows);
                    let zeros = num_rows - bits.count_ones() as usize;
                    for rank in wanted.clone() {
                        let expected = if rank < zeros { 0.0 } else { 1.0 };
                        assert_eq!(rows[rank][0], expected, "{num_rows} rows, bits {bits:b}, rank {rank}");
                    }
                }
            }
        }
    }

    #[test]
    fn unwanted_exchanges_are_dropped() {
        assert_eq!(Network::new(1, 0..1).0.len(), 0);
        assert_eq!(Network::new(4, 0..4).0.len(), 5);
        assert!(Network::new(10, 4..6).0.len() < Network::new(10, 0..10).0.len());
    }
}
