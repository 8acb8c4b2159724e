//! Sums of squared differences that come out the same however a stream of elements is cut into tiles.
//!
//! Element number `i` of the stream (counted over all tensors of the prepass) is added to sum `i mod 8`; the eight
//! sums are added in order at the end. Which sum an element goes to therefore never depends on the tiles, and the
//! inner loop runs over eight independent sums.

use sheaf_tensor::Dtype;

use crate::tile::{Element, with_element};

/// Eight interleaved sums.
pub(crate) type Lanes = [f64; NUM_LANES];

/// Adds `(a - b)²` to `lanes`; the first element goes to sum number `lane`.
pub(crate) fn add_squares(lanes: &mut Lanes, lane: usize, a: &[f64], b: &[f64]) {
    if lane != 0 {
        let places = (lane..NUM_LANES).chain((0..NUM_LANES).cycle());
        for (place, (x, y)) in places.zip(a.iter().zip(b)) {
            lanes[place] += (x - y) * (x - y);
        }
        return;
    }
    let (a, a_rest) = a.as_chunks::<NUM_LANES>();
    let (b, b_rest) = b.as_chunks::<NUM_LANES>();
    let mut sums = *lanes;
    for (a, b) in a.iter().zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += (x - y) * (x - y);
        }
    }
    for ((sum, x), y) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum += (x - y) * (x - y);
    }
    *lanes = sums;
}

/// The sum over all elements.
pub(crate) fn total(lanes: &Lanes) -> f64 {
    lanes.iter().sum()
}

/// Whether no NaN and no infinity has come in.
pub(crate) fn is_finite(lanes: &Lanes) -> bool {
    lanes.iter().all(|sum| sum.is_finite())
}

/// Where in the stream of elements the prepass is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Walk {
    lane: usize,
}

impl Walk {
    /// Hands the next tile to `visit` as blocks of f64 rows, each with the lane of its first element.
    pub(crate) fn blocks(&mut self, dtype: Dtype, rows: &[&[u8]], visit: impl FnMut(usize, &[Vec<f64>])) {
        with_element!(dtype, E => self.element_blocks::<E>(rows, visit));
    }

    fn element_blocks<E: Element>(&mut self, rows: &[&[u8]], mut visit: impl FnMut(usize, &[Vec<f64>])) {
        let len = rows.first().map_or(0, |row| E::raw(row).len());
        // A short first block, so that all others begin at lane 0.
        let head_len = ((NUM_LANES - self.lane) % NUM_LANES).min(len);
        let mut block: Vec<Vec<f64>> = rows.iter().map(|_| Vec::with_capacity(BLOCK_LEN)).collect();
        let (heads, bodies): (Vec<_>, Vec<_>) = rows.iter().map(|row| E::raw(row).split_at(head_len)).unzip();
        if head_len > 0 {
            for (values, head) in block.iter_mut().zip(heads) {
                values.extend(head.iter().map(|raw| E::value(*raw)));
            }
            visit(self.lane, &block);
        }
        let mut bodies: Vec<_> = bodies.iter().map(|body| body.chunks(BLOCK_LEN)).collect();
        for _ in 0..(len - head_len).div_ceil(BLOCK_LEN) {
            for (values, body) in block.iter_mut().zip(&mut bodies) {
                values.clear();
                values.extend(body.next().unwrap_or_default().iter().map(|raw| E::value(*raw)));
            }
            visit(0, &block);
        }
        self.lane = (self.lane + len) % NUM_LANES;
    }
}

const NUM_LANES: usize = 8;
/// A multiple of [`NUM_LANES`].
const BLOCK_LEN: usize = 256;
