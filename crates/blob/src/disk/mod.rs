//! The blob store on the local disk.
//!
//! Bytes arrive in preallocated spool files and are named by an index; an object is an entry of the index, not a file
//! of its own. Refuses a directory of another format version, one that another process uses, and an index that is
//! damaged anywhere but at its torn tail.
//!
//! # Format 1
//! A directory with `index`, `lock` (empty; locked while the store is open), `spool-XXXXXXXX` (the file's id in hex),
//! and for a moment `index.new`. All numbers are little-endian; lengths and offsets are in bytes; `crc` is CRC-32
//! (IEEE) over what stands before it in the same structure, unless said otherwise.
//!
//! ```text
//! index        := header frame*
//! header       0        8         12           20    24
//!              "SHEAFIDX" version:u32 sealed_len:u64 crc:u32
//! frame        0      4       12           16           20       24
//!              "SFRM" seq:u64 body_len:u32 body_crc:u32 crc:u32  record*      (body_crc: over the records)
//! record put   0    1          33       37         45      53          54
//!              1:u8 digest[32] file:u32 offset:u64 len:u64 hold_len:u8 hold
//! record hold  2:u8 digest[32] hold_len:u8 hold
//! record release
//!              3:u8 hold_len:u8 hold
//!
//! spool file   0          8           12     16      24      28       4096
//!              "SHEAFSPL" version:u32 id:u32 len:u64 crc:u32 (unused) extents
//! ```
//!
//! `sealed_len` bytes were durable before the file got its name: damage there is never a torn write. Frames are
//! numbered from 1 without gaps. An object lies in one file at a multiple of 4096; an empty one has file 0, offset 0.

mod committer;
mod header;
mod index;
mod open;
mod read;
mod spool;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use sheaf_domain::{ByteSize, Digest, Segment};
use sheaf_runtime::{Compute, TaskScope};
use tokio::sync::{mpsc, oneshot};

use crate::direct::Buffers;
use crate::files::{Files, LocalFiles, Lock};
use crate::hash::Stage;
use crate::{BlobStore, Error, Hold, ObjectWriter, Usage};
use committer::{Change, DiskTable};
use read::Pinned;
use spool::{Extent, Spool};
use writer::DiskWriter;

/// How a disk store is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The most bytes all spool files together may take.
    pub max_bytes: ByteSize,
    /// How many bytes of objects a spool file has room for; a longer object gets a file of its own.
    pub segment_len: ByteSize,
    /// Whether bytes of objects go past the page cache where the filesystem allows it.
    pub direct_io: bool,
}

impl Default for OpenOptions {
    /// No limit but the disk's, 64 MiB per spool file, past the page cache.
    fn default() -> OpenOptions {
        OpenOptions {
            max_bytes: ByteSize::from_bytes(u64::MAX),
            segment_len: ByteSize::from_mib(64),
            direct_io: true,
        }
    }
}

/// Objects on the local disk.
#[derive(Debug)]
pub struct DiskBlobs {
    shared: Arc<Shared>,
    scope: TaskScope,
    lock: Mutex<Option<Box<dyn Lock>>>,
    direct: bool,
}

/// What the store and its writers share.
#[derive(Debug)]
pub(crate) struct Shared {
    table: Arc<Mutex<DiskTable>>,
    spool: Arc<Spool>,
    hashing: Stage,
    buffers: Buffers,
    /// For what waits on the disk and computes nothing.
    disk: Compute,
    changes: Mutex<Option<mpsc::Sender<Change>>>,
}

/// How many reads and additions of files wait on the disk at once.
const DISK_THREADS: usize = 8;

impl DiskBlobs {
    /// Opens the store in `dir`, or makes one there.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Format`], [`Error::Corrupt`], or what the disk says.
    /// # Cancel safety
    /// Dropping the future leaves a directory that can be opened again.
    pub async fn open(dir: &Path, options: OpenOptions) -> Result<DiskBlobs, Error> {
        DiskBlobs::open_on(Arc::new(LocalFiles), dir, options).await
    }

    /// As [`DiskBlobs::open`], on other files than the system's.
    ///
    /// # Errors
    /// As [`DiskBlobs::open`].
    /// # Cancel safety
    /// As [`DiskBlobs::open`].
    pub async fn open_on(
        files: Arc<dyn Files>,
        dir: &Path,
        options: OpenOptions,
    ) -> Result<DiskBlobs, Error> {
        let disk = Compute::new(DISK_THREADS);
        let dir = dir.to_owned();
        let opened = disk.run(move || open::open(files, &dir, &options));
        let opened = opened.await??;
        let (sender, receiver) = mpsc::channel(committer::QUEUE_LEN);
        let scope = TaskScope::new();
        // It ends when the last sender is gone: the store was closed, or it and all its writers were dropped.
        drop(scope.spawn(committer::run(receiver, opened.committer)));
        let changes = Mutex::new(Some(sender));
        let (table, spool) = (opened.table, opened.spool);
        let (hashing, buffers) = (Stage::for_this_machine(), Buffers::default());
        let shared = Shared { table, spool, hashing, buffers, disk, changes };
        let (lock, direct) = (Mutex::new(Some(opened.lock)), opened.direct);
        Ok(DiskBlobs { shared: Arc::new(shared), scope, lock, direct })
    }

