//! The weighted mean and the sum in float32, as programs compute them that have nothing else.
//!
//! # Numerics
//! The weights are divided by their sum in f64 first. Then, in row order and starting from +0: each value is rounded to float32, multiplied
//! by its share rounded to float32, and added; the sum is divided by the f64 sum of the shares, rounded to float32. Every
//! product, sum and quotient is rounded to float32 by itself. A sum is the same with shares of one. NaN and infinity propagate to their coordinate.
//!
//! # Source
//! Observed with openfl 1.9 on NumPy 2.2 (`WeightedAverage`, `FedCurvWeightedAverage`), and the same wherever float32 arrays meet Python's numbers there.

use sheaf_tensor::Dtype;
use sheaf_tensor::cpu::{Kernel, Level};

use crate::tile::{Element, with_element};

/// Columns taken at a time.
const STEP: usize = 64;

/// Writes the mean of `rows` to `out`.
///
/// # Shapes
/// `rows: [K][P]`, `weights: [K]`, `out: [P]`, checked by the caller.
pub(crate) fn fold(level: Level, dtype: Dtype, rows: &[&[u8]], weights: &[f64], out: &mut [f64]) {
    with_element!(dtype, E => level.run(Mean::<E>::new(rows, weights, out)));
}

/// Writes the sum of `rows` to `out`.
///
/// # Shapes
/// `rows: [K][P]`, `out: [P]`, checked by the caller.
pub(crate) fn sum(level: Level, dtype: Dtype, rows: &[&[u8]], out: &mut [f64]) {
    with_element!(dtype, E => level.run(Mean::<E>::sum(rows, out)));
}

struct Mean<'a, E: Element> {
    rows: Vec<&'a [E::Raw]>,
    shares: Vec<f32>,
    total: f32,
    out: &'a mut [f64],
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to float32 is what this is for")]
fn single(value: f64) -> f32 {
    value as f32
}

impl<'a, E: Element> Mean<'a, E> {
    fn new(rows: &[&'a [u8]], weights: &[f64], out: &'a mut [f64]) -> Mean<'a, E> {
        let sum: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        Mean {
            rows: rows.iter().map(|row| E::raw(row)).collect(),
            total: single(shares.iter().sum()),
            shares: shares.into_iter().map(single).collect(),
            out,
        }
    }

    /// Multiplied and divided by one, which changes no bit.
    fn sum(rows: &[&'a [u8]], out: &'a mut [f64]) -> Mean<'a, E> {
        let rows: Vec<&[E::Raw]> = rows.iter().map(|row| E::raw(row)).collect();
        Mean { shares: vec![1.0; rows.len()], total: 1.0, rows, out }
    }

    #[inline(always)]
    fn step<const N: usize>(&self, out: &mut [f64; N], column: usize) {
        let mut sums = [0.0_f32; N];
        for (row, share) in self.rows.iter().zip(&self.shares) {
            // The rows are as long as the output.
            let Some(raw) = row.get(column..).and_then(|row| row.first_chunk::<N>()) else { continue };
            for lane in 0..N {
                sums[lane] += single(E::value(raw[lane])) * share;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = f64::from(sum / self.total);
        }
    }
}

impl<E: Element> Kernel for Mean<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let out = std::mem::take(&mut self.out);
        let (chunks, rest) = out.as_chunks_mut::<STEP>();
        let mut column = 0;
        for chunk in chunks {
            self.step::<STEP>(chunk, column);
            column += STEP;
        }
        for value in rest {
            self.step::<1>(std::array::from_mut(value), column);
            column += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(rows: &[&[f32]], weights: &[f64]) -> Vec<f32> {
        let bytes: Vec<Vec<u8>> =
            rows.iter().map(|row| row.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
        let rows: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        let mut out = vec![0.0; rows[0].len() / 4];
        fold(Level::best(), Dtype::F32, &rows, weights, &mut out);
        out.into_iter().map(single).collect()
    }

    /// What NumPy 2.2 gives for `sum(t * w for …) / sum(w)` of float32 arrays and Python's floats.
    #[test]
    fn it_rounds_where_numpy_does() {
        let rows: [&[f32]; 3] =
            [&[0.1, -0.0, 1e-3, 16_777_216.0], &[0.7, -0.0, 3.3, 1.0], &[0.2, -0.0, -7.7, 3.0]];
        let found = mean(&rows, &[3.0, 4.0, 6.0]);
        let expected = [0.330_769_24_f32, 0.0, -2.538_230_7, 3_871_667.0];
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&expected), "{found:?}");
    }

    #[test]
    fn columns_do_not_depend_on_one_another() {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let row = |factor: usize| (0..200).map(|at| (at * factor % 97) as f32 / 7.0).collect::<Vec<f32>>();
        let (a, b) = (row(31), row(57));
        let whole = mean(&[&a, &b], &[2.0, 5.0]);
        for at in 0..200 {
            assert_eq!(mean(&[&a[at..=at], &b[at..=at]], &[2.0, 5.0]), [whole[at]]);
        }
    }
}
