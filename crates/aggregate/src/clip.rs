//! The norm-clipped mean: distances from the current model, the scales they lead to, and the scaled mean.
//!
//! # Numerics
//! Squared differences are summed in f64 in eight interleaved sums, whatever the tile length. An update exactly at
//! the current model (distance 0) is not scaled. A NaN or an infinity stops the prepass and is named; one that
//! first shows up while folding propagates to its coordinate.

use sheaf_tensor::cpu::{Kernel, Level};

use crate::squares::{Lanes, add_from_first, total};
use crate::staging::Staging;
use crate::tile::{Element, with_element};
use crate::{Clip, Error, TileSet};

/// The squared distance of every update from the current model, as far as it has been seen.
#[derive(Debug, Clone)]
pub(crate) struct Norms {
    squares: Vec<Lanes>,
    /// The current model, then the updates.
    staging: Staging<f64>,
}

impl Norms {
    pub(crate) fn new(num_updates: usize) -> Norms {
        Norms { squares: vec![Lanes::default(); num_updates], staging: Staging::new(num_updates + 1) }
    }

    /// Takes in the next tile.
    pub(crate) fn observe(&mut self, level: Level, tiles: &TileSet<'_>) -> Result<(), Error> {
        let base = tiles.base.ok_or(Error::MissingBase)?;
        let mut rows = Vec::with_capacity(tiles.rows.len() + 1);
        rows.push(base);
        rows.extend_from_slice(tiles.rows);
        let squares = &mut self.squares;
        let within = with_element!(tiles.dtype, E => {
            self.staging.take::<E>(level, &rows, |block, ahead| add_from_first(level, block, ahead, squares))
        });
        match within {
            true => Ok(()),
            false => Err(tiles.non_finite().unwrap_or(Error::MissingBase)),
        }
    }

    /// How many bytes it holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        size_of_val(&self.squares[..]) as u64 + self.staging.held_bytes()
    }

    /// Takes in the elements that do not fill a block.
    pub(crate) fn finish(&mut self, level: Level) {
        let squares = &mut self.squares;
        self.staging.finish(|block, ahead| add_from_first(level, block, ahead, squares));
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
    level: Level,
    tiles: &TileSet<'_>,
    coefficients: &[f64],
    total: f64,
    out: &mut [f64],
) -> Result<(), Error> {
    let base = tiles.base.ok_or(Error::MissingBase)?;
    with_element!(tiles.dtype, E => {
        let rows = tiles.rows.iter().map(|row| E::raw(row)).collect();
        level.run(Clipped::<E> { rows, base: E::raw(base), coefficients, total, out });
    });
    Ok(())
}

struct Clipped<'a, E: Element> {
    rows: Vec<&'a [E::Raw]>,
    base: &'a [E::Raw],
    coefficients: &'a [f64],
    total: f64,
    out: &'a mut [f64],
}

impl<E: Element> Kernel for Clipped<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (steps, rest) = self.out.as_chunks_mut::<STEP>();
        let mut column = 0;
        for out in steps {
            fold_step::<E, STEP>(&self.rows, self.base, self.coefficients, self.total, column, out);
            column += STEP;
        }
        for out in rest {
            let out = std::array::from_mut(out);
            fold_step::<E, 1>(&self.rows, self.base, self.coefficients, self.total, column, out);
            column += 1;
        }
    }
}

/// Folds `N` columns, their sums in registers from row to row.
#[inline(always)]
fn fold_step<E: Element, const N: usize>(
    rows: &[&[E::Raw]],
    base: &[E::Raw],
    coefficients: &[f64],
    total: f64,
    column: usize,
    out: &mut [f64; N],
) {
    let run = |row: &[E::Raw]| row.get(column..).and_then(|row| row.first_chunk::<N>()).copied();
    // Base and rows are as long as the output.
    let Some(base) = run(base) else { return };
    let base: [f64; N] = std::array::from_fn(|lane| E::value(base[lane]));
    let mut sums = [0.0; N];
    for (row, coefficient) in rows.iter().zip(coefficients) {
        let Some(row) = run(row) else { continue };
        for lane in 0..N {
            sums[lane] += coefficient * (E::value(row[lane]) - base[lane]);
        }
    }
    for lane in 0..N {
        out[lane] = base[lane] + sums[lane] / total;
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    f64::midpoint(lower, upper)
}

/// Columns taken at a time: their sums and the base's values fit the registers.
const STEP: usize = 32;
