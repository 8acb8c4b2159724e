//! k-means of single numbers, without chance.
//!
//! # Numerics
//! It begins with the best clusters of at most [`BINS_MAX`] bins of neighbouring values, found by dynamic programming, and goes on with Lloyd's
//! steps on all values until nothing moves or [`STEPS_MAX`]; sums in float64. Each value goes to the nearest centre, to the lower one of two as
//! near. When there are no more distinct values than clusters, nothing is lost.
//!
//! Source: Wang and Song 2011, optimal k-means in one dimension.

/// The most steps.
const STEPS_MAX: usize = 64;
/// The most bins.
const BINS_MAX: usize = 512;

/// The centres that occur, ascending, and which each value goes to.
pub(super) fn cluster(values: &[f32], n_clusters: u32) -> (Vec<u32>, Vec<f32>) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let mut table = sorted.clone();
    table.dedup();
    let wanted = usize::try_from(n_clusters).unwrap_or(usize::MAX).clamp(1, BINS_MAX);
    if table.len() > wanted {
        table = centres(&sorted, &table, wanted);
        let mut occurs = vec![false; table.len()];
        for value in values {
            if let Some(occurs) = occurs.get_mut(nearest(&table, *value)) {
                *occurs = true;
            }
        }
        let mut occurs = occurs.into_iter();
        table.retain(|_| occurs.next().unwrap_or_default());
    }
    let codes = values.iter().map(|value| u32::try_from(nearest(&table, *value)).unwrap_or_default());
    (codes.collect(), table)
}

/// Sums of the values up to each place.
struct Sums {
    counts: Vec<f64>,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    /// Of sorted values, at these places and at the beginning.
    fn at(sorted: &[f32], places: &[usize]) -> Sums {
        let mut found = Sums { counts: vec![0.0], sums: vec![0.0], squares: vec![0.0] };
        let (mut count, mut sum, mut square, mut from) = (0.0, 0.0, 0.0, 0);
        for place in places {
            for value in sorted.get(from..*place).unwrap_or_default() {
                let value = f64::from(*value);
                (count, sum, square) = (count + 1.0, sum + value, square + value * value);
            }
            from = *place;
            found.counts.push(count);
            found.sums.push(sum);
            found.squares.push(square);
        }
        found
    }

    fn between(sums: &[f64], from: usize, to: usize) -> f64 {
        sums.get(to).copied().unwrap_or_default() - sums.get(from).copied().unwrap_or_default()
    }

    fn mean(&self, from: usize, to: usize) -> f64 {
        Sums::between(&self.sums, from, to) / Sums::between(&self.counts, from, to)
    }

    /// What is lost when the values between are one.
    fn loss(&self, from: usize, to: usize) -> f64 {
        let sum = Sums::between(&self.sums, from, to);
        Sums::between(&self.squares, from, to) - sum * sum / Sums::between(&self.counts, from, to)
    }
}

/// The means of the best `wanted` clusters of bins, ascending. There are more distinct values than clusters.
fn start(sorted: &[f32], distinct: &[f32], wanted: usize) -> Vec<f32> {
    let bins = distinct.len().min(BINS_MAX);
    let places: Vec<usize> = (1..=bins)
        .filter_map(|bin| distinct.get(bin * distinct.len() / bins - 1))
        .map(|last| sorted.partition_point(|value| value.total_cmp(last).is_le()))
        .collect();
    let sums = Sums::at(sorted, &places);
    let mut losses: Vec<f64> = (0..=bins).map(|to| if to == 0 { 0.0 } else { sums.loss(0, to) }).collect();
    let mut cuts: Vec<Vec<usize>> = Vec::with_capacity(wanted);
    for clusters in 2..=wanted {
        let mut next = vec![f64::INFINITY; bins + 1];
        let mut cut = vec![0; bins + 1];
        for to in clusters..=bins {
            for from in clusters - 1..to {
                let loss = losses.get(from).copied().unwrap_or(f64::INFINITY) + sums.loss(from, to);
                if let (Some(best), Some(place)) = (next.get_mut(to), cut.get_mut(to))
                    && loss < *best
                {
                    (*best, *place) = (loss, from);
                }
            }
        }
        losses = next;
        cuts.push(cut);
    }
    let mut to = bins;
    let mut means = Vec::with_capacity(wanted);
    for cut in cuts.iter().rev().chain([&vec![0; bins + 1]]) {
        let from = cut.get(to).copied().unwrap_or_default();
        if from < to {
            #[expect(clippy::cast_possible_truncation, reason = "a mean of float32")]
            means.push(sums.mean(from, to) as f32);
        }
        to = from;
    }
    means.sort_by(f32::total_cmp);
    means.dedup();
    means
}

fn centres(sorted: &[f32], distinct: &[f32], wanted: usize) -> Vec<f32> {
    let mut centres = start(sorted, distinct, wanted);
    for _ in 0..STEPS_MAX {
        let borders = centres.windows(2).map(|two| match two {
            [a, b] => f64::midpoint(f64::from(*a), f64::from(*b)),
            _ => f64::INFINITY,
        });
        let mut places: Vec<usize> =
            borders.map(|border| sorted.partition_point(|value| f64::from(*value) <= border)).collect();
        places.push(sorted.len());
        let sums = Sums::at(sorted, &places);
        let moved: Vec<f32> = centres
            .iter()
            .enumerate()
            .map(|(k, centre)| {
                let mean = sums.mean(k, k + 1);
                #[expect(clippy::cast_possible_truncation, reason = "a mean of float32")]
                if mean.is_nan() { *centre } else { mean as f32 }
            })
            .collect();
        if moved == centres {
            break;
        }
        centres = moved;
        centres.sort_by(f32::total_cmp);
        centres.dedup();
    }
    centres
}

fn nearest(table: &[f32], value: f32) -> usize {
    let above = table.partition_point(|centre| centre.total_cmp(&value).is_lt());
    let distance = |at: usize| {
        table.get(at).map_or(f64::INFINITY, |centre| (f64::from(*centre) - f64::from(value)).abs())
    };
    let below = above.saturating_sub(1);
    if distance(above) < distance(below) { above } else { below.min(table.len().saturating_sub(1)) }
}
