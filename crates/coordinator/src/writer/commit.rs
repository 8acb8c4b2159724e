//! One commit: what it takes in, how it becomes durable, and what the askers are told.

use std::collections::BTreeMap;

use sheaf_domain::{EntryDraft, ErrorKind, JournalId, RunId};
use sheaf_engine::Action;
use sheaf_runtime::crash::{self, Point};
use sheaf_store::Append;
use sheaf_telemetry::names;

use super::Writer;
use crate::Error;
use crate::command::Reply;

/// Answers an asker with what became of the commit.
pub(super) type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What one commit takes in.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) drafts: BTreeMap<JournalId, Vec<EntryDraft>>,
    pub(super) bytes: usize,
    pub(super) actions: Vec<(RunId, Action)>,
    pub(super) replies: Vec<Answer>,
    pub(super) rounds_closed: u64,
}

impl Batch {
    pub(super) fn push(&mut self, journal: JournalId, draft: EntryDraft) {
        self.bytes = self.bytes.saturating_add(draft.body.len());
        self.drafts.entry(journal).or_default().push(draft);
    }

    /// Answers `reply` with `answer` once the commit is through.
    pub(super) fn reply<T: Send + 'static>(&mut self, reply: Option<Reply<T>>, answer: Result<T, Error>) {
        if let Some(reply) = reply {
            self.replies.push(Box::new(move |committed| {
                // The asker may have gone away; what it asked for stays done.
                let _ = reply.send(committed.and(answer));
            }));
        }
    }
}

impl Writer {
    /// Makes the batch durable, then acts and answers.
    pub(super) async fn commit(&mut self, batch: Batch) {
        if batch.drafts.is_empty() {
            batch.replies.into_iter().for_each(|reply| reply(Ok(())));
            return;
        }
        crash::reached(Point::BatchApplied);
        let Err(error) = self.append(&batch.drafts).await else {
            return self.committed(batch);
        };
        tracing::error!(error = &error as &dyn std::error::Error, "a commit failed");
        let landed = match error.is_transient() {
            true => self.landed(&batch.drafts).await,
            false => Some(false),
        };
        if landed == Some(true) {
            return self.committed(batch);
        }
        self.shared.health.failed("store", "a commit failed");
        if let sheaf_store::Error::Fenced { journal: JournalId::Run(run), .. } = error {
            self.fenced.insert(run);
        }
        self.roll_back(batch.drafts.into_keys()).await;
        let answer = failure_of(error.kind(), landed.is_some());
        batch.replies.into_iter().for_each(|reply| reply(Err(answer())));
    }

    /// The batch is durable: acts and answers.
    fn committed(&mut self, batch: Batch) {
        crash::reached(Point::BatchDurable);
        self.shared.health.ok("store");
        metrics::counter!(names::ROUNDS_CLOSED_TOTAL).increment(batch.rounds_closed);
        for (journal, drafts) in &batch.drafts {
            if let Some(head) = self.heads.get_mut(journal) {
                head.seq += drafts.len() as u64;
            }
        }
        for (run, action) in batch.actions {
            self.act(run, action);
        }
        batch.replies.into_iter().for_each(|reply| reply(Ok(())));
        crash::reached(Point::BatchAnswered);
    }

    /// Whether a batch is durable although its commit seemed to fail: all of it is, or nothing. Nothing is said when the store
    /// cannot tell.
    async fn landed(&self, drafts: &BTreeMap<JournalId, Vec<EntryDraft>>) -> Option<bool> {
        let (journal, drafts) = drafts.first_key_value()?;
        let end = self.heads.get(journal)?.seq + drafts.len() as u64;
        let found = self.shared.store.entries(*journal, end - 1, 1).await.ok()?;
        let last = drafts.last()?;
        Some(found.iter().any(|entry| entry.seq == end && entry.at == last.at && entry.body == last.body))
    }

    async fn append(&self, drafts: &BTreeMap<JournalId, Vec<EntryDraft>>) -> Result<(), sheaf_store::Error> {
        let of = |(journal, entries): (&JournalId, &Vec<EntryDraft>)| {
            let head = self.heads.get(journal)?;
            let (lease_epoch, expected_seq) = (head.lease_epoch, head.seq);
            Some(Append { journal: *journal, lease_epoch, expected_seq, entries: entries.clone() })
        };
        let appends: Vec<Append> = drafts.iter().filter_map(of).collect();
        let started = self.shared.clock.monotonic();
        self.shared.store.append(appends).await?;
        let seconds = self.shared.clock.monotonic().saturating_sub(started).as_secs_f64();
        metrics::histogram!(names::JOURNAL_APPEND_SECONDS).record(seconds);
        Ok(())
    }
}

/// What the askers of a failed commit are told: whether something was changed, as far as it is known, and what is lacking.
fn failure_of(kind: ErrorKind, known: bool) -> impl Fn() -> Error {
    let outcome =
        if known { "nothing was changed" } else { "it is not known yet whether this was carried out" };
    move || match kind {
        ErrorKind::Exhausted => Error::new(kind, format!("{outcome}: the state store is full")),
        _ => Error::unavailable(format!("{outcome}: the state store cannot take it now")),
    }
}
