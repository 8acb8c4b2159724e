//! The SQLite store under the suite, and what only a file can go through: crashes, faults, formats, copies.

mod backup;
mod cancel;
mod crash;
mod faults;
mod format;
mod power;
mod sharing;
mod stored;

use std::path::{Path, PathBuf};

use sheaf_domain::{EntryDraft, GENESIS, JournalId, RunId, Span, Timestamp};
use sheaf_store::{Append, Lease, OpenOptions, SqliteStore, StateStore, suite};
use tempfile::TempDir;

async fn make() -> (Box<SqliteStore>, TempDir) {
    let dir = TempDir::new().unwrap();
    let options = OpenOptions { mail: suite::MAIL_LIMITS, ..OpenOptions::default() };
    (Box::new(SqliteStore::open(&path_in(&dir), options).await.unwrap()), dir)
}

sheaf_store::store_suite!(conformance, make);

fn path_in(dir: &TempDir) -> PathBuf {
    dir.path().join("state.sqlite")
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, OpenOptions::default()).await.unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn journal(number: u64) -> JournalId {
    JournalId::Run(RunId::new(number).unwrap())
}

async fn lease(store: &SqliteStore, journal: JournalId) -> Lease {
    store.acquire_lease(journal, "holder", Span::from_secs(60), at(0)).await.unwrap()
}

fn append_to(lease: &Lease, expected_seq: u64, bodies: &[&str]) -> Append {
    let draft = |body: &&str| EntryDraft { at: at(1), kind: "note".to_owned(), body: (*body).to_owned() };
    Append {
        journal: lease.journal,
        lease_epoch: lease.epoch,
        expected_seq,
        entries: bodies.iter().map(draft).collect(),
    }
}

/// Checks a journal's chain from its beginning; gives the bodies.
async fn checked_bodies(store: &SqliteStore, journal: JournalId) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut head = (0, GENESIS);
    loop {
        let page = store.entries(journal, head.0, 1000).await.unwrap();
        if page.is_empty() {
            assert_eq!(store.head(journal).await.unwrap(), head);
            return bodies;
        }
        for entry in page {
            entry.check_follows(journal, head).unwrap();
            head = (entry.seq, entry.hash);
            bodies.push(entry.body);
        }
    }
}
