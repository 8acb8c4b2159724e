//! Buffers that are used again: fresh memory costs as much as hashing what is put into it.
//!
//! At most [`KEPT_BYTES_MAX`] rest in the pool; a buffer that comes back beyond that is freed. How many are out is bounded by
//! those who take them: an upload has two at a time at most, and a read is within some budget of its caller's.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use super::AlignedBuffer;

/// What is hashed and written at a time, in bytes.
pub(crate) const BUFFER_LEN: usize = super::buffer::HUGE_LEN;
/// How many bytes rest in a pool at most.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Lengths are multiples of this, in bytes, so that a buffer fits the next one who asks; a shorter one is not kept.
const GRAIN: usize = 64 * 1024;

/// The pool; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<AlignedBuffer>,
    bytes: usize,
}

/// A buffer that returns to its pool when it is dropped. Its bytes are whatever was in it.
#[derive(Debug)]
pub(crate) struct PooledBuffer {
    /// Present until the drop.
    buffer: Option<AlignedBuffer>,
    pool: Buffers,
}

impl Buffers {
    /// A buffer of at least `len` bytes.
    pub(crate) fn take(&self, len: usize) -> PooledBuffer {
        let kept = if len < GRAIN { None } else { self.lock().take(len) };
        let buffer = kept.unwrap_or_else(|| {
            AlignedBuffer::zeroed(if len < GRAIN { len } else { len.next_multiple_of(GRAIN) })
        });
        PooledBuffer { buffer: Some(buffer), pool: self.clone() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The one that came back last and is neither too short nor twice too long.
    fn take(&mut self, len: usize) -> Option<AlignedBuffer> {
        let fits = |buffer: &AlignedBuffer| buffer.len() >= len && buffer.len() / 2 < len;
        let buffer = self.buffers.remove(self.buffers.iter().rposition(fits)?);
        self.bytes -= buffer.len();
        Some(buffer)
    }

    /// Keeps a buffer, letting go of those that rested longest where there is no room.
    fn put(&mut self, buffer: AlignedBuffer) {
        if buffer.len() > KEPT_BYTES_MAX {
            return;
        }
        while self.bytes + buffer.len() > KEPT_BYTES_MAX {
            self.bytes -= self.buffers.remove(0).len();
        }
        self.bytes += buffer.len();
        self.buffers.push(buffer);
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take().filter(|buffer| buffer.len() >= GRAIN) {
            self.pool.lock().put(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_the_pool_stays_small() {
        let pool = Buffers::default();
        let first = pool.take(BUFFER_LEN);
        let place = first.as_ptr();
        drop(first);
        assert_eq!(pool.take(BUFFER_LEN - 1).as_ptr(), place, "it was used again");
        assert_eq!(pool.lock().bytes, BUFFER_LEN);
        let many: Vec<PooledBuffer> = (0..40).map(|_| pool.take(BUFFER_LEN)).collect();
        drop(many);
        assert_eq!(pool.lock().bytes, KEPT_BYTES_MAX);
        let larger = pool.take(3 * BUFFER_LEN);
        assert!(larger.len() >= 3 * BUFFER_LEN, "a short one is not taken for a long one");
        drop(larger);
        assert_eq!(pool.lock().bytes, KEPT_BYTES_MAX, "older ones make way");
        for other in [0, 1, GRAIN - 1, KEPT_BYTES_MAX + 1] {
            assert!(pool.take(other).len() >= other);
        }
        let kept = pool.lock();
        assert_eq!(kept.bytes, kept.buffers.iter().map(|buffer| buffer.len()).sum::<usize>());
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.buffers.iter().all(|buffer| buffer.len() >= GRAIN));
    }
}
