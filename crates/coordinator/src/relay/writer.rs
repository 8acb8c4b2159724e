//! The one task that changes relayed runs: it takes what has queued up, commits it as one durable transaction, and only then
//! answers.
//!
//! When a commit fails, the runs concerned are rebuilt from their journals before anybody is told of them again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sheaf_domain::{EntryDraft, JournalId, RunId, Timestamp};
use sheaf_relay::{Effects, Event, Relay};
use sheaf_store::{Append, BODY_LEN_MAX};
use tokio::sync::{mpsc, oneshot};

use super::Relays;
use super::recover;
use super::removal::TakenOut;
use super::slot::Slot;
use super::transaction::Transaction;
use crate::Error;
use crate::recover::{Head, LEASE_TTL};

/// Commands that one commit takes in at most.
const BATCH_MAX: usize = 1024;
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(500);

/// After how many ticks it is written down who was heard of.
const SIGHTINGS_EVERY: u64 = 6;

/// Answers an asker with what became of the commit.
pub(super) type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;
/// What is to be done to a run, or with the word that it cannot be had.
pub(super) type Work = Box<dyn FnOnce(Result<&mut Transaction<'_>, Error>) -> Answer + Send>;

/// What is asked of the writer.
pub(super) enum Command {
    /// A new run; its first event.
    Create { run: RunId, event: Event, reply: oneshot::Sender<Result<(), Error>> },
    /// A change of a run.
    Change { run: RunId, work: Work },
    /// A run that is over and is to be removed: nothing is appended to it any more.
    TakeOut { run: RunId, reply: oneshot::Sender<Result<TakenOut, Error>> },
    /// A run that was not removed after all.
    PutBack { taken: TakenOut, done: oneshot::Sender<()> },
}

/// The writer of relayed runs.
pub(super) struct RelayWriter {
    relays: Relays,
    holder: String,
    heads: HashMap<RunId, Head>,
    leases_renewed: Duration,
    ticks: u64,
}

#[derive(Default)]
struct Batch {
    drafts: BTreeMap<RunId, Vec<EntryDraft>>,
    effects: Vec<(Arc<Slot>, Effects)>,
    answers: Vec<Answer>,
}

impl RelayWriter {
    pub(super) fn new(relays: Relays, holder: String, heads: HashMap<RunId, Head>) -> RelayWriter {
        let leases_renewed = relays.shared.clock.monotonic();
        RelayWriter { relays, holder, heads, leases_renewed, ticks: 0 }
    }

    /// Runs until the scope is cancelled, then through what has queued up until then.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let scope = self.relays.shared.scope.clone();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = scope.cancelled() => break,
                _ = ticks.tick() => self.tick().await,
                command = queue.recv() => match command {
                    Some(command) => self.serve(command, &mut queue).await,
                    None => break,
                },
            }
        }
        queue.close();
        while let Some(command) = queue.recv().await {
            self.serve(command, &mut queue).await;
        }
    }

    async fn serve(&mut self, first: Command, queue: &mut mpsc::Receiver<Command>) {
        let mut batch = Batch::default();
        let mut next = Some(first);
        for _ in 0..BATCH_MAX {
            let Some(command) = next.take() else { break };
            match command {
                Command::Change { run, work } => self.change(run, work, &mut batch),
                Command::Create { run, event, reply } => {
                    // A creation is a commit of its own.
                    self.commit(std::mem::take(&mut batch)).await;
                    // The asker may have gone away.
                    let _ = reply.send(self.create(run, &event).await);
                }
                Command::TakeOut { run, reply } => {
                    self.commit(std::mem::take(&mut batch)).await;
                    if let Err(Ok(taken)) = reply.send(self.take_out(run)) {
                        self.put_back(taken);
                    }
                }
                Command::PutBack { taken, done } => {
                    self.put_back(taken);
                    // The asker may have gone away.
                    let _ = done.send(());
                }
            }
            next = queue.try_recv().ok();
        }
        self.commit(batch).await;
        if let Some(left) = next {
            Box::pin(self.serve(left, queue)).await;
        }
    }

    fn change(&self, run: RunId, work: Work, batch: &mut Batch) {
        let at = self.relays.shared.clock.now();
        let slot = match self.relays.slot(run) {
            Ok(slot) => slot,
            Err(error) => return batch.answers.push(work(Err(error))),
        };
        if slot.is_stale() {
            let message = format!("run {run} is being rebuilt from its journal");
            return batch.answers.push(work(Err(Error::unavailable(message))));
        }
        let (answer, events, effects) = slot.rebuild(|relay| {
            let mut transaction = Transaction::new(relay, at);
            let answer = work(Ok(&mut transaction));
            (answer, transaction.events, transaction.effects)
        });
        batch.answers.push(answer);
        let drafts = batch.drafts.entry(run).or_default();
        drafts.extend(events.iter().map(|event| draft_of(at, event)));
        batch.effects.push((slot, effects));
    }

    fn take_out(&mut self, run: RunId) -> Result<TakenOut, Error> {
        let slot = self.relays.slot(run)?;
        if !slot.read(|state| state.application().phase.is_over())? {
            return Err(Error::conflict(format!("relayed run {run} goes on")));
        }
        let head = self.heads.remove(&run).ok_or_else(|| Error::internal("a run's journal has no lease"))?;
        self.relays.core.slots.remove(run);
        Ok(TakenOut { slot, head })
    }

    fn put_back(&mut self, TakenOut { slot, head }: TakenOut) {
        self.heads.insert(slot.run, head);
        self.relays.core.slots.put(slot);
    }

    async fn create(&mut self, run: RunId, event: &Event) -> Result<(), Error> {
        let shared = &self.relays.shared;
        let (journal, at) = (JournalId::Relay(run), shared.clock.now());
        let state = Relay::create(at, event)?;
        let head = crate::recover::acquire(&*shared.store, journal, &self.holder, at).await?;
        if head.seq != 0 {
            return Err(Error::internal("a new run's journal is not empty"));
        }
        let entries = vec![draft_of(at, event)];
        let lease_epoch = head.lease_epoch;
        shared.store.append(vec![Append { journal, lease_epoch, expected_seq: 0, entries }]).await?;
        self.heads.insert(run, Head { lease_epoch, seq: 1 });
        let log = recover::logbook(&self.relays, run);
        self.relays.core.slots.put(Arc::new(Slot::new(state, log)));
        self.relays.core.online.a_run_waits();
        Ok(())
    }

    async fn commit(&mut self, mut batch: Batch) {
        batch.drafts.retain(|_, drafts| !drafts.is_empty());
        let committed = match batch.drafts.is_empty() {
            true => Ok(()),
            false => self.append(&batch.drafts).await,
        };
        match committed {
            Ok(()) => {
                for (run, drafts) in &batch.drafts {
                    if let Some(head) = self.heads.get_mut(run) {
                        head.seq += drafts.len() as u64;
                    }
                }
                for (slot, effects) in batch.effects {
                    self.relays.take_effect(&slot, effects);
                }
                batch.answers.into_iter().for_each(|answer| answer(Ok(())));
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a commit of relayed runs failed");
                for run in batch.drafts.keys() {
                    if let Ok(slot) = self.relays.slot(*run) {
                        slot.set_stale();
                    }
                }
                let told = || {
                    Error::unavailable(
                        "it is not known yet whether this was carried out: the state store cannot take it now",
                    )
                };
                batch.answers.into_iter().for_each(|answer| answer(Err(told())));
                self.rebuild().await;
            }
        }
    }

    async fn append(&self, drafts: &BTreeMap<RunId, Vec<EntryDraft>>) -> Result<(), sheaf_store::Error> {
        let of = |(run, entries): (&RunId, &Vec<EntryDraft>)| {
            let head = self.heads.get(run)?;
            let (lease_epoch, expected_seq) = (head.lease_epoch, head.seq);
            let journal = JournalId::Relay(*run);
            Some(Append { journal, lease_epoch, expected_seq, entries: entries.clone() })
        };
        self.relays.shared.store.append(drafts.iter().filter_map(of).collect()).await.map(drop)
    }

    /// Puts runs whose state ran ahead back to what their journals say; those that cannot be read now are left for later.
    async fn rebuild(&mut self) {
        for slot in self.relays.runs().into_iter().filter(|slot| slot.is_stale()) {
            match recover::replay(&*self.relays.shared.store, slot.run).await {
                Ok((state, seq)) => {
                    if let Some(head) = self.heads.get_mut(&slot.run) {
                        head.seq = seq;
                    }
                    slot.replace(state);
                    match recover::tell_what_is_there(&self.relays).await {
                        Ok(()) => {
                            slot.set_fresh();
                            self.relays.core.online.wake_all();
                        }
                        Err(error) => {
                            tracing::warn!(run = %slot.run, %error, "a relayed run cannot be rebuilt now")
                        }
                    }
                }
                Err(error) => tracing::warn!(run = %slot.run, %error, "a relayed run cannot be rebuilt now"),
            }
        }
    }

    async fn tick(&mut self) {
        self.rebuild().await;
        let mut batch = Batch::default();
        for slot in self.relays.runs() {
            for work in self.relays.overdue(&slot).into_iter().chain(self.relays.settled(slot.run)) {
                self.change(slot.run, work, &mut batch);
            }
        }
        self.commit(batch).await;
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(SIGHTINGS_EVERY) {
            self.relays.write_sightings().await;
        }
        let now = self.relays.shared.clock.monotonic();
        if now.saturating_sub(self.leases_renewed) >= LEASE_TTL.as_duration() / 3 {
            self.leases_renewed = now;
            self.renew_leases().await;
        }
    }

    async fn renew_leases(&self) {
        let now = self.relays.shared.clock.now();
        for (run, head) in &self.heads {
            let over = self
                .relays
                .slot(*run)
                .and_then(|slot| slot.read(|state| state.application().phase.is_over()));
            if over.unwrap_or(false) {
                continue;
            }
            let journal = JournalId::Relay(*run);
            let renewed =
                self.relays.shared.store.renew_lease(journal, head.lease_epoch, LEASE_TTL, now).await;
            if let Err(error) = renewed {
                tracing::warn!(%journal, %error, "a lease could not be renewed");
            }
        }
    }
}

/// An event as a journal entry.
fn draft_of(at: Timestamp, event: &Event) -> EntryDraft {
    // Events are made of texts and numbers, which always have a JSON form.
    let body = serde_json::to_string(event).unwrap_or_default();
    EntryDraft { at, kind: event.kind().to_owned(), body }
}

/// Whether an event fits a journal entry.
pub(super) fn fits(event: &Event) -> Result<(), Error> {
    let len = serde_json::to_string(event).map_or(usize::MAX, |body| body.len());
    if len <= BODY_LEN_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the entry {:?} would have {len} bytes, the limit is {BODY_LEN_MAX}",
        event.kind()
    )))
}
