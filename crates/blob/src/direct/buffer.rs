//! A buffer whose address and length are what direct I/O asks for.
#![expect(
    unsafe_code,
    reason = "the global allocator gives memory of a chosen alignment through raw pointers only"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::ALIGN;

/// Bytes at an address that is a multiple of [`ALIGN`], as many as a multiple of it; zero at first.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its memory, as a `Box<[u8]>` does.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared, it gives out shared slices only.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// A buffer of at least `len` bytes, and at least [`ALIGN`].
    ///
    /// # Panics
    /// When `len` is close to the size of the address space.
    pub(crate) fn zeroed(len: usize) -> AlignedBuffer {
        let len = len.max(1).checked_next_multiple_of(ALIGN);
        let layout = len.and_then(|len| Layout::from_size_align(len, ALIGN).ok());
        #[expect(clippy::expect_used, reason = "callers ask for at most the length of a piece or a read")]
        let layout = layout.expect("a buffer that fits the address space");
        // SAFETY: the layout's size is not zero.
        let at = unsafe { alloc_zeroed(layout) };
        let Some(at) = NonNull::new(at) else { handle_alloc_error(layout) };
        AlignedBuffer { at, layout }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is that of the layout, was zeroed when it was allocated, and lives as long as the buffer.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the buffer is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and not freed before.
        unsafe { dealloc(self.at.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_and_end_where_direct_io_wants_them() {
        for len in [0, 1, ALIGN - 1, ALIGN, ALIGN + 1, 300_000] {
            let mut buffer = AlignedBuffer::zeroed(len);
            assert!(buffer.len() >= len && buffer.len().is_multiple_of(ALIGN) && !buffer.is_empty(), "{len}");
            assert!(buffer.as_ptr().addr().is_multiple_of(ALIGN), "{len}");
            assert!(buffer.iter().all(|byte| *byte == 0), "{len}");
            buffer.fill(7);
            assert!(buffer.iter().all(|byte| *byte == 7), "{len}");
        }
    }
}
