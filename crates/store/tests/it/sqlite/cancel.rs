//! Callers that go away in the middle of a write.

use sheaf_store::StateStore;
use tempfile::TempDir;

use super::{append_to, checked_bodies, journal, lease, open, path_in};

#[tokio::test]
async fn a_dropped_append_is_carried_out_whole() {
    let dir = TempDir::new().unwrap();
    let store = open(&path_in(&dir)).await;
    let (first, second) = (lease(&store, journal(1)).await, lease(&store, journal(2)).await);
    let listener = store.watch(journal(2));
    for seq in 0..20 {
        let batch = vec![append_to(&first, seq, &["a"]), append_to(&second, 2 * seq, &["b", "c"])];
        tokio::select! {
            biased;
            _ = store.append(batch) => panic!("an append is never done at its first poll"),
            () = std::future::ready(()) => {}
        }
        // Writes are carried out in order: when this one returns, the dropped one is done.
        store.put_setting("round", "over").await.unwrap();
        assert_eq!(
            (checked_bodies(&store, journal(1)).await.len() as u64, *listener.borrow()),
            (seq + 1, 2 * seq + 2)
        );
    }
    store.close().await;
    let again = open(&path_in(&dir)).await;
    assert_eq!(checked_bodies(&again, journal(2)).await.len(), 40);
}

#[tokio::test]
async fn closing_finishes_what_was_begun() {
    let dir = TempDir::new().unwrap();
    let store = open(&path_in(&dir)).await;
    let held = lease(&store, journal(1)).await;
    // In this order: the append has been handed over when the closing begins.
    let (appended, ()) = tokio::join!(
        biased;
        store.append(vec![append_to(&held, 0, &["begun"])]),
        store.close(),
    );
    appended.unwrap();
    let again = open(&path_in(&dir)).await;
    assert_eq!(checked_bodies(&again, journal(1)).await, ["begun"]);
}
