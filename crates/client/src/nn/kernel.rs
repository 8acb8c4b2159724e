//! The inner loops, over plain slices.
//!
//! # Numerics
//! f64; the order of every sum is fixed by the source: dot products add in eight lanes, which are added pairwise.

const LANES: usize = 8;

/// The dot product of slices of equal length.
pub(super) fn dot(one: &[f64], other: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (one_blocks, other_blocks) = (one.chunks_exact(LANES), other.chunks_exact(LANES));
    let rest: f64 = one_blocks.remainder().iter().zip(other_blocks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in one_blocks.zip(other_blocks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h)) + rest
}

/// `out += factor · values`.
pub(super) fn add_scaled(out: &mut [f64], factor: f64, values: &[f64]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += factor * value;
    }
}

/// Turns logits into probabilities in place, and gives the cross-entropy of `label` (in nats).
///
/// Shifted by the greatest logit, so that nothing overflows.
pub(super) fn softmax(logits: &mut [f64], label: usize) -> f64 {
    let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let of_label = logits.get(label).copied().unwrap_or(f64::NAN) - greatest;
    let mut total = 0.0;
    for logit in logits.iter_mut() {
        *logit = (*logit - greatest).exp();
        total += *logit;
    }
    for logit in logits.iter_mut() {
        *logit /= total;
    }
    total.ln() - of_label
}

/// The position of the greatest value; the first of equal ones.
pub(super) fn argmax(values: &[f64]) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (idx, value) in values.iter().enumerate() {
        if *value > best.1 {
            best = (idx, *value);
        }
    }
    best.0
}
