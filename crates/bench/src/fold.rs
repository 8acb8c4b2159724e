//! How fast updates are folded in memory, by the kernels alone: no disk, no wire, no strategy.
//!
//! Rows lie at staggered places, as updates in a store do; tiles are cut as the coordinator cuts them. The rate is of input: the
//! bytes of all updates, each counted once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheaf_aggregate::{Fold, Rule, TileSet, tile_len};
use sheaf_runtime::{Clock, SystemClock};
use sheaf_tensor::Dtype;

use crate::limits::gb;
use crate::process::process_cpu;
use crate::{Error, piece};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// The weighted mean.
    Mean,
    /// The median of each coordinate.
    Median,
    /// The mean without a tenth at each end.
    TrimmedMean,
    /// The distances between all pairs of updates, which Krum chooses by.
    KrumDistances,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Kernel; 4] = [Kernel::Mean, Kernel::Median, Kernel::TrimmedMean, Kernel::KrumDistances];

    /// The name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Mean => "mean",
            Kernel::Median => "median",
            Kernel::TrimmedMean => "trimmed_mean",
            Kernel::KrumDistances => "krum_distances",
        }
    }

    fn rule(self) -> Rule {
        match self {
            Kernel::Mean => Rule::WeightedMean,
            Kernel::Median => Rule::Median,
            Kernel::TrimmedMean => Rule::TrimmedMean { share: TRIM_SHARE },
            Kernel::KrumDistances => Rule::Krum { byzantine: 0, keep: 1 },
        }
    }

    /// Distances are summed over all tiles in order, by one thread.
    fn is_sequential(self) -> bool {
        self == Kernel::KrumDistances
    }
}

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub kernel: Kernel,
    /// Updates folded.
    pub updates: usize,
    /// Bytes of all updates.
    pub bytes: u64,
    /// Threads that folded.
    pub threads: usize,
    /// Wall seconds of the fastest pass.
    pub seconds: f64,
    /// CPU seconds of that pass.
    pub cpu_seconds: f64,
    /// Input per wall second.
    pub gb_per_s: f64,
    /// Input per CPU second.
    pub gb_per_cpu_s: f64,
}

/// Folds about `total_bytes` of `updates` f32 updates on `threads` threads, with tiles of `budget_bytes`. Blocks.
///
/// # Errors
/// [`Error::Fold`]; none for at least three updates.
pub fn measure(
    kernel: Kernel,
    updates: usize,
    total_bytes: u64,
    threads: usize,
    budget_bytes: u64,
) -> Result<Figure, Error> {
    let rows = Rows::new(updates, total_bytes)?;
    let threads = if kernel.is_sequential() { 1 } else { threads.max(1) };
    let tile = tile_len(budget_bytes, element_bytes(updates)) * F32_LEN;
    let clock = SystemClock::shared();
    let started = clock.monotonic();
    let mut best: Option<(f64, f64)> = None;
    let mut passes = 0;
    while passes < PASSES_MIN || clock.monotonic().saturating_sub(started) < PASSES_FOR {
        let took = rows.pass(kernel, threads, tile, &*clock)?;
        best = Some(best.filter(|best| best.0 <= took.0).unwrap_or(took));
        passes += 1;
    }
    let (seconds, cpu_seconds) = best.unwrap_or((f64::INFINITY, f64::INFINITY));
    let bytes = (rows.row_len * updates) as u64;
    let (gb_per_s, gb_per_cpu_s) = (gb(bytes) / seconds, gb(bytes) / cpu_seconds);
    Ok(Figure { kernel, updates, bytes, threads, seconds, cpu_seconds, gb_per_s, gb_per_cpu_s })
}

/// What a fold of so many f32 updates holds of an element: every row's, and the f64 result.
pub(crate) fn element_bytes(updates: usize) -> u64 {
    (updates as u64).saturating_mul(F32_LEN as u64).saturating_add(size_of::<f64>() as u64)
}

/// The weights of a mean: no two alike.
pub(crate) fn weights(updates: usize) -> Vec<f64> {
    (0_u32..).take(updates).map(|row| 1.0 + f64::from(row)).collect()
}

/// Updates in memory.
struct Rows {
    rows: Vec<Vec<u8>>,
    row_len: usize,
}

