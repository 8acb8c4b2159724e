//! The blob store's trait: objects are written once, whole, and are named by the SHA-256 of their bytes.
//!
//! Object-store semantics: there is no seek, no overwrite, no append to a finished object, and no listing by prefix.
//! An object becomes visible when it is durable, and stays while a hold on it does.

use async_trait::async_trait;
use bytes::Bytes;
use sheaf_domain::{Digest, Hasher, Segment};

use crate::{Error, Hold};

/// What an object became when it was finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The SHA-256 of its bytes: its name.
    pub digest: Digest,
    /// How many bytes it has.
    pub len: u64,
}

/// How much a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of stored objects, each counted once.
    pub stored_bytes: u64,
    /// Bytes taken from `max_bytes`: of all spool files where there are such, else stored and reserved bytes.
    pub spool_bytes: u64,
    /// The most bytes the store may take.
    pub max_bytes: u64,
    /// Stored objects.
    pub objects: u64,
}

/// A store of immutable objects.
#[async_trait]
pub trait BlobStore: Send + Sync + std::fmt::Debug + 'static {
    /// Begins an object of exactly `len` bytes that will be kept by `hold`, and reserves room for it.
    ///
    /// # Errors
    /// [`Error::Full`] when the store's limit is reached, [`Error::DiskFull`] when the disk's is.
    /// # Cancel safety
    /// Dropping the future gives the reservation back.
    async fn writer(&self, hold: &Hold, len: u64) -> Result<Box<dyn ObjectWriter>, Error>;

    /// Reads `len` bytes of an object from `offset`. Bytes of another object are never returned, whatever is released
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::OutOfRange`] when the object ends earlier.
    /// # Cancel safety
    /// Safe.
    async fn read(&self, object: &Digest, offset: u64, len: u64) -> Result<Bytes, Error>;

    /// Reads several stretches, each as [`BlobStore::read`] would, in the order given.
    ///
    /// # Errors
    /// As [`BlobStore::read`], for the first stretch that cannot be read.
    /// # Cancel safety
    /// Safe.
    async fn read_many(&self, segments: &[Segment]) -> Result<Vec<Bytes>, Error>;

    /// The length of an object in bytes; `None` when it is not stored.
    ///
    /// # Errors
    /// When the store cannot tell.
    /// # Cancel safety
    /// Safe.
    async fn len(&self, object: &Digest) -> Result<Option<u64>, Error>;

    /// Adds a hold to an object; `false` when the object is not stored. Adding it again changes nothing.
    ///
    /// # Errors
    /// When the hold cannot be made durable.
    /// # Cancel safety
    /// Dropping the future leaves open whether the hold was added.
    async fn hold(&self, object: &Digest, hold: &Hold) -> Result<bool, Error>;

    /// The objects kept by `hold` with their lengths, in order of digest.
    ///
    /// # Errors
    /// When the store cannot tell.
    /// # Cancel safety
    /// Safe.
    async fn held(&self, hold: &Hold) -> Result<Vec<(Digest, u64)>, Error>;

    /// All holds, in order; for sweeping after a restart.
    ///
    /// # Errors
    /// When the store cannot tell.
    /// # Cancel safety
    /// Safe.
    async fn holds(&self) -> Result<Vec<Hold>, Error>;

    /// Ends a hold; objects without another hold are freed. Returns the bytes of objects freed; a hold that is not
    /// known frees nothing. Durable before any of the space is used again.
    ///
    /// # Errors
    /// When the release cannot be made durable; it may be asked for again.
    /// # Cancel safety
    /// Dropping the future leaves open whether the hold ended.
    async fn release(&self, hold: &Hold) -> Result<u64, Error>;

    /// How much the store keeps now.
    fn usage(&self) -> Usage;

    /// Hashes a stored object again and compares it with its name.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] when the bytes have changed; [`Error::NotFound`].
    /// # Cancel safety
    /// Safe.
    async fn verify(&self, object: &Digest) -> Result<(), Error> {
        let len = self.len(object).await?.ok_or(Error::NotFound { object: *object })?;
        let mut hasher = Hasher::new();
        let mut offset = 0;
        while offset < len {
            let part = self.read(object, offset, VERIFY_LEN.min(len - offset)).await?;
            offset += part.len() as u64;
            hasher.update(&part);
        }
        let found = hasher.finish();
        if found == *object { Ok(()) } else { Err(Error::DigestMismatch { expected: *object, found }) }
    }

    /// Finishes what was asked for, then refuses changes with [`Error::Closed`].
    ///
    /// # Cancel safety
    /// It may be called again.
    async fn close(&self);
}

/// Takes in the bytes of one object. Dropping it unfinished gives its room back.
#[async_trait]
pub trait ObjectWriter: Send + std::fmt::Debug {
    /// Takes in the next bytes.
    ///
    /// # Errors
    /// [`Error::Length`] when they are more than were declared; [`Error::Incomplete`] after an earlier failure.
    /// # Cancel safety
    /// Not safe: after a dropped future the object can only be aborted.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// Ends the object; returns when bytes and hold are durable. Bytes that are stored already are kept once.
    ///
    /// # Errors
    /// [`Error::Length`] when bytes are missing, [`Error::DigestMismatch`] when `expected` is not their digest;
    /// the object is not stored then.
    /// # Cancel safety
    /// Dropping the future leaves open whether the object was stored; never is it stored in part.
    async fn finish(self: Box<Self>, expected: Option<Digest>) -> Result<Stored, Error>;
}

/// How much is hashed at a time when a stored object is verified, in bytes.
const VERIFY_LEN: u64 = 256 * 1024;
