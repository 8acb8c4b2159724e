//! Networks of compare-exchanges that bring the wanted ranks of `k` rows into place, for a run of columns at once.
//!
//! The sequence of exchanges depends on `k` alone, never on the values, so every column takes the same path and
//! the inner loop is a minimum and a maximum. Values must be finite; a NaN or an infinity is refused and named.
//!
//! # Source
//! Batcher's merge exchange: Knuth, "The Art of Computer Programming" vol. 3, section 5.2.2, Algorithm M, for any
//! `k`; exchanges that no wanted rank depends on are dropped.

use std::ops::Range;

use sheaf_tensor::cpu::{Kernel, Level, prefetch};

use crate::key::{Columns, Key};
use crate::tile::{Element, with_element};
use crate::{Error, TileSet};

/// Compare-exchanges `(low, high)` in order.
#[derive(Debug, Clone)]
pub(crate) struct Network(Vec<(usize, usize)>);

/// What is made of the rows of some columns once their wanted ranks are in place.
pub(crate) trait Pick: Copy {
    /// Writes the output of each column.
    fn pick<E: Element>(self, sorted: &[<E::Key as Key>::Columns], out: &mut [f64]);
}

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

    /// Runs the network over all columns of a tile and lets `pick` make the output of each run of columns from
    /// the rows in order.
    ///
    /// # Numerics
    /// Negative zero counts as zero, so that equal values are the same bits and the order of rows cannot show.
    pub(crate) fn fold(
        &self,
        level: Level,
        tiles: &TileSet<'_>,
        pick: impl Pick,
        out: &mut [f64],
    ) -> Result<(), Error> {
        let finite = with_element!(tiles.dtype, E => {
            let rows = tiles.rows.iter().map(|row| E::raw(row)).collect();
            level.run(Ranked::<E, _> { network: self, rows, pick, out })
        });
        if finite {
            return Ok(());
        }
        // The scan finds what the kernel saw.
        Err(tiles.non_finite().unwrap_or(Error::NonFinite { row: 0, element: 0 }))
    }

    #[inline(always)]
    fn run<K: Key>(&self, rows: &mut [K::Columns]) {
        for &(low, high) in &self.0 {
            let (head, tail) = rows.split_at_mut(high);
            if let (Some(low), Some(high)) = (head.get_mut(low), tail.first_mut()) {
                low.exchange(high);
            }
        }
    }
}

/// One tile of every row under one network.
struct Ranked<'a, E: Element, P> {
    network: &'a Network,
    rows: Vec<&'a [E::Raw]>,
    pick: P,
    out: &'a mut [f64],
}

impl<E: Element, P: Pick> Kernel for Ranked<'_, E, P> {
    /// Whether all values were finite.
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let len = <E::Key as Key>::Columns::LEN;
        let zeros = <E::Key as Key>::Columns::filled(E::Key::default());
        let mut block = vec![zeros.clone(); self.rows.len()];
        for (run_idx, out) in self.out.chunks_mut(len).enumerate() {
            let from = run_idx * len;
            let (mut least, mut most) = (zeros.clone(), zeros.clone());
            for (columns, row) in block.iter_mut().zip(&self.rows) {
                columns.load::<E>(row.get(from..).unwrap_or_default(), &mut least, &mut most);
                for line in 0..(len * size_of::<E::Raw>()).div_ceil(64) {
                    prefetch(row, from + len + line * 64 / size_of::<E::Raw>());
                }
            }
            if !least.keys().iter().chain(most.keys()).all(|key| E::FINITE.contains(key)) {
                return false;
            }
            self.network.run::<E::Key>(&mut block);
            self.pick.pick::<E>(&block, out);
        }
        true
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

/// Bytes a network works on for every row: one run of columns.
pub(crate) const WORK_ROW_BYTES: u64 = 256;

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
                    let row = |row| <i64 as Key>::Columns::filled(i64::from(bits >> row & 1));
                    let mut rows: Vec<_> = (0..num_rows).map(row).collect();
                    network.run::<i64>(&mut rows);
                    let zeros = num_rows - bits.count_ones() as usize;
                    for rank in wanted.clone() {
                        let expected = if rank < zeros { 0 } else { 1 };
                        assert_eq!(
                            rows[rank].keys()[0],
                            expected,
                            "{num_rows} rows, bits {bits:b}, rank {rank}"
                        );
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
