//! Taking in one object: bytes are gathered, hashed and written in batches off the I/O threads.
//!
//! At most [`BATCH_LEN`] bytes are gathered; a longer piece is written as it came. The extent is shared with every
//! write under way, so that room is never free while something is still being written there.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sheaf_domain::{Digest, Hasher};
use sheaf_runtime::crash::{self, Point};
use tokio::sync::oneshot;

use super::committer::Change;
use super::spool::Extent;
use super::{Shared, asked};
use crate::{Error, Hold, ObjectWriter, Stored};

/// How many bytes are hashed and written at a time.
const BATCH_LEN: usize = 256 * 1024;

/// An object being taken in.
pub(crate) struct DiskWriter {
    shared: Arc<Shared>,
    hold: Hold,
    declared: u64,
    received: u64,
    gathered: Vec<u8>,
    extent: Arc<Extent>,
    /// Missing while a batch is under way, and for good after one was cut off or failed.
    progress: Option<Progress>,
}

struct Progress {
    hasher: Hasher,
    written: u64,
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
            gathered: Vec::new(),
            extent: Arc::new(extent),
            progress: Some(Progress { hasher: Hasher::new(), written: 0 }),
        }
    }

    /// Gathers bytes, writing out each batch that is full.
    async fn gather(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.gathered.is_empty() && bytes.len() >= BATCH_LEN {
                self.write_out(bytes).await?;
                return Ok(());
            }
            let part = bytes.split_to(bytes.len().min(BATCH_LEN - self.gathered.len()));
            self.gathered.extend_from_slice(&part);
            if self.gathered.len() == BATCH_LEN {
                self.write_out_gathered().await?;
            }
        }
        Ok(())
    }

    async fn write_out_gathered(&mut self) -> Result<(), Error> {
        let gathered = std::mem::take(&mut self.gathered);
        self.gathered = self.write_out(gathered).await?;
        self.gathered.clear();
        Ok(())
    }

    /// Hashes and writes a batch; gives it back.
    async fn write_out<B: AsRef<[u8]> + Send + 'static>(&mut self, batch: B) -> Result<B, Error> {
        let mut progress = self.progress.take().ok_or(Error::Incomplete)?;
        let extent = Arc::clone(&self.extent);
        let work = move || {
            let bytes = batch.as_ref();
            progress.hasher.update(bytes);
            extent.write(bytes, progress.written)?;
            progress.written += bytes.len() as u64;
            Ok::<_, Error>((progress, batch))
        };
        let (progress, batch) = self.shared.compute.run(work).await??;
        self.progress = Some(progress);
        Ok(batch)
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
        if !self.gathered.is_empty() {
            self.write_out_gathered().await?;
        }
        let digest = self.progress.take().ok_or(Error::Incomplete)?.hasher.finish();
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
