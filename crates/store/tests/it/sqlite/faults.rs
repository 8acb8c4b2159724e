//! A full store, a database that fails, damaged rows; and writes that share a commit with them.

use std::path::Path;

use sheaf_domain::ErrorKind;
use sheaf_store::{Error, OpenOptions, SqliteStore, StateStore};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use super::{append_to, at, checked_bodies, journal, lease, open, path_in};

async fn open_small(path: &Path) -> SqliteStore {
    SqliteStore::open(path, OpenOptions { pages_max: Some(64), ..OpenOptions::default() }).await.unwrap()
}

/// Changes the file behind the store's back.
async fn meddle(path: &Path, sql: &'static str) {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_full_store_refuses_and_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open_small(&path_in(&dir)).await;
    let (first, second) = (lease(&store, journal(1)).await, lease(&store, journal(2)).await);
    let body = "x".repeat(10_000);
    let mut seq = 0;
    let refused = loop {
        let batch = vec![append_to(&first, seq, &[&body]), append_to(&second, seq, &[&body])];
        match store.append(batch).await {
            Ok(_) => seq += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Error::Full(_)), "{refused:?}");
    assert_eq!((refused.kind(), refused.is_transient()), (ErrorKind::Exhausted, true));
    assert!(seq > 0);
    for _ in 0..3 {
        let batch = vec![append_to(&second, seq, &["small"]), append_to(&first, seq, &[&body, &body])];
        assert!(matches!(store.append(batch).await, Err(Error::Full(_))));
    }
    assert_eq!(checked_bodies(&store, journal(1)).await.len() as u64, seq);
    assert_eq!(checked_bodies(&store, journal(2)).await.len() as u64, seq);
    assert_eq!(*store.watch(journal(1)).borrow(), seq);
    store.close().await;
    let larger = open(&path_in(&dir)).await;
    larger.append(vec![append_to(&first, seq, &[&body]), append_to(&second, seq, &[&body])]).await.unwrap();
    assert_eq!(checked_bodies(&larger, journal(2)).await.len() as u64, seq + 1);
}

#[tokio::test]
async fn a_fault_ends_every_write_of_its_commit() {
    let dir = TempDir::new().unwrap();
    let store = open_small(&path_in(&dir)).await;
    let held = lease(&store, journal(1)).await;
    let body = "x".repeat(1 << 20);
    for _ in 0..2 {
        // All three wait before the task that writes runs, and so share a commit.
        let (before, full, after) = tokio::join!(
            store.put_setting("before", "1"),
            store.append(vec![append_to(&held, 0, &[&body])]),
            store.put_setting("after", "1"),
        );
        let outcomes = [before, full.map(drop), after];
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Full(_)))), "{outcomes:?}");
        assert_eq!(store.setting("before").await.unwrap(), None);
        assert_eq!(store.setting("after").await.unwrap(), None);
    }
    store.put_setting("before", "1").await.unwrap();
    store.append(vec![append_to(&held, 0, &["small"])]).await.unwrap();
}

#[tokio::test]
async fn a_refusal_disturbs_no_other_write_of_its_commit() {
    let dir = TempDir::new().unwrap();
    let store = open(&path_in(&dir)).await;
    let (first, second) = (lease(&store, journal(1)).await, lease(&store, journal(2)).await);
    let (before, refused, after) = tokio::join!(
        store.append(vec![append_to(&first, 0, &["before"])]),
        // Its first part fits, and is taken back with the second.
        store.append(vec![append_to(&first, 1, &["taken back"]), append_to(&second, 9, &["misfit"])]),
        store.append(vec![append_to(&first, 1, &["after"])]),
    );
    before.unwrap();
    assert!(matches!(refused, Err(Error::WrongSeq { expected: 9, .. })), "{refused:?}");
    after.unwrap();
    assert_eq!(checked_bodies(&store, journal(1)).await, ["before", "after"]);
    assert_eq!(checked_bodies(&store, journal(2)).await, [""; 0]);
}

#[tokio::test]
async fn a_database_that_fails_is_tried_again() {
    let dir = TempDir::new().unwrap();
    let store = open(&path_in(&dir)).await;
    let held = lease(&store, journal(1)).await;
    meddle(&path_in(&dir), "ALTER TABLE entries RENAME TO hidden").await;
    for _ in 0..2 {
        let failed = store.append(vec![append_to(&held, 0, &["lost"])]).await.unwrap_err();
        assert!(matches!(failed, Error::Database(_)), "{failed:?}");
        assert_eq!(failed.kind(), ErrorKind::Unavailable);
        assert_eq!(store.entries(journal(1), 0, 1).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    meddle(&path_in(&dir), "ALTER TABLE hidden RENAME TO entries").await;
    store.append(vec![append_to(&held, 0, &["kept"])]).await.unwrap();
    assert_eq!(checked_bodies(&store, journal(1)).await, ["kept"]);
}

#[tokio::test]
async fn a_damaged_row_is_named_and_not_believed() {
    let dir = TempDir::new().unwrap();
    let store = open(&path_in(&dir)).await;
    let held = lease(&store, journal(1)).await;
    store.append(vec![append_to(&held, 0, &["one", "two"])]).await.unwrap();
    meddle(&path_in(&dir), "UPDATE entries SET body = 'forged' WHERE seq = 1").await;
    let forged = store.entries(journal(1), 0, 1).await.unwrap();
    let first = forged.first().unwrap();
    assert!(first.check_follows(journal(1), (0, sheaf_domain::GENESIS)).is_err());
    meddle(&path_in(&dir), "UPDATE entries SET hash = X'00' WHERE seq = 2").await;
    let damaged = store.entries(journal(1), 1, 1).await.unwrap_err();
    assert_eq!(damaged.to_string(), "stored hash is damaged: it is not 32 bytes long");
    assert_eq!(damaged.kind(), ErrorKind::Internal);
    meddle(&path_in(&dir), "UPDATE journals SET lease_epoch = -1, journal = journal").await;
    let damaged =
        store.renew_lease(journal(1), 1, sheaf_domain::Span::from_secs(1), at(0)).await.unwrap_err();
    assert_eq!(damaged.kind(), ErrorKind::Internal);
    store.put_setting("still", "here").await.unwrap();
}
