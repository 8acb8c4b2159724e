//! How fast the folds are, beside the memory of the same run: GB of updates taken in for every CPU-second of one thread.
//!
//! `cargo bench -p sheaf-aggregate --profile release --bench kernels` prints one line a rule, dtype and cohort size;
//! `-- --json FILE` also writes them. Rows come from memory (more bytes than the cache holds), a tile at a time as the
//! server folds them, the output in a buffer that is used again. The best of several rounds counts. `benches/fold.py`
//! pairs the figures with NumPy's.

#![allow(unsafe_code, clippy::unwrap_used, clippy::print_stdout, reason = "a program that measures")]

use std::fmt::Write;

use sheaf_aggregate::{Clip, Fold, Rule, TileSet, tile_len};
use sheaf_tensor::cpu::{Kernel, Level};
use sheaf_tensor::{Dtype, element};

const COHORTS: [usize; 5] = [10, 11, 25, 50, 100];
/// Bytes of all rows together: for what runs at memory speed, and for what does not.
const STREAMED_BYTES: usize = 512 << 20;
const COMPUTED_BYTES: usize = 64 << 20;
const TILE_BUDGET: u64 = 16 << 20;
const ROUNDS: usize = 5;

fn main() {
    let memory = random_floats(STREAMED_BYTES);
    let mut lines = vec![line("read", Dtype::U64, 0, "read", read_rate(&memory))];
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64] {
        let seconds = best(|| assert!(element::first_non_finite(dtype, &memory).is_none()));
        lines.push(line("finite", dtype, 1, "check", memory.len() as f64 / seconds));
    }
    for k in COHORTS {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64, Dtype::I32] {
            measure("mean", Rule::WeightedMean, dtype, &rows(&memory, k, STREAMED_BYTES), &mut lines);
        }
        let few = rows(&memory, k, COMPUTED_BYTES);
        let byzantine = u32::try_from(k).unwrap() / 5;
        for (name, rule) in [
            ("clipped", Rule::NormClippedMean(Clip::NormRatio(1.0))),
            ("median", Rule::Median),
            ("trimmed", Rule::TrimmedMean { share: 0.1 }),
            ("krum", Rule::Krum { byzantine, keep: 1 }),
        ] {
            measure(name, rule, Dtype::F32, &few, &mut lines);
        }
    }
    let mut arguments = std::env::args().skip_while(|argument| argument != "--json").skip(1);
    if let Some(path) = arguments.next() {
        std::fs::write(path, format!("[{}]\n", lines.join(",\n"))).unwrap();
    }
}

/// The prepass, where the rule has one, and the fold.
fn measure(name: &str, rule: Rule, dtype: Dtype, rows: &[&[u8]], lines: &mut Vec<String>) {
    let weights: Vec<f64> = (0..rows.len()).map(|row| 1.0 + row as f64).collect();
    let bytes = rows.iter().map(|row| row.len()).sum::<usize>() as f64;
    let mut fold = Fold::new(rule, &weights).unwrap();
    if fold.needs_prepass() {
        let seconds = best(|| {
            fold = Fold::new(rule, &weights).unwrap();
            tiles(dtype, rows, |tiles| fold.observe(tiles).unwrap());
        });
        lines.push(line(name, dtype, rows.len(), "prepass", bytes / seconds));
        fold.seal().unwrap();
        while fold.needs_prepass() {
            tiles(dtype, rows, |tiles| fold.observe(tiles).unwrap());
            fold.seal().unwrap();
        }
    }
    let mut out = vec![0.0; rows[0].len() / dtype.size()];
    let seconds = best(|| {
        tiles(dtype, rows, |tiles| {
            let len = tiles.rows[0].len() / dtype.size();
            fold.fold(tiles, &mut out[..len]).unwrap();
        });
    });
    lines.push(line(name, dtype, rows.len(), "fold", bytes / seconds));
}

fn tiles(dtype: Dtype, rows: &[&[u8]], mut visit: impl FnMut(&TileSet<'_>)) {
    let len = tile_len(TILE_BUDGET, (rows.len() * dtype.size() + 8) as u64) * dtype.size();
    for start in (0..rows[0].len()).step_by(len) {
        let end = (start + len).min(rows[0].len());
        let part: Vec<&[u8]> = rows.iter().map(|row| &row[start..end]).collect();
        visit(&TileSet { dtype, rows: &part, base: Some(part[0]) });
    }
}

/// `k` rows of equal length that do not begin at the same place of a page.
fn rows(memory: &[u8], k: usize, bytes: usize) -> Vec<&[u8]> {
    let len = (bytes / k / 128 - 1) / 2 * 256 + 128;
    (0..k).map(|row| &memory[row * len..(row + 1) * len]).collect()
}

/// Eight streams side by side, which is what a fold of eight rows reads.
fn read_rate(memory: &[u8]) -> f64 {
    struct Read<'a>(&'a [u8], usize);
    impl Kernel for Read<'_> {
        type Output = u64;
        #[inline(always)]
        fn run(self) -> u64 {
            let mut sums = [0_u64; 32];
            let len = self.0.len() / self.1 / 256 * 256;
            for at in (0..len).step_by(256) {
                for stream in 0..self.1 {
                    let words = self.0[stream * len + at..][..256].as_chunks::<8>().0;
                    for (sum, word) in sums.iter_mut().zip(words) {
                        *sum ^= u64::from_le_bytes(*word);
                    }
                }
            }
            sums.iter().fold(0, |all, sum| all ^ sum)
        }
    }
    let rate = |streams| {
        let read = || {
            std::hint::black_box(Level::best().run(Read(memory, streams)));
        };
        memory.len() as f64 / best(read)
    };
    [1, 4, 8].map(rate).into_iter().fold(0.0, f64::max)
}

fn random_floats(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut memory = Vec::with_capacity(bytes);
    while memory.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // 24 bits around zero; either half of such a float is a finite 16-bit float, every pair a finite f64.
        let value = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
        memory.extend_from_slice(&(value.to_bits() & 0xffff_f7ff).to_le_bytes());
    }
    memory
}

/// CPU-seconds of this thread for the fastest round.
fn best(mut work: impl FnMut()) -> f64 {
    let mut seconds = f64::MAX;
    for _ in 0..ROUNDS {
        let before = cpu_seconds();
        work();
        seconds = seconds.min(cpu_seconds() - before);
    }
    seconds
}

fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn line(name: &str, dtype: Dtype, k: usize, what: &str, bytes_per_s: f64) -> String {
    let gb = bytes_per_s / 1e9;
    println!("{name:8} {what:8} {dtype:5} k={k:<4} {gb:7.2} GB/s");
    let mut json = String::new();
    write!(
        json,
        "{{\"rule\":\"{name}\",\"pass\":\"{what}\",\"dtype\":\"{dtype}\",\"k\":{k},\"gb_per_cpu_s\":{gb:.3}}}"
    )
    .unwrap();
    json
}
