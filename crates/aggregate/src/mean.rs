//! The weighted mean: several rows in one pass over a block of columns, their sums in registers.
//!
//! # Numerics
//! Each coordinate is the f64 sum of `weight × value` in row order, product and sum rounded apart, divided once by the
//! sum of the weights. NaN and infinity propagate to their coordinate; finite values whose weighted sum exceeds the f64
//! range give an infinity. Rows that are all equal give back that row exactly where the products and sums are exact
//! (float32 and narrower with whole weights that sum to less than 2^29), else to rounding.

use sheaf_tensor::Dtype;
use sheaf_tensor::cpu::{Kernel, Level};

use crate::tile::{Element, with_element};

/// Writes the weighted mean of `rows` to `out`.
///
/// # Shapes
/// `rows: [K][P]`, `weights: [K]`, `out: [P]`, checked by the caller.
pub(crate) fn fold(level: Level, dtype: Dtype, rows: &[&[u8]], weights: &[f64], out: &mut [f64]) {
    with_element!(dtype, E => level.run(Mean::<E>::new(rows, weights, out)));
}

struct Mean<'a, E: Element> {
    rows: Vec<&'a [E::Raw]>,
    weights: &'a [f64],
    out: &'a mut [f64],
}

impl<'a, E: Element> Mean<'a, E> {
    fn new(rows: &[&'a [u8]], weights: &'a [f64], out: &'a mut [f64]) -> Mean<'a, E> {
        Mean { rows: rows.iter().map(|row| E::raw(row)).collect(), weights, out }
    }
}

impl<E: Element> Kernel for Mean<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let total: f64 = self.weights.iter().sum();
        let num_rows = self.rows.len();
        let groups = num_rows.div_ceil(ROWS_MAX);
        for (block_idx, block) in self.out.chunks_mut(BLOCK_LEN).enumerate() {
            let mut done = 0;
            for group_idx in 0..groups {
                let end = num_rows * (group_idx + 1) / groups;
                let group = Group {
                    rows: &self.rows[done..end],
                    weights: &self.weights[done..end],
                    opens: done == 0,
                    divisor: if end == num_rows { Some(total) } else { None },
                };
                group.add::<E>(block, block_idx * BLOCK_LEN);
                done = end;
            }
        }
    }
}

/// Some rows that follow one another.
struct Group<'a, R> {
    rows: &'a [&'a [R]],
    weights: &'a [f64],
    /// Whether they are the first, so that the sums begin with them.
    opens: bool,
    /// What the sums are divided by after the last.
    divisor: Option<f64>,
}

impl<R: Copy> Group<'_, R> {
    /// Adds the rows to the sums of the columns `from`…, which stay in registers from row to row.
    #[inline(always)]
    fn add<E: Element<Raw = R>>(&self, sums: &mut [f64], from: usize) {
        let (chunks, rest) = sums.as_chunks_mut::<STEP>();
        let mut column = from;
        for chunk in chunks {
            self.add_step::<E, STEP>(chunk, column);
            column += STEP;
        }
        for sum in rest {
            self.add_step::<E, 1>(std::array::from_mut(sum), column);
            column += 1;
        }
    }

    #[inline(always)]
    fn add_step<E: Element<Raw = R>, const N: usize>(&self, out: &mut [f64; N], column: usize) {
        let mut sums = if self.opens { [0.0; N] } else { *out };
        for (row, weight) in self.rows.iter().zip(self.weights) {
            // The rows are as long as the output.
            let Some(raw) = row.get(column..).and_then(|row| row.first_chunk::<N>()) else { continue };
            for lane in 0..N {
                sums[lane] += weight * E::value(raw[lane]);
            }
        }
        if let Some(divisor) = self.divisor {
            for sum in &mut sums {
                *sum /= divisor;
            }
        }
        *out = sums;
    }
}

/// How many rows are read side by side: as many streams as the processor fetches ahead.
const ROWS_MAX: usize = 12;
/// Columns taken at a time: their sums fit the registers.
const STEP: usize = 64;
/// Columns between two groups of rows: long runs of each row for the prefetcher, the sums in the second-level cache.
const BLOCK_LEN: usize = 16 * 1024;
