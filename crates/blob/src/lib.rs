//! The blob store: bytes of models and updates as immutable objects, named by their SHA-256 and kept by holds.
//!
//! One trait, [`BlobStore`], two backends ([`MemoryBlobs`], [`DiskBlobs`]) and one conformance [`suite`] that both
//! pass. It knows nothing of models or runs, and never looks into an object.
//!
//! Invariants: an object that was acknowledged is durable, whole and has the digest it is named by; it lives exactly
//! as long as a hold on it; its room is used again only when its release is durable and nobody reads it any more; no
//! store takes more than its `max_bytes`.

mod direct;
mod disk;
mod error;
pub mod files;
mod hash;
mod hold;
mod memory;
mod store;
pub mod suite;
mod table;

pub use disk::{DiskBlobs, OpenOptions};
pub use error::Error;
pub use hash::digests_of_pair;
pub use hold::Hold;
pub use memory::MemoryBlobs;
pub use store::{BlobStore, ObjectWriter, Stored, Usage};
