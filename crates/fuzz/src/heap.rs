//! What a decode takes from the heap: an allocator that counts per thread.
//!
//! It counts what Rust allocates, not what a C library takes with its own `malloc` (the cryptography). A watched stretch that
//! asks for more than [`LIVE_BYTES_MAX`] gets no memory and ends the process, before the machine is short of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The most bytes a watched stretch may hold at once: twice what any ceiling allows, and harmless to the machine.
pub const LIVE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// What a watched stretch took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// The most bytes it held at once, beyond what was held before.
    pub peak_bytes: u64,
    /// How often it asked for memory.
    pub calls: u64,
}

/// Runs `work` and says what it took on this thread.
pub fn watch<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let stretch = Stretch { before: TALLY.get() };
    TALLY.set(Tally { live: 0, peak: 0, calls: 0, is_watching: true });
    let done = work();
    let Tally { peak, calls, .. } = TALLY.get();
    drop(stretch);
    (done, Taken { peak_bytes: peak.unsigned_abs(), calls })
}

/// Ends the watching when it goes, also by a panic.
struct Stretch {
    before: Tally,
}

impl Drop for Stretch {
    fn drop(&mut self) {
        TALLY.set(Tally { live: self.before.live + TALLY.get().live, ..self.before });
    }
}

#[derive(Clone, Copy)]
struct Tally {
    /// Below zero when more was given back than taken.
    live: i64,
    /// Never below zero.
    peak: i64,
    calls: u64,
    is_watching: bool,
}

thread_local! {
    // Without a destructor, and made before the first allocation: reading it allocates nothing.
    static TALLY: Cell<Tally> = const { Cell::new(Tally { live: 0, peak: 0, calls: 0, is_watching: false }) };
}

/// The system's allocator, counted.
#[derive(Debug)]
pub struct CountingAllocator;

/// Counts `size` bytes more; false when the watched stretch may have no more.
fn take(size: usize) -> bool {
    let mut tally = TALLY.get();
    let live = tally.live.saturating_add(i64::try_from(size).unwrap_or(i64::MAX));
    if tally.is_watching && live.unsigned_abs() > LIVE_BYTES_MAX && live > 0 {
        return false;
    }
    tally.live = live;
    tally.peak = tally.peak.max(live);
    tally.calls += 1;
    TALLY.set(tally);
    true
}

fn give_back(size: usize) {
    let mut tally = TALLY.get();
    tally.live = tally.live.saturating_sub(i64::try_from(size).unwrap_or(i64::MAX));
    TALLY.set(tally);
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; this crate is never shipped")]
// SAFETY: every call is handed on to `System` unchanged, or answered with null, which the trait allows.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises about `layout` are those `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: as above; `block` came from `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new are counted together while one is copied to the other.
        if !take(new_size) {
            return std::ptr::null_mut();
        }
        give_back(layout.size());
        // SAFETY: as above; `block` came from `System`.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_counts_and_what_was_given_back_does_not() {
        let held = vec![0u8; 1_000];
        let (kept, taken) = watch(|| {
            drop(vec![0u8; 50_000]);
            vec![0u8; 10_000]
        });
        assert_eq!((taken.peak_bytes, taken.calls), (50_000, 2));
        let ((), nothing) = watch(|| drop((held, kept)));
        assert_eq!(nothing, Taken::default());
    }

    #[test]
    fn a_grown_buffer_counts_old_and_new_together() {
        let mut buffer: Vec<u8> = Vec::with_capacity(1_000);
        let ((), taken) = watch(|| {
            buffer.push(1);
            buffer.reserve_exact(3_000);
        });
        // The old thousand was there before the stretch began.
        assert_eq!(taken, Taken { peak_bytes: 3_001, calls: 1 });
    }

    #[test]
    fn an_absurd_request_is_refused_and_not_served() {
        let (granted, _) = watch(|| Vec::<u8>::new().try_reserve_exact(3 << 30).is_ok());
        assert!(!granted);
    }
}
