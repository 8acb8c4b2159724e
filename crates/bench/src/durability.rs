//! How many journal entries become durable in a second: one at a time, and many at a time as the coordinator's writer commits them.
//!
//! The store is the server's own, in a file on the disk that is measured; beside it, the bare disk's rate of synced appends.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheaf_domain::{EntryDraft, JournalId, RunId, Span, Timestamp};
use sheaf_runtime::SystemClock;
use sheaf_store::{Append, OpenOptions, SqliteStore, StateStore};

use crate::Error;
use crate::limits::disk::synced_appends_per_s;

/// What is measured, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Entries committed together.
    pub batch: usize,
    /// Runs whose journals they go to.
    pub journals: usize,
    /// For how long each rate is measured.
    pub duration: Duration,
}

/// The figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Appends of 4 KiB with `fdatasync` after each, per second.
    pub disk_commits_per_s: f64,
    /// Entries that are committed one by one, per second.
    pub single_transitions_per_s: f64,
    /// Entries that are committed together, per second.
    pub transitions_per_s: f64,
    /// Commits of many entries, per second.
    pub commits_per_s: f64,
    /// Entries committed together.
    pub batch: usize,
    /// `transitions_per_s ÷ disk_commits_per_s`.
    pub ratio_to_disk_commits: f64,
}

/// Measures below `dir`.
///
/// # Errors
/// [`Error::Store`], [`Error::Io`].
/// # Cancel safety
/// Dropped, it leaves the store's file in `dir`.
pub async fn measure(dir: &Path, settings: Settings) -> Result<Figures, Error> {
    let before = synced_appends_per_s(dir)?;
    let store = SqliteStore::open(&dir.join("bench.sqlite"), OpenOptions::default()).await?;
    let mut journals = Journals::open(&store, settings.journals.max(1)).await?;
    let single = journals.rate(&store, 1, settings.duration).await?;
    let batch = settings.batch.max(1);
    let commits_per_s = journals.rate(&store, batch, settings.duration).await?;
    store.close().await;
    // The disk's own rate swings with what its neighbours do: taken before and after.
    let disk_commits_per_s = f64::midpoint(before, synced_appends_per_s(dir)?);
    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^53")]
    let transitions_per_s = commits_per_s * batch as f64;
    Ok(Figures {
        disk_commits_per_s,
        single_transitions_per_s: single,
        transitions_per_s,
        commits_per_s,
        batch,
        ratio_to_disk_commits: transitions_per_s / disk_commits_per_s,
    })
}

/// Journals under our lease and how far each has grown.
struct Journals(Vec<(JournalId, u64, u64)>);

impl Journals {
    async fn open(store: &SqliteStore, count: usize) -> Result<Journals, Error> {
        let now = SystemClock::shared().now();
        let mut journals = Vec::with_capacity(count);
        for id in (1..).take(count) {
            let journal = JournalId::Run(RunId::new(id).ok_or_else(|| Error::unexpected("run 0"))?);
            let lease = store.acquire_lease(journal, "bench", Span::from_secs(24 * 3600), now).await?;
            journals.push((journal, lease.epoch, 0));
        }
        Ok(Journals(journals))
    }

    /// Commits of `batch` entries per second.
    async fn rate(&mut self, store: &SqliteStore, batch: usize, duration: Duration) -> Result<f64, Error> {
        let clock = SystemClock::shared();
        let started = clock.monotonic();
        let mut commits = 0_u32;
        while commits == 0 || clock.monotonic().saturating_sub(started) < duration {
            store.append(self.next_batch(batch, clock.now())).await?;
            commits += 1;
        }
        Ok(f64::from(commits) / clock.monotonic().saturating_sub(started).as_secs_f64())
    }

    fn next_batch(&mut self, batch: usize, at: Timestamp) -> Vec<Append> {
        let journals = self.0.len();
        let mut appends = Vec::with_capacity(journals.min(batch));
        for (idx, (journal, lease_epoch, seq)) in self.0.iter_mut().enumerate().take(batch) {
            let count = batch / journals + usize::from(idx < batch % journals);
            let entry = || EntryDraft { at, kind: "submitted".to_owned(), body: BODY.to_owned() };
            let entries: Vec<EntryDraft> = std::iter::repeat_with(entry).take(count).collect();
            let append = Append { journal: *journal, lease_epoch: *lease_epoch, expected_seq: *seq, entries };
            *seq += count as u64;
            appends.push(append);
        }
        appends
    }
}

/// As long as an entry of a run usually is.
const BODY: &str = r#"{"task":"00112233445566778899aabbccddeeff","site":"site-01","round":12,"stage":"train","num_examples":1280.0,"metrics":{"loss":0.25},"slots":[{"slot":"model","bytes":3353436160}],"attempt":1}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_of_a_batch_are_dealt_to_all_journals() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { batch: 10, journals: 4, duration: Duration::from_millis(1) };
        let figures = measure(dir.path(), settings).await.unwrap();
        assert!(figures.transitions_per_s.is_finite() && figures.transitions_per_s > 0.0, "{figures:?}");
        let mut journals =
            Journals((1..=4).map(|id| (JournalId::Run(RunId::new(id).unwrap()), 1, 0)).collect());
        let batch = journals.next_batch(10, Timestamp::from_millis(0));
        let counts: Vec<usize> = batch.iter().map(|append| append.entries.len()).collect();
        assert_eq!(counts, [3, 3, 2, 2]);
        assert_eq!(journals.next_batch(1, Timestamp::from_millis(0)).len(), 1);
    }
}
