//! A buffer whose address and length are what direct I/O asks for.
//!
//! A long one is memory of its own from the kernel, in huge pages where it has them: fresh memory in small pages costs more than
//! hashing what is put into it, and a direct write looks up every page.
#![expect(
    unsafe_code,
    reason = "memory of a chosen alignment, and memory from the kernel, come through raw pointers only"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::ALIGN;

/// A huge page, in bytes: the length from which a buffer is memory of its own.
pub(crate) const HUGE_LEN: usize = 2 * 1024 * 1024;

/// Bytes at an address that is a multiple of [`ALIGN`], as many as a multiple of it; zero at first.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    at: NonNull<u8>,
    len: usize,
    memory: Memory,
}

/// Where the bytes are, and how they are given back.
#[derive(Debug)]
enum Memory {
    Allocated(Layout),
    /// A mapping that begins here; it is longer by a huge page, so that the bytes begin on one.
    Mapped(NonNull<u8>),
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
        if let Some(mapped) = AlignedBuffer::mapped(len) {
            return mapped;
        }
        let len = len.max(1).checked_next_multiple_of(ALIGN);
        let layout = len.and_then(|len| Layout::from_size_align(len, ALIGN).ok());
        #[expect(clippy::expect_used, reason = "callers ask for at most the length of a piece or a read")]
        let layout = layout.expect("a buffer that fits the address space");
        // SAFETY: the layout's size is not zero.
        let at = unsafe { alloc_zeroed(layout) };
        let Some(at) = NonNull::new(at) else { handle_alloc_error(layout) };
        AlignedBuffer { at, len: layout.size(), memory: Memory::Allocated(layout) }
    }

    /// A long buffer from the kernel; none for a short one, or where the kernel gives none.
    fn mapped(len: usize) -> Option<AlignedBuffer> {
        if len < HUGE_LEN {
            return None;
        }
        let len = len.checked_next_multiple_of(ALIGN)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        let mapping_len = len.checked_add(HUGE_LEN)?;
        // SAFETY: a new mapping at a place of the kernel's choice touches no other memory.
        let mapping = unsafe { mmap_anonymous(ptr::null_mut(), mapping_len, protection, flags) };
        let mapping = NonNull::new(mapping.ok()?.cast::<u8>())?;
        let to_huge_page = mapping.as_ptr().align_offset(HUGE_LEN);
        // SAFETY: less than a huge page further on, which the mapping is longer by.
        let at = unsafe { mapping.add(to_huge_page) };
        // Advice only: without huge pages the bytes are the same.
        // SAFETY: the stretch lies in the mapping, and the advice changes no content.
        let advised = unsafe { madvise(at.as_ptr().cast(), len, Advice::LinuxHugepage) };
        if let Err(error) = advised {
            tracing::debug!(%error, "no huge pages for a buffer");
        }
        Some(AlignedBuffer { at, len, memory: Memory::Mapped(mapping) })
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes of the allocation or the mapping begin there, all were zero at first, and they live as long as
        // the buffer.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the buffer is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        match self.memory {
            // SAFETY: allocated with this layout, and not freed before.
            Memory::Allocated(layout) => unsafe { dealloc(self.at.as_ptr(), layout) },
            Memory::Mapped(mapping) => {
                // SAFETY: mapped with this length, and not unmapped before; nobody has a slice of it any more.
                let unmapped = unsafe { munmap(mapping.as_ptr().cast(), self.len + HUGE_LEN) };
                if let Err(error) = unmapped {
                    tracing::error!(%error, "a buffer is not given back");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_and_end_where_direct_io_wants_them() {
        for len in [0, 1, ALIGN - 1, ALIGN, ALIGN + 1, 300_000, HUGE_LEN - 1, HUGE_LEN, 3 * HUGE_LEN + 1] {
            let mut buffer = AlignedBuffer::zeroed(len);
            assert!(buffer.len() >= len && buffer.len().is_multiple_of(ALIGN) && !buffer.is_empty(), "{len}");
            assert!(buffer.as_ptr().addr().is_multiple_of(ALIGN), "{len}");
            assert!(buffer.iter().all(|byte| *byte == 0), "{len}");
            buffer.fill(7);
            assert!(buffer.iter().all(|byte| *byte == 7), "{len}");
        }
    }
}