impl Rows {
    fn new(updates: usize, total_bytes: u64) -> Result<Rows, Error> {
        let block = piece::block(Dtype::F32)?;
        let row_len = usize::try_from(total_bytes).unwrap_or(usize::MAX) / updates.max(1) / F32_LEN * F32_LEN;
        let row_len = row_len.max(F32_LEN);
        let row = |row_idx: usize| {
            let (skipped, turn) = (stagger(row_idx), row_idx * TURN_ELEMENTS * F32_LEN % block.len());
            let values = block.iter().cycle().skip(turn).take(row_len);
            std::iter::repeat_n(0, skipped).chain(values.copied()).collect()
        };
        Ok(Rows { rows: (0..updates).map(row).collect(), row_len })
    }

    fn tile(&self, start: usize, len: usize) -> Vec<&[u8]> {
        let rows = self.rows.iter().enumerate();
        rows.map(|(row_idx, row)| {
            let begin = stagger(row_idx) + start;
            row.get(begin..begin + len).unwrap_or_default()
        })
        .collect()
    }

    /// Wall and CPU seconds of one pass over everything.
    fn pass(
        &self,
        kernel: Kernel,
        threads: usize,
        tile: usize,
        clock: &dyn Clock,
    ) -> Result<(f64, f64), Error> {
        let mut fold = Fold::new(kernel.rule(), &weights(self.rows.len()))?;
        let (started, cpu) = (clock.monotonic(), process_cpu());
        if kernel.is_sequential() {
            // As many passes as the rule asks for: a quick one may have to be followed by an exact one.
            while fold.needs_prepass() {
                for start in (0..self.row_len).step_by(tile) {
                    let rows = self.tile(start, tile.min(self.row_len - start));
                    fold.observe(&TileSet { dtype: Dtype::F32, rows: &rows, base: None })?;
                }
                fold.seal()?;
            }
        } else {
            let next = AtomicUsize::new(0);
            let folded: Result<(), Error> = std::thread::scope(|scope| {
                let workers: Vec<_> =
                    (0..threads).map(|_| scope.spawn(|| self.fold_tiles(&fold, &next, tile))).collect();
                let cut_off = |_| Err(Error::unexpected("a fold was cut off"));
                workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(cut_off))
            });
            folded?;
        }
        let wall = clock.monotonic().saturating_sub(started).as_secs_f64();
        Ok((wall, process_cpu().saturating_sub(cpu).as_secs_f64()))
    }

    /// Folds whichever tile is next until there is none.
    fn fold_tiles(&self, fold: &Fold, next: &AtomicUsize, tile: usize) -> Result<(), Error> {
        let mut out = vec![0.0; tile / F32_LEN];
        loop {
            let start = next.fetch_add(1, Ordering::Relaxed).saturating_mul(tile);
            if start >= self.row_len {
                return Ok(());
            }
            let len = tile.min(self.row_len - start);
            let rows = self.tile(start, len);
            let out = out.get_mut(..len / F32_LEN).unwrap_or_default();
            fold.fold(&TileSet { dtype: Dtype::F32, rows: &rows, base: None }, out)?;
            std::hint::black_box(out);
        }
    }
}

/// Where a row begins in its memory: no two neighbours at the same place of a page.
fn stagger(row_idx: usize) -> usize {
    row_idx * 192 % 4096
}

const F32_LEN: usize = 4;
const TURN_ELEMENTS: usize = 4_099;
const TRIM_SHARE: f64 = 0.1;
const PASSES_MIN: u32 = 3;
const PASSES_FOR: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_folds_all_of_every_row() {
        for kernel in Kernel::ALL {
            let figure = measure(kernel, 10, 1 << 20, 2, 64 * 1024).unwrap();
            assert_eq!(figure.bytes, (1 << 20) / 40 * 40, "{kernel:?}");
            assert!(figure.gb_per_s.is_finite() && figure.gb_per_s > 0.0, "{figure:?}");
        }
    }

    #[test]
    fn the_tiles_of_a_row_are_its_bytes() {
        let rows = Rows::new(3, 4_000).unwrap();
        let whole = rows.tile(0, rows.row_len);
        let parts: Vec<u8> = [(0, 100), (100, rows.row_len - 100)]
            .into_iter()
            .flat_map(|(start, len)| rows.tile(start, len).get(2).unwrap().to_vec())
            .collect();
        assert_eq!(whole.get(2).unwrap().to_vec(), parts);
        assert_ne!(whole.first(), whole.get(1));
    }
}
