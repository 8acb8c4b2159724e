//! What may not be lost: results that sites were told are in, and journal entries that were durable once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use sheaf_domain::{Digest, GENESIS, JournalEntry, JournalId};
use sheaf_store::{OpenOptions, SqliteStore, StateStore as _};

/// How many entries are read at a time.
const PAGE: u32 = 1024;

/// Every journal of a data directory, each chain checked.
pub(super) type Journals = BTreeMap<JournalId, Vec<JournalEntry>>;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Tasks whose results were answered for, by site.
    acknowledged: BTreeSet<(String, String)>,
    /// The hash of every entry that was durable after a kill.
    durable: BTreeMap<JournalId, Vec<Digest>>,
}

impl Ledger {
    /// Takes what a site's log says it was told.
    pub(super) fn hear(&mut self, site: &str, log: &str) {
        for line in log.lines() {
            let Some((_, told)) = line.split_once("Answered { task: TaskId(") else { continue };
            let Some((task, outcome)) = told.split_once("), outcome: ") else { continue };
            if outcome.starts_with("Accepted") || outcome.starts_with("Duplicate") {
                self.acknowledged.insert((site.to_owned(), task.to_owned()));
            }
        }
    }

    /// How many results were answered for.
    pub(super) fn num_acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// Holds journals against what is known, and remembers what they have.
    pub(super) fn check(&mut self, journals: &Journals, context: &str) {
        for (journal, known) in &self.durable {
            let hashes: Vec<Digest> =
                journals.get(journal).into_iter().flatten().map(|entry| entry.hash).collect();
            assert!(hashes.starts_with(known), "{context}: {journal} lost or changed an entry");
        }
        let submitted = submissions(journals, context);
        for task in &self.acknowledged {
            assert!(submitted.contains(task), "{context}: the acknowledged result {task:?} is lost");
        }
        for (journal, entries) in journals {
            let hashes = entries.iter().map(|entry| entry.hash).collect();
            self.durable.insert(*journal, hashes);
        }
    }
}

/// Every result that counts, as site and task; each is there once.
pub(super) fn submissions(journals: &Journals, context: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut folded = BTreeSet::new();
    for entry in journals.values().flatten() {
        let body: Value = serde_json::from_str(&entry.body).unwrap();
        let word = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let fresh = match entry.kind.as_str() {
            "submitted" => found.insert((word("site"), word("task"))),
            "folded" => folded.insert((body["round"].as_u64(), word("stage"))),
            _ => true,
        };
        assert!(fresh, "{context}: counted twice: {}", entry.body);
    }
    found
}

/// Reads every journal of the data directory of a dead server, from a copy: the directory stays as the crash left it.
pub(super) fn journals_of(data: &Path) -> Journals {
    let copy = tempfile::tempdir().unwrap();
    let name = "state.sqlite";
    for suffix in ["", "-wal"] {
        let from = data.join(format!("{name}{suffix}"));
        if from.exists() {
            std::fs::copy(from, copy.path().join(format!("{name}{suffix}"))).unwrap();
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(read(&copy.path().join(name)))
}

async fn read(path: &Path) -> Journals {
    let store = SqliteStore::open(path, OpenOptions::default()).await.unwrap();
    let mut journals = Journals::new();
    for journal in store.journals().await.unwrap() {
        let entries = journals.entry(journal).or_default();
        let mut head = (0, GENESIS);
        loop {
            let page = store.entries(journal, head.0, PAGE).await.unwrap();
            if page.is_empty() {
                break;
            }
            for entry in page {
                entry.check_follows(journal, head).unwrap();
                head = (entry.seq, entry.hash);
                entries.push(entry);
            }
        }
        assert_eq!(store.head(journal).await.unwrap(), head);
    }
    store.close().await;
    journals
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use sheaf_domain::{EntryDraft, RunId, Timestamp};

    use super::*;

    const ANSWER: &str =
        "INFO event=\"answered\" detail=Answered { task: TaskId(0a), outcome: Accepted }\nINFO other";

    fn journals(entries: &[(&str, &str)]) -> Journals {
        let journal = JournalId::Run(RunId::new(1).unwrap());
        let mut chain: Vec<JournalEntry> = Vec::new();
        for (kind, body) in entries {
            let draft =
                EntryDraft { at: Timestamp::default(), kind: (*kind).to_owned(), body: (*body).to_owned() };
            let (seq, before) = chain.last().map_or((0, GENESIS), |last| (last.seq, last.hash));
            chain.push(JournalEntry::chain(journal, seq + 1, before, draft));
        }
        Journals::from([(journal, chain)])
    }

    fn submitted(task: &str) -> String {
        format!("{{\"site\": \"ada\", \"task\": \"{task}\"}}")
    }

    /// Whether what is looked at passes.
    fn passes(check: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(check)).is_ok()
    }

    #[test]
    fn what_was_acknowledged_must_be_in_a_journal() {
        let mut ledger = Ledger::default();
        ledger.hear("ada", ANSWER);
        assert_eq!(ledger.num_acknowledged(), 1);
        assert!(!passes(|| ledger.check(&journals(&[("submitted", &submitted("0b"))]), "lost")));
        assert!(passes(|| ledger.check(&journals(&[("submitted", &submitted("0a"))]), "there")));
    }

    #[test]
    fn what_was_durable_must_stay() {
        let (one, two) = (submitted("0a"), submitted("0b"));
        let long = journals(&[("submitted", &one), ("submitted", &two)]);
        let mut ledger = Ledger::default();
        ledger.check(&journals(&[("submitted", &one)]), "first");
        assert!(passes(|| ledger.check(&long, "grown")));
        assert!(!passes(|| ledger.check(&journals(&[("submitted", &one)]), "shortened")));
        assert!(!passes(|| ledger.check(&Journals::new(), "gone")));
    }

    #[test]
    fn nothing_may_count_twice() {
        let (one, fold) = (submitted("0a"), "{\"round\": 1, \"stage\": \"train\"}");
        for entry in [("submitted", one.as_str()), ("folded", fold)] {
            assert!(passes(|| drop(submissions(&journals(&[entry]), "once"))));
            assert!(!passes(|| drop(submissions(&journals(&[entry, entry]), "twice"))));
        }
    }
}
