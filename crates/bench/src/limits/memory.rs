//! How fast memory is read: sums over windows of more bytes than any cache holds, on one thread or several; the fastest window counts.
//!
//! A window takes a few milliseconds, so that some of them fall between what others do on the machine.

use std::time::Duration;

use sheaf_runtime::SystemClock;

use super::GB;
use crate::process::thread_cpu;

/// Words of 8 bytes in memory: 256 MiB, far above a last-level cache.
const WORDS: usize = (256 << 20) / 8;
/// Words of one window: 64 MiB.
const WINDOW: usize = WORDS / 4;
const LANES: usize = 64;
const FOR: Duration = Duration::from_millis(500);

/// GB that one thread reads in a second of CPU time.
pub fn read_gb_per_cpu_s() -> f64 {
    best_rate(|window| {
        let before = thread_cpu();
        std::hint::black_box(sum(window));
        thread_cpu().saturating_sub(before)
    })
}

/// GB that `threads` threads read together in a second of wall time.
pub fn read_gb_per_s(threads: usize) -> f64 {
    let clock = SystemClock::shared();
    let part = WINDOW.div_ceil(threads.max(1));
    best_rate(|window| {
        let before = clock.monotonic();
        std::thread::scope(|scope| {
            for part in window.chunks(part) {
                scope.spawn(|| std::hint::black_box(sum(part)));
            }
        });
        clock.monotonic().saturating_sub(before)
    })
}

/// The rate of the fastest window.
fn best_rate(mut read: impl FnMut(&[u64]) -> Duration) -> f64 {
    let words: Vec<u64> = (0..WORDS as u64).collect();
    let clock = SystemClock::shared();
    let started = clock.monotonic();
    let mut best = Duration::MAX;
    for window in words.chunks_exact(WINDOW).cycle() {
        best = best.min(read(window));
        if clock.monotonic().saturating_sub(started) > FOR {
            break;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a constant far below 2^53")]
    let gb = (WINDOW * 8) as f64 / GB;
    gb / best.as_secs_f64()
}

/// Sums in independent lanes, so that reading is what takes the time.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0u64; LANES];
    let rows = words.chunks_exact(LANES);
    let rest = rows.remainder();
    for row in rows {
        for (lane, word) in lanes.iter_mut().zip(row) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().chain(rest).fold(0, |all, lane| all.wrapping_add(*lane))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_says() {
        let words: Vec<u64> = (0..LANES as u64 * 3 + 5).collect();
        assert_eq!(sum(&words), words.iter().sum::<u64>());
        for rate in [read_gb_per_cpu_s(), read_gb_per_s(2)] {
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
        }
    }
}
