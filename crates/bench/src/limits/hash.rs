//! What SHA-256 costs: 64 MiB of pieces, two at a time, the fastest of a few passes.

use sheaf_blob::digests_of_pair;

use super::GB;
use crate::process::thread_cpu;

const TOTAL: usize = 64 << 20;
const PIECE: usize = 4 << 20;
const PASSES: usize = 3;

/// CPU seconds to hash one GB on one core.
pub fn sha256_s_per_gb() -> f64 {
    let bytes: Vec<u8> = (0..=u8::MAX - 5).cycle().take(TOTAL).collect();
    let pass = || {
        let before = thread_cpu();
        for pair in bytes.chunks_exact(2 * PIECE) {
            let (first, second) = pair.split_at(PIECE);
            std::hint::black_box(digests_of_pair(first, second));
        }
        thread_cpu().saturating_sub(before).as_secs_f64()
    };
    let best = (0..PASSES).map(|_| pass()).fold(f64::INFINITY, f64::min);
    #[expect(clippy::cast_precision_loss, reason = "a constant far below 2^53")]
    let gb = TOTAL as f64 / GB;
    best / gb
}
