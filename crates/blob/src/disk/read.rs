//! Reading stretches of objects: neighbours share a buffer, and long reads wait on the disk side by side.
//!
//! A stretch that is read is pinned: its room is not used again before it was read, whatever is released meanwhile. Whoever keeps one
//! stretch of a buffer keeps all of it, so what is read together should be let go together.

use std::sync::Arc;

use bytes::Bytes;

use super::spool::Extent;
use crate::Error;
use crate::direct::{ALIGN, Buffers};

/// A shorter stretch goes through the page cache: a block's worth of alignment costs more than a copy.
const DIRECT_LEN_LEAST: usize = 64 * 1024;
/// What one thread reads, in bytes: enough for the disk to be busy, and little enough for several to wait on it at once.
const PART_LEN: usize = 4 * 1024 * 1024;

/// A stretch that can be read whatever is released meanwhile.
pub(super) struct Pinned {
    pub(super) extent: Arc<Extent>,
    pub(super) offset: u64,
    pub(super) len: usize,
}

/// Stretches that one thread reads, in order.
pub(super) struct Part(Vec<Pinned>);

/// Deals stretches out to as many parts as are worth a thread, in order.
pub(super) fn parts(stretches: Vec<Pinned>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut room = 0;
    for stretch in stretches {
        let len = stretch.len;
        match parts.last_mut().filter(|_| len <= room) {
            Some(part) => part.0.push(stretch),
            None => {
                room = PART_LEN;
                parts.push(Part(vec![stretch]));
            }
        }
        room = room.saturating_sub(len);
    }
    parts
}

impl Part {
    pub(super) fn read(&self, buffers: &Buffers) -> Result<Vec<Bytes>, Error> {
        let shared = self.read_direct(buffers)?;
        let mut from = 0;
        let cut = |stretch: &Pinned| {
            if !stretch.is_direct() {
                let mut bytes = vec![0; stretch.len];
                stretch.extent.read(&mut bytes, stretch.offset)?;
                return Ok(Bytes::from(bytes));
            }
            let start = from + stretch.before();
            from += stretch.blocks_len();
            Ok(shared.slice(start..start + stretch.len))
        };
        self.0.iter().map(cut).collect()
    }

    /// The blocks around all stretches that are read past the page cache, one after another.
    fn read_direct(&self, buffers: &Buffers) -> Result<Bytes, Error> {
        let len = self.0.iter().map(Pinned::blocks_len).sum();
        if len == 0 {
            return Ok(Bytes::new());
        }
        let mut buffer = buffers.take(len);
        let mut from = 0;
        for stretch in self.0.iter().filter(|stretch| stretch.is_direct()) {
            let blocks = from..from + stretch.blocks_len();
            from = blocks.end;
            stretch.extent.read(&mut buffer[blocks], stretch.offset - stretch.before() as u64)?;
        }
        Ok(Bytes::from_owner(buffer))
    }
}

impl Pinned {
    fn is_direct(&self) -> bool {
        self.len >= DIRECT_LEN_LEAST
    }

    /// Bytes of its first block that are before it.
    fn before(&self) -> usize {
        usize::try_from(self.offset % ALIGN as u64).unwrap_or(0)
    }

    /// The blocks around it, in bytes; extents begin and end on blocks, so they are inside. Nothing where it is read without them.
    fn blocks_len(&self) -> usize {
        if self.is_direct() { (self.before() + self.len).next_multiple_of(ALIGN) } else { 0 }
    }
}
