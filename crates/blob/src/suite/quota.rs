//! Cases about `max_bytes`.

use sheaf_domain::ErrorKind;

use super::{Fixture, MAX_BYTES, hold, noise, put, read_all};
use crate::{BlobStore, Error};

const OBJECT_LEN: u64 = 400_000;

/// Stores objects under holds `task/0`, `task/1`, … until the store is full; returns how many and the refusal.
async fn fill(store: &dyn BlobStore) -> (u64, Error) {
    let mut stored = 0;
    loop {
        let keeper = hold(&format!("task/{stored}"));
        match put(store, &keeper, noise(100 + stored, 400_000)).await {
            Ok(_) => stored += 1,
            Err(error) => return (stored, error),
        }
    }
}

/// A full store says what was asked for, what is in use and what the limit is; what is stored stays readable.
pub async fn the_limit_refuses_by_name(fixture: Fixture) {
    let store = &*fixture.store;
    let (stored, error) = fill(store).await;
    assert!((1..=MAX_BYTES / OBJECT_LEN).contains(&stored), "{stored}");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    match error {
        Error::Full { requested, used, max } => {
            assert_eq!((requested, max), (OBJECT_LEN, MAX_BYTES));
            assert!((OBJECT_LEN * stored..=max).contains(&used), "{used}");
        }
        other => panic!("{other}"),
    }
    assert!(store.usage().spool_bytes <= MAX_BYTES);
    for idx in 0..stored {
        for (digest, len) in store.held(&hold(&format!("task/{idx}"))).await.unwrap() {
            assert_eq!(store.read(&digest, 0, len).await.unwrap(), noise(100 + idx, 400_000));
        }
    }
}

/// As much as was released can be stored again.
pub async fn a_release_makes_room_again(fixture: Fixture) {
    let store = &*fixture.store;
    let (stored, _) = fill(store).await;
    for idx in 0..stored {
        assert_eq!(store.release(&hold(&format!("task/{idx}"))).await.unwrap(), OBJECT_LEN);
    }
    let (again, _) = fill(store).await;
    assert_eq!(again, stored);
    store.release(&hold("task/0")).await.unwrap();
    let stored = put(store, &hold("task/new"), noise(99, 400_000)).await.unwrap();
    assert_eq!(read_all(store, stored).await.unwrap(), noise(99, 400_000));
}

/// Room reserved for an object that is given up is free again.
pub async fn a_dropped_writer_gives_its_room_back(fixture: Fixture) {
    let store = &*fixture.store;
    for _ in 0..50 {
        let mut writer = store.writer(&hold("task/1"), OBJECT_LEN).await.unwrap();
        writer.write(noise(50, 300_000)).await.unwrap();
    }
    let mut open = Vec::new();
    while let Ok(writer) = store.writer(&hold("task/1"), OBJECT_LEN).await {
        open.push(writer);
        assert!(open.len() as u64 <= MAX_BYTES / OBJECT_LEN, "reservations must count");
    }
    assert!(!open.is_empty());
    drop(open);
    store.writer(&hold("task/1"), OBJECT_LEN).await.unwrap();
}

/// Room reserved for an object that is refused is free again.
pub async fn a_refused_object_gives_its_room_back(fixture: Fixture) {
    let store = &*fixture.store;
    for _ in 0..50 {
        let mut writer = store.writer(&hold("task/1"), OBJECT_LEN).await.unwrap();
        writer.write(noise(51, 300_000)).await.unwrap();
        assert!(writer.finish(None).await.is_err());
    }
    put(store, &hold("task/1"), noise(52, 400_000)).await.unwrap();
}

/// An object that could never fit is refused before its first byte.
pub async fn an_object_beyond_the_limit_is_refused(fixture: Fixture) {
    let store = &*fixture.store;
    for len in [MAX_BYTES + 1, u64::MAX / 2, u64::MAX] {
        let error = store.writer(&hold("task/1"), len).await.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{len}: {error}");
    }
    put(store, &hold("task/1"), noise(53, 400_000)).await.unwrap();
}

/// Storing and releasing objects of many lengths for long does not use up the store.
pub async fn churn_within_the_limit_never_fills_the_store(fixture: Fixture) {
    let store = &*fixture.store;
    for round in 0..60_u64 {
        let len = usize::try_from(1 + round * 37_123 % 300_000).unwrap();
        let stored = put(store, &hold(&format!("task/{round}")), noise(200 + round, len)).await.unwrap();
        assert_eq!(read_all(store, stored).await.unwrap(), noise(200 + round, len));
        if round >= 4 {
            assert!(store.release(&hold(&format!("task/{}", round - 4))).await.unwrap() > 0);
        }
        assert!(store.usage().spool_bytes <= MAX_BYTES);
    }
}
