//! Taking in one object: bytes are gathered in an aligned buffer, which is hashed and written off the I/O threads.
//!
//! An object has at most two buffers at a time, from a pool: one that is gathered, and one that is written and left to be hashed
//! beside another object's; hashing and writing go on side by side, and both read only. The extent is shared with every write
//! under way, so that room is never free while something is still being written there. The last buffer is written to the end of
//! its block, which is the object's own room.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sheaf_domain::Digest;
use sheaf_runtime::crash::{self, Point};
use tokio::sync::oneshot;

use super::committer::Change;
use super::spool::Extent;
use super::{Shared, asked};
use crate::direct::{ALIGN, BUFFER_LEN, PooledBuffer};
use crate::hash::{Lane, Left};
use crate::{Error, Hold, ObjectWriter, Stored};

/// An object being taken in.
pub(crate) struct DiskWriter {
    shared: Arc<Shared>,
    hold: Hold,
    declared: u64,
    received: u64,
    gathered: Option<Gathered>,
    extent: Arc<Extent>,
    /// Missing while a buffer is under way, and for good after one was cut off or failed.
    progress: Option<Progress>,
}

struct Progress {
    hashing: Hashing,
    written: u64,
}

/// How far the hash is.
enum Hashing {
    Idle(Lane),
    /// The last buffer that was written is not hashed yet.
    Left(Left),
}

impl Hashing {
    async fn done(self) -> Result<Lane, Error> {
        match self {
            Hashing::Idle(lane) => Ok(lane),
            Hashing::Left(left) => left.hashed().await,
        }
    }
}

/// What was received and is not written yet.
struct Gathered {
    buffer: PooledBuffer,
    filled: usize,
}

impl AsRef<[u8]> for Gathered {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl std::fmt::Debug for DiskWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("DiskWriter");
        shown.field("hold", &self.hold).field("declared", &self.declared).field("received", &self.received);
        shown.finish_non_exhaustive()
    }
}

impl DiskWriter {
    pub(crate) fn new(shared: Arc<Shared>, hold: Hold, len: u64, extent: Extent) -> DiskWriter {
        DiskWriter {
            shared,
            hold,
            declared: len,
            received: 0,
            gathered: None,
            extent: Arc::new(extent),
            progress: Some(Progress { hashing: Hashing::Idle(Lane::new()), written: 0 }),
        }
    }

    /// Gathers bytes, writing out each buffer that is full.
    async fn gather(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let left = self.left();
            let buffers = &self.shared.buffers;
            let gathered = self
                .gathered
                .get_or_insert_with(|| Gathered { buffer: buffers.take(left.min(BUFFER_LEN)), filled: 0 });
            let room = left.min(BUFFER_LEN) - gathered.filled;
            let part = bytes.split_to(bytes.len().min(room));
            gathered.buffer[gathered.filled..gathered.filled + part.len()].copy_from_slice(&part);
            gathered.filled += part.len();
            if part.len() == room {
                self.write_out().await?;
            }
        }
        Ok(())
    }

    /// How much is not written yet of what was declared.
    fn left(&self) -> usize {
        let written = self.progress.as_ref().map_or(self.declared, |progress| progress.written);
        usize::try_from(self.declared - written).unwrap_or(usize::MAX)
    }

    /// Writes what was gathered, and hashes it or leaves it to be hashed.
    async fn write_out(&mut self) -> Result<(), Error> {
        let Some(mut gathered) = self.gathered.take() else { return Ok(()) };
        let Progress { hashing, written } = self.progress.take().ok_or(Error::Incomplete)?;
        // To the end of the block: what was in the buffer before is none of the disk's business.
        let block_end = gathered.filled.next_multiple_of(ALIGN);
        gathered.buffer[gathered.filled..block_end].fill(0);
        let gathered = Arc::new(gathered);
        let (extent, batch) = (Arc::clone(&self.extent), Arc::clone(&gathered));
        let write = self.shared.disk.run(move || extent.write(&batch.buffer[..block_end], written));
        let stage = &self.shared.hashing;
        let filled = gathered.filled as u64;
        let hash = async {
            let left = stage.leave(hashing.done().await?, gathered);
            match left.has_partner() {
                true => Ok::<_, Error>(Hashing::Idle(left.hashed().await?)),
                false => Ok(Hashing::Left(left)),
            }
        };
        let (wrote, hashing) = tokio::join!(write, hash);
        wrote??;
        self.progress = Some(Progress { hashing: hashing?, written: written + filled });
        Ok(())
    }
}

#[async_trait]
impl ObjectWriter for DiskWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        if self.progress.is_none() {
            return Err(Error::Incomplete);
        }
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.received > self.declared {
            self.progress = None;
            return Err(Error::Length { declared: self.declared, received: self.received });
        }
        self.gather(bytes).await
    }

    async fn finish(mut self: Box<Self>, expected: Option<Digest>) -> Result<Stored, Error> {
        if self.progress.is_none() {
            return Err(Error::Incomplete);
        }
        if self.received != self.declared {
            return Err(Error::Length { declared: self.declared, received: self.received });
        }
        self.write_out().await?;
        let hashing = self.progress.take().ok_or(Error::Incomplete)?.hashing;
        let digest = hashing.done().await?.finish();
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::DigestMismatch { expected, found: digest });
        }
        let DiskWriter { shared, hold, declared: len, extent, .. } = *self;
        crash::reached(Point::PieceWritten);
        let (done, outcome) = oneshot::channel();
        shared.submit(Change::Put { digest, len, extent, hold, done }).await?;
        asked(outcome).await?;
        Ok(Stored { digest, len })
    }
}
