//! The power goes: the write-ahead log is cut or torn behind what was flushed, the file while it is brought up to date.
//!
//! SQLite's own files cannot be put under a layer of ours, so the states a disk can be left in are made from copies taken
//! between commits. What a commit flushed is whole in them; of what came after, any part may be there. Each must open, its
//! chains must hold, and they must be what was acknowledged and nothing that was never written.

use std::path::Path;

use sheaf_domain::rng::SeededRng;
use sheaf_store::{Lease, SqliteStore, StateStore};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use super::{append_to, checked_bodies, journal, lease, open, path_in};

const APPENDS: u64 = 24;
/// After this many appends the log is copied into the file, and begins anew.
const CHECKPOINT_EVERY: u64 = 9;
/// What a disk writes at once, in bytes.
const SECTOR: usize = 512;

/// The two files as they were at rest, and how many appends were acknowledged then.
#[derive(Debug, Clone, Default)]
struct AtRest {
    database: Vec<u8>,
    log: Vec<u8>,
    acknowledged: u64,
}

impl AtRest {
    fn of(path: &Path, acknowledged: u64) -> AtRest {
        let log = std::fs::read(log_of(path)).unwrap_or_default();
        AtRest { database: std::fs::read(path).unwrap(), log, acknowledged }
    }

    /// What a start finds in these files.
    async fn kept(&self, context: &str) -> u64 {
        let dir = TempDir::new().unwrap();
        let path = path_in(&dir);
        std::fs::write(&path, &self.database).unwrap();
        std::fs::write(log_of(&path), &self.log).unwrap();
        let store = open(&path).await;
        let first = checked_bodies(&store, journal(1)).await;
        let second = checked_bodies(&store, journal(2)).await;
        let expected: Vec<String> = (1..=first.len()).map(|number| body(number as u64)).collect();
        assert_eq!(first, expected, "{context}");
        assert_eq!(second.len(), 2 * first.len(), "{context}: half a batch was kept");
        // It can be written on.
        let held = lease(&store, journal(1)).await;
        store.append(vec![append_to(&held, first.len() as u64, &["after"])]).await.unwrap();
        store.close().await;
        first.len() as u64
    }
}

fn log_of(path: &Path) -> std::path::PathBuf {
    path.with_extension("sqlite-wal")
}

/// Entries of several lengths, so that some commits take one page and some several.
fn body(number: u64) -> String {
    let len = usize::try_from(number * 1_237 % 9_000).unwrap();
    format!("{number} {}", "x".repeat(len))
}

/// Appends to two journals at once, and copies the files after every acknowledgement. Where the log was copied into the file in
/// between, the state before that stands first, under the same number.
async fn history(path: &Path) -> Vec<AtRest> {
    let store = open(path).await;
    let (first, second) = (lease(&store, journal(1)).await, lease(&store, journal(2)).await);
    let mut history = vec![AtRest::of(path, 0)];
    for number in 1..=APPENDS {
        append(&store, &first, &second, number).await;
        history.push(AtRest::of(path, number));
        if number % CHECKPOINT_EVERY == 0 {
            checkpoint(path).await;
            history.push(AtRest::of(path, number));
        }
    }
    store.close().await;
    history
}

async fn append(store: &SqliteStore, first: &Lease, second: &Lease, number: u64) {
    let (seq, text) = (number - 1, body(number));
    let batch = vec![append_to(first, seq, &[&text]), append_to(second, 2 * seq, &["a", "b"])];
    store.append(batch).await.unwrap();
}

/// Copies the log into the file, as SQLite does by itself when the log is long.
async fn checkpoint(path: &Path) {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    sqlx::raw_sql("PRAGMA wal_checkpoint(RESTART)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Some sectors of the one, some of the other.
fn torn(before: &[u8], after: &[u8], rng: &mut SeededRng) -> Vec<u8> {
    let mut bytes = after.to_vec();
    for start in (0..after.len()).step_by(SECTOR) {
        let end = after.len().min(start + SECTOR);
        if rng.below(2) == 0 {
            // Where there was nothing, the disk has zeros or does not have the sector's room at all.
            for (at, byte) in bytes[start..end].iter_mut().enumerate() {
                *byte = before.get(start + at).copied().unwrap_or(0);
            }
        }
    }
    if before.len() < after.len() && rng.below(2) == 0 {
        let cut = before.len() as u64 + rng.below((after.len() - before.len()) as u64 + 1);
        bytes.truncate(usize::try_from(cut).unwrap());
    }
    bytes
}

#[tokio::test]
async fn a_log_cut_anywhere_keeps_what_was_flushed_before_the_cut() {
    let dir = TempDir::new().unwrap();
    let history = history(&path_in(&dir)).await;
    let mut rng = SeededRng::new(1, "cuts");
    for pair in history.windows(2) {
        let [before, after] = pair else { continue };
        // Only where the log grew: else its beginning was written anew, which the other test tears.
        if before.acknowledged == after.acknowledged || !after.log.starts_with(&before.log) {
            continue;
        }
        let grown = (after.log.len() - before.log.len()) as u64;
        for cut in [0, 1, grown / 2, rng.below(grown), grown - 1] {
            let cut = before.log.len() + usize::try_from(cut).unwrap();
            let state = AtRest { log: after.log[..cut].to_vec(), ..before.clone() };
            let context = format!("{} acknowledged, log cut at {cut}", before.acknowledged);
            let kept = state.kept(&context).await;
            assert!(kept >= before.acknowledged, "{context}: {kept} kept");
            assert!(kept <= after.acknowledged, "{context}: {kept} kept");
        }
        assert_eq!(after.kept("whole").await, after.acknowledged);
    }
}

#[tokio::test]
async fn files_torn_between_two_commits_keep_everything_acknowledged() {
    let dir = TempDir::new().unwrap();
    let history = history(&path_in(&dir)).await;
    let mut restarted = 0;
    for seed in 0..4 {
        let mut rng = SeededRng::new(seed, "torn sectors");
        for pair in history.windows(2) {
            let [before, after] = pair else { continue };
            let context = format!("seed {seed}, after append {}", before.acknowledged);
            let state = if before.acknowledged == after.acknowledged {
                // The log is flushed; the file is being brought up to date with it.
                let database = torn(&before.database, &after.database, &mut rng);
                AtRest { database, ..before.clone() }
            } else {
                // The next commit is under way in the log. One that began the log anew found the file up to date.
                restarted += u64::from(!after.log.starts_with(&before.log));
                AtRest { log: torn(&before.log, &after.log, &mut rng), ..before.clone() }
            };
            let kept = state.kept(&context).await;
            assert!(kept >= before.acknowledged, "{context}: {kept} kept");
            assert!(kept <= after.acknowledged, "{context}: {kept} kept");
        }
    }
    assert!(restarted > 0, "the log must have begun anew between two commits");
}

#[tokio::test]
async fn flushed_bytes_that_are_gone_are_noticed_by_this_test() {
    // The other way round: a log that lost what was flushed does lose appends, so the checks above can fail.
    let dir = TempDir::new().unwrap();
    let history = history(&path_in(&dir)).await;
    let grows =
        |pair: &&[AtRest]| pair[0].database == pair[1].database && pair[1].log.starts_with(&pair[0].log);
    let [before, after] = history.windows(2).find(grows).unwrap() else {
        panic!("two states stand in a pair")
    };
    let lossy = AtRest { log: before.log.clone(), ..after.clone() };
    assert_eq!(lossy.kept("lossy").await, before.acknowledged);
    assert!(before.acknowledged < after.acknowledged);
}
