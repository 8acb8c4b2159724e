//! Copies of a live store.

use sheaf_domain::ErrorKind;
use sheaf_store::{Error, StateStore};
use tempfile::TempDir;

use super::{append_to, checked_bodies, journal, lease, open, path_in};

#[tokio::test]
async fn a_copy_made_during_appends_opens_and_its_chain_holds() {
    let dir = TempDir::new().unwrap();
    let store = open(&path_in(&dir)).await;
    let (first, second) = (lease(&store, journal(1)).await, lease(&store, journal(2)).await);
    for seq in 0..200 {
        let batch = vec![append_to(&first, seq, &["before"]), append_to(&second, seq, &["before"])];
        store.append(batch).await.unwrap();
    }
    let copies = ["one.sqlite", "two.sqlite", "three.sqlite"].map(|name| dir.path().join(name));
    let copying = async {
        for copy in &copies {
            store.backup_to(copy).await.unwrap();
        }
    };
    tokio::pin!(copying);
    let mut seq = 200;
    loop {
        let batch = vec![append_to(&first, seq, &["during"]), append_to(&second, seq, &["during"])];
        tokio::select! {
            biased;
            () = &mut copying => break,
            appended = store.append(batch) => {
                appended.unwrap();
                seq += 1;
            }
        }
    }
    store.close().await;
    for copy in &copies {
        let copied = open(copy).await;
        let bodies = checked_bodies(&copied, journal(1)).await;
        assert_eq!(checked_bodies(&copied, journal(2)).await, bodies);
        assert!(bodies.len() >= 200, "{} entries", bodies.len());
        let held = lease(&copied, journal(1)).await;
        assert!(held.epoch > first.epoch);
        copied.append(vec![append_to(&held, bodies.len() as u64, &["after"])]).await.unwrap();
        copied.close().await;
    }
}

#[tokio::test]
async fn a_file_that_exists_is_not_overwritten() {
    let dir = TempDir::new().unwrap();
    let store = open(&path_in(&dir)).await;
    let taken = dir.path().join("taken");
    std::fs::write(&taken, "mine").unwrap();
    let refused = store.backup_to(&taken).await.unwrap_err();
    assert!(matches!(&refused, Error::Io { path, .. } if *path == taken), "{refused:?}");
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
    let nowhere = store.backup_to(&dir.path().join("no-directory/copy")).await.unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn what_a_crash_left_of_a_copy_is_replaced() {
    let dir = TempDir::new().unwrap();
    let store = open(&path_in(&dir)).await;
    store.put_setting("instance", "one").await.unwrap();
    let partial = dir.path().join(".copy.partial");
    std::fs::write(&partial, "half a copy").unwrap();
    store.backup_to(&dir.path().join("copy")).await.unwrap();
    assert!(!partial.exists());
    let copied = open(&dir.path().join("copy")).await;
    assert_eq!(copied.setting("instance").await.unwrap().as_deref(), Some("one"));
}
