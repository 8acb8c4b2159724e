//! Cases about holds: what keeps an object, and when it goes.

use sheaf_domain::ErrorKind;

use super::{Fixture, hold, noise, put, read_all};

/// The second copy of equal bytes is merged with the first.
pub async fn equal_bytes_are_kept_once_under_two_holds(fixture: Fixture) {
    let store = &*fixture.store;
    let bytes = noise(20, 50_000);
    let first = put(store, &hold("task/1"), bytes.clone()).await.unwrap();
    let second = put(store, &hold("task/2"), bytes.clone()).await.unwrap();
    assert_eq!(first, second);
    let again = put(store, &hold("task/2"), bytes.clone()).await.unwrap();
    assert_eq!(first, again);
    let usage = store.usage();
    assert_eq!((usage.objects, usage.stored_bytes), (1, 50_000));
    for keeper in ["task/1", "task/2"] {
        assert_eq!(store.held(&hold(keeper)).await.unwrap(), [(first.digest, 50_000)]);
    }
    assert_eq!(read_all(store, first).await.unwrap(), bytes);
}

/// An object lives as long as one hold on it does.
pub async fn only_the_last_release_frees(fixture: Fixture) {
    let store = &*fixture.store;
    let bytes = noise(21, 5_000);
    let stored = put(store, &hold("task/1"), bytes.clone()).await.unwrap();
    put(store, &hold("task/2"), bytes.clone()).await.unwrap();
    assert_eq!(store.release(&hold("task/1")).await.unwrap(), 0);
    assert_eq!(read_all(store, stored).await.unwrap(), bytes);
    assert_eq!(store.release(&hold("task/2")).await.unwrap(), 5_000);
    assert_eq!(read_all(store, stored).await.unwrap_err().kind(), ErrorKind::NotFound);
    let usage = store.usage();
    assert_eq!((usage.objects, usage.stored_bytes), (0, 0));
}

/// Releasing again, or releasing what never was, frees nothing and is no error.
pub async fn release_is_idempotent(fixture: Fixture) {
    let store = &*fixture.store;
    put(store, &hold("task/1"), noise(22, 700)).await.unwrap();
    assert_eq!(store.release(&hold("task/1")).await.unwrap(), 700);
    assert_eq!(store.release(&hold("task/1")).await.unwrap(), 0);
    assert_eq!(store.release(&hold("never/was")).await.unwrap(), 0);
}

/// A hold added later keeps an object like the first one does.
pub async fn a_hold_can_be_added_to_a_stored_object(fixture: Fixture) {
    let store = &*fixture.store;
    let stored = put(store, &hold("upload/1"), noise(23, 700)).await.unwrap();
    assert!(store.hold(&stored.digest, &hold("run/1/version/global/0")).await.unwrap());
    assert!(store.hold(&stored.digest, &hold("run/1/version/global/0")).await.unwrap());
    assert_eq!(store.release(&hold("upload/1")).await.unwrap(), 0);
    assert_eq!(store.len(&stored.digest).await.unwrap(), Some(700));
    assert_eq!(store.release(&hold("run/1/version/global/0")).await.unwrap(), 700);
    assert!(!store.hold(&stored.digest, &hold("task/1")).await.unwrap());
}

/// Every hold is listed once, in order, while it keeps something.
pub async fn holds_are_listed_in_order(fixture: Fixture) {
    let store = &*fixture.store;
    for (idx, keeper) in ["task/b", "task/a", "run/9", "task/b"].into_iter().enumerate() {
        put(store, &hold(keeper), noise(30 + idx as u64, 100)).await.unwrap();
    }
    assert_eq!(store.holds().await.unwrap(), [hold("run/9"), hold("task/a"), hold("task/b")]);
    store.release(&hold("task/a")).await.unwrap();
    assert_eq!(store.holds().await.unwrap(), [hold("run/9"), hold("task/b")]);
    assert!(store.held(&hold("task/a")).await.unwrap().is_empty());
}

/// A hold keeps all its objects, listed by digest, and frees them together.
pub async fn one_hold_keeps_many_objects(fixture: Fixture) {
    let store = &*fixture.store;
    let mut expected = Vec::new();
    for idx in 0..20 {
        let stored = put(store, &hold("task/1"), noise(40 + idx, 100)).await.unwrap();
        expected.push((stored.digest, 100));
    }
    expected.sort_unstable();
    assert_eq!(store.held(&hold("task/1")).await.unwrap(), expected);
    assert_eq!(store.release(&hold("task/1")).await.unwrap(), 2_000);
    assert_eq!(store.usage().objects, 0);
}

/// What was released can be stored again.
pub async fn an_object_can_come_back_after_its_release(fixture: Fixture) {
    let store = &*fixture.store;
    let bytes = noise(24, 10_000);
    for _ in 0..3 {
        let stored = put(store, &hold("task/1"), bytes.clone()).await.unwrap();
        assert_eq!(read_all(store, stored).await.unwrap(), bytes);
        assert_eq!(store.release(&hold("task/1")).await.unwrap(), 10_000);
    }
}
