//! A process is killed while it stores: what it acknowledged is there when the directory is opened again.

use std::path::Path;

use sheaf_blob::suite::{hold, noise, put};
use sheaf_blob::{BlobStore, DiskBlobs, OpenOptions};
use sheaf_domain::{ByteSize, Digest};
use sheaf_testkit::victim::{self, say};

const THIS_TEST: &str = "kill::a_killed_process_loses_nothing_acknowledged";
const KILLS: usize = 12;

async fn open(dir: &Path) -> DiskBlobs {
    let options = OpenOptions { segment_len: ByteSize::from_bytes(512 * 1024), ..OpenOptions::default() };
    DiskBlobs::open(dir, options).await.unwrap()
}

/// Stores objects for ever, saying each one's digest when it is acknowledged; every fourth hold is released.
async fn store_for_ever(dir: &Path) {
    let store = open(dir).await;
    let first = store.holds().await.unwrap().len() as u64 * 1_000;
    for step in first.. {
        let keeper = hold(&format!("task/{step}"));
        let len = usize::try_from(1 + step * 7_919 % 60_000).unwrap();
        let stored = put(&store, &keeper, noise(step, len)).await.unwrap();
        say(&format!("stored {keeper} {}", stored.digest));
        if step % 4 == 0 {
            store.release(&keeper).await.unwrap();
            say(&format!("released {keeper} {}", stored.digest));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_acknowledged() {
    if let Some(dir) = victim::place() {
        store_for_ever(Path::new(&dir)).await;
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<(String, Digest)> = Vec::new();
    for kill in 0..KILLS {
        for line in victim::run_and_kill(THIS_TEST, dir.path(), 3 + kill * 17 % 40) {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["stored", keeper, digest] => expected.push(((*keeper).to_owned(), digest.parse().unwrap())),
                ["released", keeper, _] => expected.retain(|(held, _)| held != keeper),
                _ => {}
            }
        }
        let store = open(dir.path()).await;
        for (keeper, digest) in &expected {
            let held = store.held(&hold(keeper)).await.unwrap();
            // A release that was on its way when the process was killed may have happened.
            let step: u64 = keeper.trim_start_matches("task/").parse().unwrap();
            assert!(
                held.iter().any(|(found, _)| found == digest) || step.is_multiple_of(4),
                "kill {kill}: {keeper}"
            );
            if !held.is_empty() {
                store.verify(digest).await.unwrap();
            }
        }
        store.close().await;
    }
    assert!(expected.len() >= KILLS, "the children must have stored something");
}
