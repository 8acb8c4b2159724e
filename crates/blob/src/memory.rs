//! The blob store in memory, for tests and simulation: nothing survives the process.
//!
//! Same semantics and limits as the other backends; refuses nothing they would take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use sheaf_domain::{ByteSize, Digest, Hasher, Segment};

use crate::table::Table;
use crate::{BlobStore, Error, Hold, ObjectWriter, Stored, Usage};

/// Objects in memory.
#[derive(Debug)]
pub struct MemoryBlobs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    max_bytes: u64,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    table: Table<Bytes>,
    reserved: u64,
}

impl MemoryBlobs {
    /// An empty store that takes at most `max_bytes`.
    pub fn new(max_bytes: ByteSize) -> MemoryBlobs {
        MemoryBlobs(Arc::new(Shared {
            state: Mutex::default(),
            max_bytes: max_bytes.as_bytes(),
            closed: AtomicBool::new(false),
        }))
    }

    fn read_now(&self, object: &Digest, offset: u64, len: u64) -> Result<Bytes, Error> {
        let state = self.0.lock();
        let found = state.table.range(object, offset, len)?;
        // `range` has checked that both ends lie inside the bytes, whose length is a usize.
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start + usize::try_from(len).unwrap_or(usize::MAX);
        Ok(found.place.slice(start..end))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn writer(&self, hold: &Hold, len: u64) -> Result<Box<dyn ObjectWriter>, Error> {
        self.0.open()?;
        let mut state = self.0.lock();
        let used = state.table.stored_bytes() + state.reserved;
        if len > self.0.max_bytes.saturating_sub(used) {
            return Err(Error::Full { requested: len, used, max: self.0.max_bytes });
        }
        state.reserved += len;
        Ok(Box::new(MemoryWriter {
            shared: Arc::clone(&self.0),
            hold: hold.clone(),
            declared: len,
            bytes: BytesMut::new(),
            hasher: Hasher::new(),
            failed: false,
        }))
    }

    async fn read(&self, object: &Digest, offset: u64, len: u64) -> Result<Bytes, Error> {
        self.read_now(object, offset, len)
    }

    async fn read_many(&self, segments: &[Segment]) -> Result<Vec<Bytes>, Error> {
        segments.iter().map(|segment| self.read_now(&segment.object, segment.offset, segment.len)).collect()
    }

    async fn len(&self, object: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.0.lock().table.object(object).map(|found| found.len))
    }

    async fn hold(&self, object: &Digest, hold: &Hold) -> Result<bool, Error> {
        self.0.open()?;
        Ok(self.0.lock().table.hold(object, hold))
    }

    async fn held(&self, hold: &Hold) -> Result<Vec<(Digest, u64)>, Error> {
        Ok(self.0.lock().table.held(hold))
    }

    async fn holds(&self) -> Result<Vec<Hold>, Error> {
        Ok(self.0.lock().table.holds().map(|(hold, _)| hold.clone()).collect())
    }

    async fn release(&self, hold: &Hold) -> Result<u64, Error> {
        self.0.open()?;
        Ok(self.0.lock().table.release(hold).iter().map(|object| object.len).sum())
    }

    fn usage(&self) -> Usage {
        let state = self.0.lock();
        Usage {
            stored_bytes: state.table.stored_bytes(),
            spool_bytes: state.table.stored_bytes() + state.reserved,
            max_bytes: self.0.max_bytes,
            objects: state.table.objects(),
        }
    }

    async fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
    }
}

/// An object being taken in; its declared length is reserved until it is finished or dropped.
struct MemoryWriter {
    shared: Arc<Shared>,
    hold: Hold,
    declared: u64,
    bytes: BytesMut,
    hasher: Hasher,
    failed: bool,
}

impl std::fmt::Debug for MemoryWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryWriter").field("hold", &self.hold).field("declared", &self.declared).finish()
    }
}

#[async_trait]
impl ObjectWriter for MemoryWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        if self.failed {
            return Err(Error::Incomplete);
        }
        let received = self.bytes.len() as u64 + bytes.len() as u64;
        if received > self.declared {
            self.failed = true;
            return Err(Error::Length { declared: self.declared, received });
        }
        self.hasher.update(&bytes);
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(mut self: Box<Self>, expected: Option<Digest>) -> Result<Stored, Error> {
        self.shared.open()?;
        if self.failed {
            return Err(Error::Incomplete);
        }
        let len = self.bytes.len() as u64;
        if len != self.declared {
            return Err(Error::Length { declared: self.declared, received: len });
        }
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::DigestMismatch { expected, found: digest });
        }
        let bytes = self.bytes.split().freeze();
        let mut state = self.shared.lock();
        state.reserved -= std::mem::take(&mut self.declared);
        state.table.put(digest, bytes, len, &self.hold);
        drop(state);
        Ok(Stored { digest, len })
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        self.shared.lock().reserved -= self.declared;
    }
}
