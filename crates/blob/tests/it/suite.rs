//! The conformance suite, stamped out for each backend.

use std::sync::Arc;

use sheaf_blob::suite::{Fixture, MAX_BYTES};
use sheaf_blob::{DiskBlobs, MemoryBlobs, OpenOptions};
use sheaf_domain::ByteSize;

async fn memory() -> Fixture {
    Fixture { store: Arc::new(MemoryBlobs::new(ByteSize::from_bytes(MAX_BYTES))), keep: Box::new(()) }
}

async fn disk() -> Fixture {
    disk_with_segments_of(1024 * 1024).await
}

/// Segments shorter than most objects of the suite: these get files of their own.
async fn disk_with_short_segments() -> Fixture {
    disk_with_segments_of(64 * 1024).await
}

async fn disk_with_segments_of(segment_len: u64) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        max_bytes: ByteSize::from_bytes(MAX_BYTES),
        segment_len: ByteSize::from_bytes(segment_len),
        ..OpenOptions::default()
    };
    let store = DiskBlobs::open(dir.path(), options).await.unwrap();
    Fixture { store: Arc::new(store), keep: Box::new(dir) }
}

sheaf_blob::blob_suite!(memory_store, memory);
sheaf_blob::blob_suite!(disk_store, disk);
sheaf_blob::blob_suite!(disk_store_with_short_segments, disk_with_short_segments);
