//! The largest magnitudes of a tensor, and the three values that ternary compression makes of them.
//!
//! # Numerics
//! As upstream: what is kept is float32, its mean magnitude is taken over all elements in float64, pairwise as NumPy adds. Which of
//! several elements of the same magnitude are kept is upstream's sort's business; here the later ones are.
//!
//! Source: Sattler et al. 2019, sparse ternary compression; order of operations observed in openfl 1.9.

/// What upstream adds to keep what was kept apart from zero.
const OFFSET: f32 = 10e-8;

/// Zero but for the `p_sparsity` largest magnitudes.
pub(super) fn sparse(values: &[f32], p_sparsity: f64) -> Vec<f32> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length"
    )]
    let kept = ((values.len() as f64 * p_sparsity).ceil() as usize).min(values.len());
    let mut order: Vec<usize> = (0..values.len()).collect();
    let magnitude = |at: &usize| values.get(*at).map_or(0.0, |value| value.abs());
    order.sort_by(|a, b| magnitude(a).total_cmp(&magnitude(b)));
    let top = order.split_off(values.len() - kept);
    let lowest = top.iter().filter_map(|at| values.get(*at)).copied().fold(f32::INFINITY, f32::min);
    let offset = if lowest < OFFSET { OFFSET } else { 0.0 };
    let mut out = vec![0.0; values.len()];
    for at in top {
        if let (Some(to), Some(from)) = (out.get_mut(at), values.get(at)) {
            *to = from + offset;
        }
    }
    out
}

/// The codes of minus the mean, zero and the mean, and the table of those that occur.
pub(super) fn ternary(values: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let magnitudes: Vec<f64> = values.iter().map(|value| f64::from(value.abs())).collect();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "what travels is float32"
    )]
    let mean = (pairwise_sum(&magnitudes) / values.len().max(1) as f64) as f32;
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

/// The sum as NumPy adds float64: eight running sums in blocks of 128, blocks two by two.
fn pairwise_sum(values: &[f64]) -> f64 {
    if values.len() > 128 {
        let half = values.len() / 2;
        let (left, right) = values.split_at(half - half % 8);
        return pairwise_sum(left) + pairwise_sum(right);
    }
    let (eights, rest) = values.as_chunks::<8>();
    let mut sum = match eights.split_first() {
        None => 0.0,
        Some((first, more)) => {
            let mut sums = *first;
            for eight in more {
                sums.iter_mut().zip(eight).for_each(|(sum, value)| *sum += value);
            }
            let [a, b, c, d, e, f, g, h] = sums;
            ((a + b) + (c + d)) + ((e + f) + (g + h))
        }
    };
    for value in rest {
        sum += value;
    }
    sum
}
