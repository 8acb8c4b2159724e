//! The largest magnitudes of a tensor, and the three values that ternary compression makes of them.
//!
//! # Numerics
//! As upstream: what is kept is float32, its mean magnitude is taken over all elements in float64, pairwise as NumPy adds. Which of
//! several elements of the same magnitude are kept is upstream's sort's business; here the later ones are.
//!
//! Source: Sattler et al. 2019, sparse ternary compression; order of operations observed in openfl 1.9.

use std::cmp::Ordering;

/// What upstream adds to keep what was kept apart from zero.
const OFFSET: f32 = 10e-8;

/// Zero but for the `p_sparsity` largest magnitudes.
///
/// Held beside the values: four bytes an element while the smallest that is kept is looked for.
pub(super) fn sparse(mut values: Vec<f32>, p_sparsity: f64) -> Vec<f32> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length"
    )]
    let kept = ((values.len() as f64 * p_sparsity).ceil() as usize).min(values.len());
    // The bits of magnitudes are ordered as `total_cmp` orders them.
    let magnitude = |value: f32| value.abs().to_bits();
    let mut magnitudes: Vec<u32> = values.iter().map(|value| magnitude(*value)).collect();
    let Some(first) = values.len().checked_sub(kept).filter(|first| *first < values.len()) else {
        values.fill(0.0);
        return values;
    };
    let (_, &mut least, larger) = magnitudes.select_nth_unstable(first);
    // Of those as large as the least that is kept, the later ones are kept.
    let mut equal = kept - larger.iter().filter(|magnitude| **magnitude > least).count();
    drop(magnitudes);
    let mut lowest = f32::INFINITY;
    for value in values.iter_mut().rev() {
        let is_kept = match magnitude(*value).cmp(&least) {
            Ordering::Greater => true,
            Ordering::Equal if equal > 0 => {
                equal -= 1;
                true
            }
            _ => false,
        };
        // A model has no NaN: it stands for what is not kept until the offset is known.
        if is_kept {
            lowest = lowest.min(*value);
        } else {
            *value = f32::NAN;
        }
    }
    let offset = if lowest < OFFSET { OFFSET } else { 0.0 };
    for value in &mut values {
        *value = if value.is_nan() { 0.0 } else { *value + offset };
    }
    values
}

/// The codes of minus the mean, zero and the mean, and the table of those that occur.
pub(super) fn ternary(values: &[f32]) -> (Vec<u32>, Vec<f32>) {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "what travels is float32"
    )]
    let mean = (pairwise_sum(values) / values.len().max(1) as f64) as f32;
    let sign = |value: &f32| -> usize {
        if *value > 0.0 { 2 } else { usize::from(*value >= 0.0 || value.is_nan()) }
    };
    let mut occurs = [false; 3];
    for value in values {
        if let Some(occurs) = occurs.get_mut(sign(value)) {
            *occurs = true;
        }
    }
    let table: Vec<(usize, f32)> = [-mean, 0.0, mean]
        .into_iter()
        .enumerate()
        .filter(|(place, _)| occurs.get(*place).copied().unwrap_or_default())
        .collect();
    let codes = values.iter().map(|value| {
        (0u32..).zip(&table).find(|(_, (place, _))| *place == sign(value)).map_or(0, |(code, _)| code)
    });
    (codes.collect(), table.into_iter().map(|(_, value)| value).collect())
}

/// The sum of magnitudes as NumPy adds float64: eight running sums in blocks of 128, blocks two by two.
fn pairwise_sum(values: &[f32]) -> f64 {
    if values.len() > 128 {
        let half = values.len() / 2;
        let (left, right) = values.split_at(half - half % 8);
        return pairwise_sum(left) + pairwise_sum(right);
    }
    let magnitude = |value: &f32| f64::from(value.abs());
    let (eights, rest) = values.as_chunks::<8>();
    let mut sum = match eights.split_first() {
        None => 0.0,
        Some((first, more)) => {
            let mut sums = first.each_ref().map(magnitude);
            for eight in more {
                sums.iter_mut().zip(eight).for_each(|(sum, value)| *sum += magnitude(value));
            }
            let [a, b, c, d, e, f, g, h] = sums;
            ((a + b) + (c + d)) + ((e + f) + (g + h))
        }
    };
    for value in rest {
        sum += magnitude(value);
    }
    sum
}

#[cfg(test)]
mod tests {
    use sheaf_domain::rng::SeededRng;

    use super::*;

    /// By a stable sort of all elements.
    fn sorted(values: &[f32], kept: usize) -> Vec<f32> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs()));
        let top = order.split_off(values.len() - kept);
        let lowest = top.iter().map(|at| values[*at]).fold(f32::INFINITY, f32::min);
        let offset = if lowest < OFFSET { OFFSET } else { 0.0 };
        let mut out = vec![0.0; values.len()];
        for at in top {
            out[at] = values[at] + offset;
        }
        out
    }

    #[test]
    fn what_is_kept_are_the_largest_and_of_equal_ones_the_later() {
        // Few different magnitudes, so that many are equal.
        let some = [0.0, -0.0, 1.0, -1.0, 0.5, -0.25, 2.0, 1e-9];
        let mut rng = SeededRng::new(5, "sparse");
        for len in 0..200_usize {
            let values: Vec<f32> =
                (0..len).map(|_| some[usize::try_from(rng.below(some.len() as u64)).unwrap()]).collect();
            for (p_sparsity, kept) in [(0.0, 0), (0.25, len.div_ceil(4)), (0.5, len.div_ceil(2)), (1.0, len)]
            {
                assert_eq!(
                    sparse(values.clone(), p_sparsity),
                    sorted(&values, kept),
                    "{p_sparsity} of {values:?}"
                );
            }
        }
    }
}
