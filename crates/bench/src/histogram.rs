//! A histogram of times in fixed memory: 64 buckets to a power of two, so a percentile is at most 1.6 % off.

use std::time::Duration;

/// Buckets to a power of two.
const STEPS: u64 = 64;
/// The same, as a count in memory.
const STEPS_LEN: usize = 64;
/// Powers of two above the linear part; together they reach beyond a day in microseconds.
const POWERS: usize = 32;

/// Counts of times.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; STEPS_LEN * (POWERS + 1)], total: 0, max_us: 0 }
    }
}

impl Histogram {
    /// Counts one time; those beyond a day count as the greatest.
    pub fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let idx = bucket(us).min(self.counts.len() - 1);
        if let Some(count) = self.counts.get_mut(idx) {
            *count += 1;
        }
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many times were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The greatest time, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    pub fn max_ms(&self) -> f64 {
        self.max_us as f64 / 1e3
    }

    /// The time that `share` of all do not exceed, in milliseconds; 0 when there are none.
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = share.clamp(0.0, 1.0) * self.total as f64;
        let mut seen = 0;
        for (idx, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return upper_us(idx).min(self.max_us) as f64 / 1e3;
            }
        }
        self.max_ms()
    }
}

/// Below `2 × STEPS` a bucket is a microsecond; above, a power of two has `STEPS` buckets.
fn bucket(us: u64) -> usize {
    let power = u64::from((us / STEPS).checked_ilog2().unwrap_or(0));
    let idx = if us < STEPS { us } else { STEPS * power + (us >> power) };
    usize::try_from(idx).unwrap_or(usize::MAX)
}

/// The greatest time of a bucket.
fn upper_us(idx: usize) -> u64 {
    let idx = idx as u64;
    if idx < 2 * STEPS {
        return idx;
    }
    let power = idx / STEPS - 1;
    ((idx - STEPS * power + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_a_bucket_whose_end_is_near() {
        let mut before = 0;
        for us in (0..5_000).chain((13..40).map(|power| (1 << power) + 17)) {
            let idx = bucket(us);
            let end = upper_us(idx);
            assert!(idx >= before && end >= us && end - us <= us / 60 + 1, "{us} in {idx} until {end}");
            before = idx;
        }
    }

    #[test]
    fn quantiles_are_of_all_that_was_merged() {
        let (mut low, mut high) = (Histogram::default(), Histogram::default());
        (1..=90).for_each(|ms| low.record(Duration::from_millis(ms)));
        (91..=100).for_each(|ms| high.record(Duration::from_millis(ms)));
        low.merge(&high);
        assert_eq!(low.total(), 100);
        let (p50, p99) = (low.quantile_ms(0.5), low.quantile_ms(0.99));
        assert!((49.0..=52.0).contains(&p50) && (98.0..=101.0).contains(&p99), "{p50} {p99}");
        assert!((low.max_ms() - 100.0).abs() < 1e-9);
        assert!(Histogram::default().quantile_ms(0.5).abs() < 1e-9);
    }
}
