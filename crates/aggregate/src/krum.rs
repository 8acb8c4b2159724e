//! Krum and Multi-Krum: squared distances of all pairs of updates, their scores, and who is kept.
//!
//! # Numerics
//! Distances are direct sums of squared differences in f64 (no Gram matrix, which cancels), independent of the tile
//! length. A score adds the nearest distances from the smallest up. Equal scores rank in canonical order. NaN and
//! infinity are refused and named. Memory: 64 bytes a pair, and one block of 256 f64 a row while observing.

use crate::distance::{Lanes, Walk, add_squares, is_finite, total};
use crate::{Error, TileSet};

/// The squared distance of every pair of updates, as far as it has been seen.
#[derive(Debug, Clone)]
pub(crate) struct Pairs {
    num_updates: usize,
    /// Pairs (0, 1), (0, 2) … (1, 2) …
    squares: Vec<Lanes>,
    walk: Walk,
}

impl Pairs {
    pub(crate) fn new(num_updates: usize) -> Pairs {
        let num_pairs = num_updates * num_updates.saturating_sub(1) / 2;
        Pairs { num_updates, squares: vec![Lanes::default(); num_pairs], walk: Walk::default() }
    }

    /// Takes in the next tile.
    pub(crate) fn observe(&mut self, tiles: &TileSet<'_>) -> Result<(), Error> {
        let squares = &mut self.squares;
        self.walk.blocks(tiles.dtype, tiles.rows, |lane, block| {
            let pairs =
                (0..block.len()).flat_map(|idx| block.iter().skip(idx + 1).map(move |other| (idx, other)));
            for (lanes, (idx, other)) in squares.iter_mut().zip(pairs) {
                add_squares(lanes, lane, &block[idx], other);
            }
        });
        if self.squares.iter().all(is_finite) {
            return Ok(());
        }
        let only_rows = TileSet { base: None, ..*tiles };
        Err(only_rows.non_finite().unwrap_or_else(|| self.overflow()))
    }

    /// The `keep` updates with the smallest scores, in canonical order.
    pub(crate) fn select(&self, byzantine: u32, keep: u32) -> Result<Vec<usize>, Error> {
        let byzantine = usize::try_from(byzantine).unwrap_or(usize::MAX);
        let num_nearest = self.num_updates.saturating_sub(byzantine).saturating_sub(2);
        let mut ranked = Vec::with_capacity(self.num_updates);
        for (row, mut distances) in self.distances().into_iter().enumerate() {
            distances.sort_by(f64::total_cmp);
            let score: f64 = distances.iter().take(num_nearest).sum();
            if !score.is_finite() {
                return Err(self.overflow());
            }
            ranked.push((score, row));
        }
        // Stable: equal scores stay in canonical order.
        ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        ranked.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        let mut chosen: Vec<usize> = ranked.into_iter().map(|(_, row)| row).collect();
        chosen.sort_unstable();
        Ok(chosen)
    }

    /// For every update its squared distances to the others.
    fn distances(&self) -> Vec<Vec<f64>> {
        let mut distances = vec![Vec::with_capacity(self.num_updates); self.num_updates];
        let pairs = (0..self.num_updates).flat_map(|a| (a + 1..self.num_updates).map(move |b| (a, b)));
        for ((a, b), lanes) in pairs.zip(&self.squares) {
            let square = total(lanes);
            distances[a].push(square);
            distances[b].push(square);
        }
        distances
    }

    fn overflow(&self) -> Error {
        let far = |distances: &Vec<f64>| !distances.iter().sum::<f64>().is_finite();
        Error::DistanceOverflow { row: self.distances().iter().position(far).unwrap_or(0) }
    }
}
