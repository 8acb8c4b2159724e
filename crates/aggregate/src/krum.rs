//! Krum and Multi-Krum: squared distances of all pairs of updates, their scores, and who is kept.
//!
//! # Numerics
//! Distances are direct sums of squared differences in f64 (no Gram matrix, which cancels), independent of the tile
//! length. A score adds the nearest distances from the smallest up. Equal scores rank in canonical order. NaN and
//! infinity are refused and named. For large cohorts a quick pass in float32 comes first: where its error could change
//! who is kept, a second, exact pass is asked for over those whose place is open, so the selection is always that of the exact
//! distances. Where half of the updates are open, or a value is too large for float32, all pairs are measured again.
//! Memory: 64 bytes a pair, and a block of 512 floats a row while observing.

use sheaf_tensor::cpu::Level;

use crate::squares::{Lanes, QUICK_ERROR, QUICK_UNDERFLOW, add_exact, add_quick, pair_place, total};
use crate::staging::Staging;
use crate::tile::{Element, with_element};
use crate::{Error, TileSet};

mod recount;

pub(crate) use recount::{Recount, Unclear};

/// The squared distance of every pair of updates, as far as it has been seen.
#[derive(Debug, Clone)]
pub(crate) struct Pairs {
    num_updates: usize,
    squares: Vec<Lanes>,
    /// Elements for exact sums.
    wide: Staging<f64>,
    quick: Option<Quick>,
    num_elements: u64,
}

/// The quick pass.
#[derive(Debug, Clone)]
struct Quick {
    narrow: Staging<f32>,
    /// Whether a value was too large for it.
    beyond: bool,
}

/// Who is kept.
#[derive(Debug, PartialEq)]
pub(crate) enum Choice {
    /// These, in canonical order.
    Kept(Vec<usize>),
    /// The quick pass could not tell some apart.
    Close(Unclear),
    /// The quick pass could not hold a value, or left half of them open.
    Open,
}

impl Pairs {
    /// Begins with the quick pass where it pays.
    pub(crate) fn new(num_updates: usize, level: Level) -> Pairs {
        // Without fused products a quick sum is slower than an exact one.
        let is_quick = num_updates >= QUICK_ROWS_MIN && level > Level::Plain;
        let quick = is_quick.then(|| Quick { narrow: Staging::new(num_updates), beyond: false });
        Pairs { quick, ..Pairs::exact(num_updates) }
    }

    /// Begins with the exact pass.
    pub(crate) fn exact(num_updates: usize) -> Pairs {
        let num_pairs = num_updates * num_updates.saturating_sub(1) / 2;
        Pairs {
            num_updates,
            squares: vec![Lanes::default(); num_pairs],
            wide: Staging::new(num_updates),
            quick: None,
            num_elements: 0,
        }
    }

