//! One file opened twice: the data directory's lock forbids it to servers; here, transactions must not mix all the same.

use sheaf_domain::Span;
use sheaf_store::{Error, StateStore};
use tempfile::TempDir;

use super::{append_to, at, checked_bodies, journal, open, path_in};

#[tokio::test]
async fn two_openings_of_one_file_fence_each_other() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (open(&path_in(&dir)).await, open(&path_in(&dir)).await);
    let ttl = Span::from_millis(100);
    let first = one.acquire_lease(journal(1), "one", ttl, at(0)).await.unwrap();
    one.append(vec![append_to(&first, 0, &["one"])]).await.unwrap();
    assert!(matches!(two.acquire_lease(journal(1), "two", ttl, at(50)).await, Err(Error::LeaseHeld { .. })));
    let second = two.acquire_lease(journal(1), "two", ttl, at(100)).await.unwrap();
    two.append(vec![append_to(&second, 1, &["two"])]).await.unwrap();
    let late = one.append(vec![append_to(&first, 1, &["late"])]).await;
    assert!(matches!(late, Err(Error::Fenced { epoch: 1, .. })), "{late:?}");
    assert_eq!(checked_bodies(&one, journal(1)).await, ["one", "two"]);
    assert_eq!((*one.watch(journal(1)).borrow(), *two.watch(journal(1)).borrow()), (1, 2));
}

#[tokio::test]
async fn writes_of_two_openings_at_once_are_put_in_an_order() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (open(&path_in(&dir)).await, open(&path_in(&dir)).await);
    let ttl = Span::from_secs(60);
    let first = one.acquire_lease(journal(1), "one", ttl, at(0)).await.unwrap();
    let second = two.acquire_lease(journal(2), "two", ttl, at(0)).await.unwrap();
    for seq in 0..50 {
        let (a, b) = tokio::join!(
            one.append(vec![append_to(&first, seq, &["one"])]),
            two.append(vec![append_to(&second, seq, &["two"])]),
        );
        a.unwrap();
        b.unwrap();
    }
    assert_eq!(checked_bodies(&two, journal(1)).await.len(), 50);
    assert_eq!(checked_bodies(&one, journal(2)).await.len(), 50);
}
