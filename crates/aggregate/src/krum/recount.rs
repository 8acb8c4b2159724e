//! The exact pass over those that the quick one could not tell apart: only their distances to all others are measured again.
//!
//! Refuses nothing of its own: the quick pass before it has seen that every value is finite and no sum overflows.

use sheaf_tensor::cpu::Level;

use super::score;
use crate::TileSet;
use crate::squares::{Lanes, add_from_some, total};
use crate::staging::Staging;
use crate::tile::{Element, with_element};

/// What the quick pass left open.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unclear {
    /// Updates that are kept whatever an exact pass says.
    pub(super) kept: Vec<usize>,
    /// Those of which some are kept, in canonical order.
    pub(super) rows: Vec<usize>,
    /// How many of these.
    pub(super) keep: usize,
}

/// Exact distances of the unclear updates.
#[derive(Debug, Clone)]
pub(crate) struct Recount {
    unclear: Unclear,
    num_updates: usize,
    /// The distances of each unclear update to all updates, itself among them.
    squares: Vec<Lanes>,
    wide: Staging<f64>,
}

impl Recount {
    pub(crate) fn new(num_updates: usize, unclear: Unclear) -> Recount {
        let squares = vec![Lanes::default(); unclear.rows.len() * num_updates];
        Recount { unclear, num_updates, squares, wide: Staging::new(num_updates) }
    }

    /// How many bytes it holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        size_of_val(&self.squares[..]) as u64 + self.wide.held_bytes()
    }

    /// Takes in the next tile.
    pub(crate) fn observe(&mut self, level: Level, tiles: &TileSet<'_>) {
        with_element!(tiles.dtype, E => self.take::<E>(level, tiles));
    }

    fn take<E: Element>(&mut self, level: Level, tiles: &TileSet<'_>) {
        let (some, squares) = (&self.unclear.rows, &mut self.squares);
        self.wide
            .take::<E>(level, tiles.rows, |block, ahead| add_from_some(level, some, block, ahead, squares));
    }

    /// Who is kept, in canonical order.
    pub(crate) fn choose(&mut self, level: Level, byzantine: u32) -> Vec<usize> {
        let (some, squares) = (&self.unclear.rows, &mut self.squares);
        self.wide.finish(|block, ahead| add_from_some(level, some, block, ahead, squares));
        let distances = self.squares.chunks_exact(self.num_updates);
        let scored = self.unclear.rows.iter().zip(distances).map(|(row, distances)| {
            let others = distances.iter().enumerate().filter(|(other, _)| other != row);
            (score(others.map(|(_, lanes)| total(lanes)).collect(), byzantine), *row)
        });
        let mut ranked: Vec<(f64, usize)> = scored.collect();
        // Stable: equal scores stay in canonical order.
        ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut kept = self.unclear.kept.clone();
        kept.extend(ranked.into_iter().take(self.unclear.keep).map(|(_, row)| row));
        kept.sort_unstable();
        kept
    }
}
