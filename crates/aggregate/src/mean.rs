//! The weighted mean: one pass over the rows, block by block, so that the sums stay in the first-level cache.
//!
//! # Numerics
//! Each coordinate is the f64 sum of `weight × value` in row order, divided once by the sum of the weights. NaN
//! and infinity propagate to their coordinate; finite values whose weighted sum exceeds the f64 range give an
//! infinity. Rows that are all equal give back that row exactly where the products and sums are exact (float32
//! and narrower with whole weights that sum to less than 2^29), else to rounding.

use sheaf_tensor::Dtype;

use crate::tile::{Element, with_element};

/// Writes the weighted mean of `rows` to `out`.
///
/// # Shapes
/// `rows: [K][P]`, `weights: [K]`, `out: [P]`, checked by the caller.
pub(crate) fn fold(dtype: Dtype, rows: &[&[u8]], weights: &[f64], out: &mut [f64]) {
    with_element!(dtype, E => fold_elements::<E>(rows, weights, out));
}

fn fold_elements<E: Element>(rows: &[&[u8]], weights: &[f64], out: &mut [f64]) {
    let total: f64 = weights.iter().sum();
    let mut rows: Vec<_> = rows.iter().map(|row| E::raw(row).chunks(BLOCK_LEN)).collect();
    for sums in out.chunks_mut(BLOCK_LEN) {
        sums.fill(0.0);
        for (row, weight) in rows.iter_mut().zip(weights) {
            let block = row.next().unwrap_or_default();
            for (sum, raw) in sums.iter_mut().zip(block) {
                *sum += weight * E::value(*raw);
            }
        }
        for sum in sums {
            *sum /= total;
        }
    }
}

const BLOCK_LEN: usize = 1024;
