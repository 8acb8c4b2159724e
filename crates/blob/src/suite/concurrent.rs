//! Cases about many callers at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sheaf_domain::{Digest, ErrorKind};
use sheaf_runtime::TaskScope;

use super::{Fixture, hold, noise, put, read_all};
use crate::Error;

/// Objects written at the same time in small pieces come out whole.
pub async fn writers_of_different_objects_do_not_mix(fixture: Fixture) {
    let scope = TaskScope::new();
    let mut tasks = Vec::new();
    for idx in 0..16 {
        let store = Arc::clone(&fixture.store);
        tasks.push(scope.spawn(async move {
            let mut rest = noise(300 + idx, 100_000);
            let mut writer = store.writer(&hold(&format!("task/{idx}")), 100_000).await.unwrap();
            while !rest.is_empty() {
                writer.write(rest.split_to(rest.len().min(9_999))).await.unwrap();
                tokio::task::yield_now().await;
            }
            writer.finish(None).await.unwrap()
        }));
    }
    for (idx, task) in tasks.into_iter().enumerate() {
        let stored = task.await.unwrap();
        assert_eq!(read_all(&*fixture.store, stored).await.unwrap(), noise(300 + idx as u64, 100_000));
    }
    assert_eq!(fixture.store.usage().objects, 16);
}

/// The same object written by many at the same time is kept once, for each of them.
pub async fn writers_of_equal_objects_end_with_one(fixture: Fixture) {
    let scope = TaskScope::new();
    let mut tasks = Vec::new();
    for idx in 0..16 {
        let store = Arc::clone(&fixture.store);
        tasks.push(scope.spawn(async move {
            put(&*store, &hold(&format!("task/{idx}")), noise(400, 100_000)).await.unwrap()
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().digest, Digest::of(&noise(400, 100_000)));
    }
    let usage = fixture.store.usage();
    assert_eq!((usage.objects, usage.stored_bytes), (1, 100_000));
    for idx in 0..16 {
        let freed = fixture.store.release(&hold(&format!("task/{idx}"))).await.unwrap();
        assert_eq!(freed, if idx == 15 { 100_000 } else { 0 });
    }
}

/// A read gives the object's bytes or says that it is gone, while its room is used again and again.
pub async fn reads_during_releases_never_see_other_bytes(fixture: Fixture) {
    const LEN: usize = 200_000;
    let scope = TaskScope::new();
    let done = Arc::new(AtomicBool::new(false));
    let digests: Arc<Vec<Digest>> = Arc::new((0..8).map(|idx| Digest::of(&noise(500 + idx, LEN))).collect());
    let mut readers = Vec::new();
    for _ in 0..2 {
        let (store, done, digests) = (Arc::clone(&fixture.store), Arc::clone(&done), Arc::clone(&digests));
        readers.push(scope.spawn(async move {
            let mut seen = 0_u32;
            while !done.load(Ordering::SeqCst) {
                for digest in digests.iter() {
                    match store.read(digest, 0, LEN as u64).await {
                        Ok(bytes) => {
                            assert_eq!(Digest::of(&bytes), *digest);
                            seen += 1;
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                    }
                }
                tokio::task::yield_now().await;
            }
            seen
        }));
    }
    for round in 0..80_u64 {
        let keeper = hold(&format!("task/{}", round % 3));
        put(&*fixture.store, &keeper, noise(500 + round % 8, LEN)).await.unwrap();
        fixture.store.release(&hold(&format!("task/{}", (round + 1) % 3))).await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let mut seen = 0;
    for reader in readers {
        seen += reader.await.unwrap();
    }
    assert!(seen > 0, "the readers must have met some objects");
}

/// After closing, changes are refused by name; closing again is no error.
pub async fn a_closed_store_takes_nothing_more(fixture: Fixture) {
    let store = &*fixture.store;
    let stored = put(store, &hold("task/1"), noise(600, 100)).await.unwrap();
    let open = store.writer(&hold("task/2"), 0).await.unwrap();
    store.close().await;
    store.close().await;
    assert!(matches!(open.finish(None).await, Err(Error::Closed)));
    assert!(matches!(store.writer(&hold("task/1"), 10).await, Err(Error::Closed)));
    assert!(matches!(store.hold(&stored.digest, &hold("task/2")).await, Err(Error::Closed)));
    assert!(matches!(store.release(&hold("task/1")).await, Err(Error::Closed)));
}