    /// How many bytes it holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        let narrow = self.quick.as_ref().map_or(0, |quick| quick.narrow.held_bytes());
        size_of_val(&self.squares[..]) as u64 + self.wide.held_bytes() + narrow
    }

    /// Takes in the next tile.
    pub(crate) fn observe(&mut self, level: Level, tiles: &TileSet<'_>) -> Result<(), Error> {
        with_element!(tiles.dtype, E => self.take::<E>(level, tiles))
    }

    fn take<E: Element>(&mut self, level: Level, tiles: &TileSet<'_>) -> Result<(), Error> {
        let rows = tiles.rows;
        self.num_elements += (rows.first().map_or(0, |row| row.len()) / tiles.dtype.size()) as u64;
        let squares = &mut self.squares;
        let within = match &mut self.quick {
            Some(quick) if E::IS_NARROW => {
                quick.narrow.take::<E>(level, rows, |block, ahead| add_quick(level, block, ahead, squares))
            }
            _ => self.wide.take::<E>(level, rows, |block, ahead| add_exact(level, block, ahead, squares)),
        };
        if within {
            return Ok(());
        }
        let only_rows = TileSet { base: None, ..*tiles };
        match (only_rows.non_finite(), &mut self.quick) {
            (None, Some(quick)) => quick.beyond = true,
            (error, _) => return Err(error.unwrap_or_else(|| self.overflow())),
        }
        Ok(())
    }

    /// Takes in the elements that do not fill a block, of the exact pass.
    pub(crate) fn finish(&mut self, level: Level) {
        let squares = &mut self.squares;
        self.wide.finish(|block, ahead| add_exact(level, block, ahead, squares));
    }

    /// Chooses the `keep` updates with the smallest scores.
    pub(crate) fn choose(&mut self, level: Level, byzantine: u32, keep: u32) -> Result<Choice, Error> {
        self.finish(level);
        let squares = &mut self.squares;
        if let Some(quick) = &mut self.quick {
            quick.narrow.finish(|block, ahead| add_quick(level, block, ahead, squares));
            if quick.beyond {
                return Ok(Choice::Open);
            }
        }
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        let ranked = self.ranked(byzantine)?;
        if let Some(unclear) = self.quick.as_ref().and_then(|_| self.unclear(&ranked, keep)) {
            // Each open one is measured against all: of half of them that is as much as all pairs.
            let is_few = unclear.rows.len() * 2 < self.num_updates;
            return Ok(if is_few { Choice::Close(unclear) } else { Choice::Open });
        }
        let mut kept: Vec<usize> = ranked.into_iter().take(keep).map(|(_, row)| row).collect();
        kept.sort_unstable();
        Ok(Choice::Kept(kept))
    }

    /// The updates with their scores, the smallest first.
    fn ranked(&self, byzantine: u32) -> Result<Vec<(f64, usize)>, Error> {
        let mut ranked = Vec::with_capacity(self.num_updates);
        for row in 0..self.num_updates {
            let score = score(self.distances(row), byzantine);
            if !score.is_finite() {
                return Err(self.overflow());
            }
            ranked.push((score, row));
        }
        // Stable: equal scores stay in canonical order.
        ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Ok(ranked)
    }

    /// Those that the errors of quick scores could exchange, if there are such: the last that is kept could be as far away as the first
    /// that is not, and whoever lies between what either could be is open as well.
    fn unclear(&self, ranked: &[(f64, usize)], keep: usize) -> Option<Unclear> {
        let lost = QUICK_UNDERFLOW * self.num_elements as f64 * self.num_updates as f64;
        let least = |score: f64| score * (1.0 - QUICK_ERROR) - lost;
        let most = |score: f64| score * (1.0 + QUICK_ERROR) + lost;
        let (&(last, _), &(next, _)) = (ranked.get(keep.checked_sub(1)?)?, ranked.get(keep)?);
        if least(next) > most(last) {
            return None;
        }
        let (inside, outside) = ranked.split_at(keep);
        let (open, kept): (Vec<_>, Vec<_>) =
            inside.iter().partition(|(score, _)| most(*score) >= least(next));
        let beyond = outside.iter().filter(|(score, _)| least(*score) <= most(last));
        let keep = open.len();
        let mut rows: Vec<usize> = open.into_iter().chain(beyond).map(|(_, row)| *row).collect();
        rows.sort_unstable();
        Some(Unclear { kept: kept.into_iter().map(|(_, row)| *row).collect(), rows, keep })
    }

    /// The squared distances of an update to the others.
    pub(crate) fn distances(&self, row: usize) -> Vec<f64> {
        let others = (0..self.num_updates).filter(|other| *other != row);
        let place = |other: usize| pair_place(self.num_updates, row.min(other), row.max(other));
        others.filter_map(|other| self.squares.get(place(other))).map(total).collect()
    }

    pub(crate) fn overflow(&self) -> Error {
        let far = |row: &usize| !self.distances(*row).iter().sum::<f64>().is_finite();
        Error::DistanceOverflow { row: (0..self.num_updates).find(far).unwrap_or(0) }
    }
}

/// From so many updates on the exact pass is held up by arithmetic and a quick one pays.
const QUICK_ROWS_MIN: usize = 9;

/// The score of an update at these squared distances from the others: the sum of the nearest, from the smallest up.
fn score(mut distances: Vec<f64>, byzantine: u32) -> f64 {
    let byzantine = usize::try_from(byzantine).unwrap_or(usize::MAX);
    let num_nearest = (distances.len() + 1).saturating_sub(byzantine).saturating_sub(2);
    distances.sort_by(f64::total_cmp);
    distances.iter().take(num_nearest).sum()
}