    /// Whether the bytes of objects go past the page cache, as they do where the filesystem allows it.
    pub fn is_direct(&self) -> bool {
        self.direct
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, DiskTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sender(&self) -> Result<mpsc::Sender<Change>, Error> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)
    }

    /// Hands a change to the committer; waits while too many are waiting already.
    async fn submit(&self, change: Change) -> Result<(), Error> {
        self.sender()?.send(change).await.map_err(|_| Error::Closed)
    }

    /// Takes room for an object, adding a spool file if need be.
    async fn reserve(&self, len: u64) -> Result<Extent, Error> {
        if let Some(extent) = self.spool.take(len) {
            return Ok(extent);
        }
        let turn = Arc::clone(&self.spool.growth).acquire_owned().await.map_err(|_| Error::Closed)?;
        let spool = Arc::clone(&self.spool);
        let grow = move || {
            let extent = spool.take_or_grow(len);
            drop(turn);
            extent
        };
        self.disk.run(grow).await?
    }

    /// Finds a stretch and keeps its room from being used again while it is read.
    fn pin(&self, object: &Digest, offset: u64, len: u64) -> Result<Pinned, Error> {
        let table = self.table();
        let found = table.range(object, offset, len)?;
        // An object's length is that of one that was written by a process of this machine.
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(Pinned { extent: Arc::clone(&found.place), offset, len })
    }
}

/// The committer's answer.
async fn asked<T>(outcome: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
    outcome.await.unwrap_or(Err(Error::Closed))
}

#[async_trait]
impl BlobStore for DiskBlobs {
    async fn writer(&self, hold: &Hold, len: u64) -> Result<Box<dyn ObjectWriter>, Error> {
        self.shared.sender()?;
        let extent = self.shared.reserve(len).await?;
        Ok(Box::new(DiskWriter::new(Arc::clone(&self.shared), hold.clone(), len, extent)))
    }

    async fn read(&self, object: &Digest, offset: u64, len: u64) -> Result<Bytes, Error> {
        let segment = Segment { object: *object, offset, len };
        let read = self.read_many(&[segment]).await?;
        Ok(read.into_iter().next().unwrap_or_default())
    }

    async fn read_many(&self, segments: &[Segment]) -> Result<Vec<Bytes>, Error> {
        let pin = |segment: &Segment| self.shared.pin(&segment.object, segment.offset, segment.len);
        let pinned = segments.iter().map(pin).collect::<Result<Vec<_>, _>>()?;
        let parts = read::parts(pinned).into_iter().map(|part| {
            let buffers = self.shared.buffers.clone();
            async move { self.shared.disk.run(move || part.read(&buffers)).await? }
        });
        Ok(try_join_all(parts).await?.into_iter().flatten().collect())
    }

    async fn len(&self, object: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.shared.table().object(object).map(|found| found.len))
    }

    async fn hold(&self, object: &Digest, hold: &Hold) -> Result<bool, Error> {
        let (done, outcome) = oneshot::channel();
        self.shared.submit(Change::Hold { digest: *object, hold: hold.clone(), done }).await?;
        asked(outcome).await
    }

    async fn held(&self, hold: &Hold) -> Result<Vec<(Digest, u64)>, Error> {
        Ok(self.shared.table().held(hold))
    }

    async fn holds(&self) -> Result<Vec<Hold>, Error> {
        Ok(self.shared.table().holds().map(|(hold, _)| hold.clone()).collect())
    }

    async fn release(&self, hold: &Hold) -> Result<u64, Error> {
        let (done, outcome) = oneshot::channel();
        self.shared.submit(Change::Release { hold: hold.clone(), done }).await?;
        asked(outcome).await
    }

    fn usage(&self) -> Usage {
        let (stored_bytes, objects) = {
            let table = self.shared.table();
            (table.stored_bytes(), table.objects())
        };
        let (spool_bytes, max_bytes) = (self.shared.spool.spool_bytes(), self.shared.spool.max_bytes());
        Usage { stored_bytes, spool_bytes, max_bytes, objects }
    }

    async fn close(&self) {
        drop(self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.scope.finished().await;
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
