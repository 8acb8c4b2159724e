//! The geometric median: the coefficients of the weighted mean that it is, found from the distances between updates.
//!
//! Every step of the Weiszfeld algorithm is at a weighted mean of the updates, `y = Σ a_j x_j` with `Σ a_j = 1`, and how far an update is
//! from it follows from how far they are from one another: `|x_i − y|² = Σ_j a_j d_ij² − ½ Σ_jl a_j a_l d_jl²`. So one pass over all
//! elements is enough, however many steps there are.
//!
//! # Numerics
//! As upstream: the first point is the weighted mean. Each of at most four steps divides the coefficients *before* it by the distances
//! from the point, taken as 1e-5 at least, and by their sum; it is the last where the objective `Σ a_i |x_i − y|`, with the new
//! coefficients, changes by less than 1e-6 of itself. f64 in canonical order; a squared distance that comes out below zero is zero.
//! Distances that overflow are refused. Memory: as for the exact pass of Krum, then a coefficient an update.
//!
//! # Source
//! Pillutla 2019, "Robust Aggregation for Federated Learning" (<https://arxiv.org/abs/1912.13445>), algorithm 2: `nu` is
//! [`DISTANCE_MIN`], `R` is [`STEPS_MAX`]. Where openfl 1.9 (`geometric_median`) parts from it, that is followed: the paper divides
//! the given weights in every step, openfl those of the step before.

use crate::Error;
use crate::krum::Pairs;

const STEPS_MAX: usize = 4;
const DISTANCE_MIN: f64 = 1e-5;
const CHANGE_MIN: f64 = 1e-6;

/// The coefficient of every update.
///
/// # Errors
/// [`Error::DistanceOverflow`].
pub(crate) fn coefficients(pairs: &Pairs, weights: &[f64]) -> Result<Vec<f64>, Error> {
    let mut coefficients = weights.to_vec();
    normalise(&mut coefficients);
    let mut objective = f64::INFINITY;
    for _ in 0..STEPS_MAX {
        let distances = from_mean(pairs, &coefficients)?;
        let before = objective;
        objective =
            coefficients.iter().zip(&distances).map(|(coefficient, distance)| coefficient * distance).sum();
        if (before - objective).abs() < CHANGE_MIN * objective {
            break;
        }
        for (coefficient, distance) in coefficients.iter_mut().zip(distances) {
            *coefficient /= distance.max(DISTANCE_MIN);
        }
        normalise(&mut coefficients);
    }
    Ok(coefficients)
}

fn normalise(coefficients: &mut [f64]) {
    let sum: f64 = coefficients.iter().sum();
    for coefficient in coefficients {
        *coefficient /= sum;
    }
}

/// How far each update is from the mean with these coefficients.
fn from_mean(pairs: &Pairs, coefficients: &[f64]) -> Result<Vec<f64>, Error> {
    let others = |row: usize| coefficients.iter().enumerate().filter(move |(other, _)| *other != row);
    let sum = |row| {
        others(row).zip(pairs.distances(row)).map(|((_, coefficient), square)| coefficient * square).sum()
    };
    let sums: Vec<f64> = (0..coefficients.len()).map(sum).collect();
    let spread =
        coefficients.iter().zip(&sums).map(|(coefficient, sum)| coefficient * sum).sum::<f64>() / 2.0;
    if !spread.is_finite() {
        return Err(pairs.overflow());
    }
    Ok(sums.iter().map(|sum| (sum - spread).max(0.0).sqrt()).collect())
}
