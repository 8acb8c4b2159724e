//! The conformance suite: what every blob store must do, written once against the trait.
//!
//! [`blob_suite!`](crate::blob_suite) stamps it out for a backend. It refuses nothing about how a backend works, only
//! what can be seen through the trait. Needs `tokio` with macros and the multi-thread runtime where it is stamped out.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "cases of a test suite fail by panicking"
)]

pub mod concurrent;
pub mod holds;
pub mod objects;
pub mod quota;

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use sheaf_domain::rng::SeededRng;

use crate::{BlobStore, Error, Hold, Stored};

/// The limit a store under test is made with, in bytes.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A fresh, empty store that takes [`MAX_BYTES`], and what must live as long as it.
#[derive(Debug)]
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn BlobStore>,
    /// A directory or a server that the store needs.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Stamps out the suite as module `$name`, one test per case; `$make` is an `async fn() -> Fixture`.
#[macro_export]
macro_rules! blob_suite {
    ($name:ident, $make:ident) => {
        mod $name {
            $crate::blob_suite!(@cases $make, objects:
                an_object_reads_back whole_and_ranged_reads_agree reads_outside_an_object_are_refused
                an_unknown_object_is_not_found fewer_bytes_than_declared_are_refused
                more_bytes_than_declared_are_refused another_digest_is_refused an_empty_object_is_an_object
                pieces_of_any_size_make_the_same_object many_ranges_read_in_order
                a_stored_object_verifies nothing_is_visible_before_it_is_finished);
            $crate::blob_suite!(@cases $make, holds:
                equal_bytes_are_kept_once_under_two_holds only_the_last_release_frees release_is_idempotent
                a_hold_can_be_added_to_a_stored_object holds_are_listed_in_order
                one_hold_keeps_many_objects an_object_can_come_back_after_its_release);
            $crate::blob_suite!(@cases $make, quota:
                the_limit_refuses_by_name a_release_makes_room_again a_dropped_writer_gives_its_room_back
                a_refused_object_gives_its_room_back an_object_beyond_the_limit_is_refused
                churn_within_the_limit_never_fills_the_store);
            $crate::blob_suite!(@cases $make, concurrent:
                writers_of_different_objects_do_not_mix writers_of_equal_objects_end_with_one
                reads_during_releases_never_see_other_bytes a_closed_store_takes_nothing_more);
        }
    };
    (@cases $make:ident, $group:ident: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::suite::$group::$case(super::$make().await).await;
            }
        )*
    };
}

/// A hold; the text must be well formed.
pub fn hold(text: &str) -> Hold {
    Hold::new(text).unwrap()
}

/// `len` bytes that differ for every `seed`.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut rng = SeededRng::new(seed, "blob suite");
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        let random = rng.next_u64().to_le_bytes();
        chunk.iter_mut().zip(random).for_each(|(byte, random)| *byte = random);
    }
    Bytes::from(bytes)
}

/// Stores `bytes` under `hold`, in one piece.
///
/// # Errors
/// Those of the store.
pub async fn put(store: &dyn BlobStore, hold: &Hold, bytes: Bytes) -> Result<Stored, Error> {
    let mut writer = store.writer(hold, bytes.len() as u64).await?;
    writer.write(bytes).await?;
    writer.finish(None).await
}

/// The whole object, read in one piece.
///
/// # Errors
/// Those of the store.
pub async fn read_all(store: &dyn BlobStore, stored: Stored) -> Result<Bytes, Error> {
    store.read(&stored.digest, 0, stored.len).await
}
