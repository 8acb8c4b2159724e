//! Direct I/O: bytes go between aligned buffers and the disk, past the page cache, where the filesystem allows it.
//!
//! The cache would cost a copy of every byte and push out what others keep in it; what comes in here is read back once or
//! twice, much later. Where the filesystem refuses, the same calls go through the cache.

mod buffer;
mod file;
mod pool;

pub(crate) use buffer::AlignedBuffer;
pub(crate) use file::{DirectFile, is_allowed};
pub(crate) use pool::{BUFFER_LEN, Buffers, PooledBuffer};

/// Addresses, offsets and lengths of direct I/O are multiples of this many bytes: a page, and a multiple of any disk's sector.
pub(crate) const ALIGN: usize = 4096;
