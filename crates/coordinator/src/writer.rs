//! The writer: one task through which every transition of every run goes.
//!
//! It takes what has queued up, applies it to the engines, commits the events of all runs in one durable transaction, and only
//! then puts assignments into outboxes, starts folds, and answers. When a commit fails, nobody is told of the states that ran
//! ahead: the runs concerned are rebuilt from their journals, at once or as soon as the store can be read, and the askers are
//! told to come again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sheaf_domain::{
    EntryDraft, JournalId, LineageName, RunId, SiteName, Submission, SubmitOutcome, Timestamp,
};
use sheaf_engine::{Event, RunState, TaskStanding};
use sheaf_runtime::crash::{self, Point};
use sheaf_store::{BATCH_BYTES_MAX, BODY_LEN_MAX};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::commit::Batch;
use self::rebuild::Rebuilds;
use crate::Error;
use crate::command::Command;
use crate::deadlines::Deadlines;
use crate::incidents::Kind;
use crate::recover::{self, Head, LEASE_TTL};
use crate::shared::{RunSlot, Shared};

mod act;
mod comings;
mod commit;
mod rebuild;
mod remove;

/// How many commands one commit takes in at most.
const BATCH_MAX: usize = 1024;
/// No further command is taken into a commit of this many bytes; the next one's entry still fits.
const BATCH_BYTES_FULL: usize = BATCH_BYTES_MAX - 2 * BODY_LEN_MAX;
/// How often leases, rebuilding and deadlines are looked after at least.
const TICK: Duration = Duration::from_millis(500);

/// The one task that journals.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    heads: HashMap<JournalId, Head>,
    holder: String,
    deadlines: Deadlines,
    rebuilds: Rebuilds,
    /// Runs that another server has taken over.
    fenced: HashSet<RunId>,
    /// Whether runs may have missed who came and went.
    presence_missed: bool,
    leases_renewed: Duration,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, holder: String, heads: HashMap<JournalId, Head>) -> Writer {
        let leases_renewed = shared.clock.monotonic();
        Writer {
            shared,
            heads,
            holder,
            deadlines: Deadlines::default(),
            rebuilds: Rebuilds::default(),
            fenced: HashSet::new(),
            presence_missed: false,
            leases_renewed,
        }
    }

    /// Takes up what the runs rebuilt at the start were doing.
    pub(crate) async fn take_up(&mut self) {
        let now = self.shared.clock.monotonic();
        let mut batch = Batch::default();
        for slot in self.shared.all_runs() {
            let Ok((over, present, actions, known)) = slot.read(|state| {
                let known: Vec<SiteName> = state.status().sites.into_iter().map(|site| site.site).collect();
                (state.phase().is_over(), state.present().clone(), state.outstanding(), known)
            }) else {
                continue;
            };
            if over {
                continue;
            }
            for site in &present {
                // Whoever was there before the restart gets the full time to show itself again.
                self.shared.presence.assume(site, now);
            }
            for action in actions {
                self.act(slot.run, action);
            }
            // A revocation that was durable when the server died, but had not reached the run.
            for site in known {
                if let Some(reason) = self.shared.registry.revocation(&site) {
                    self.revoke_in(&slot, &site, &reason, &mut batch);
                    self.shared.presence.leave(&site);
                }
            }
        }
        self.commit(batch).await;
    }

    /// Works until the scope is cancelled, then through what has queued up until then.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let scope = self.shared.scope.clone();
        loop {
            let mut batch = Batch::default();
            let due = self.deadlines.wait(self.shared.clock.now()).map(|wait| wait.as_duration());
            tokio::select! {
                biased;
                () = scope.cancelled() => break,
                _ = ticks.tick() => self.tick(&mut batch).await,
                () = tokio::time::sleep(due.unwrap_or(TICK)), if due.is_some() => {}
                command = queue.recv() => match command {
                    Some(command) => self.take(command, &mut batch).await,
                    None => break,
                },
            }
            self.fill(&mut queue, &mut batch).await;
            // What came before its deadline counts.
            self.pass_deadlines(&mut batch);
            self.commit(batch).await;
        }
        queue.close();
        while let Some(command) = queue.recv().await {
            let mut batch = Batch::default();
            self.take(command, &mut batch).await;
            self.fill(&mut queue, &mut batch).await;
            self.commit(batch).await;
        }
    }

    async fn fill(&mut self, queue: &mut mpsc::Receiver<Command>, batch: &mut Batch) {
        for _ in 1..BATCH_MAX {
            if batch.bytes >= BATCH_BYTES_FULL {
                break;
            }
            let Ok(next) = queue.try_recv() else { break };
            self.take(next, batch).await;
        }
    }

    async fn take(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Event { run, event, reply } => {
                let outcome = self.apply(run, &event, batch);
                batch.reply(reply, outcome);
            }
            Command::Submit { run, site, submission, reply } => {
                let outcome = self.submit(run, site, *submission, batch);
                batch.reply(Some(reply), outcome);
            }
            Command::Create { run, event, reply } => {
                let outcome = self.create(run, &event, batch).await;
                batch.reply(Some(reply), outcome);
            }
            Command::Extend { run, rounds, reply } => {
                let outcome = self.extend(run, rounds, batch);
                batch.reply(Some(reply), outcome);
            }
            Command::Remove { run, by, reply } => {
                // A removal is a commit of its own, after everything before it.
                let before = std::mem::take(batch);
                self.commit(before).await;
                let removed = self.remove(run, &by).await;
                // The asker may have gone away; what it asked for stays done.
                let _ = reply.send(removed);
            }
            Command::RemoveRelay { run, lease_epoch, by, reply } => {
                let before = std::mem::take(batch);
                self.commit(before).await;
                let removed = self.remove_relay(run, lease_epoch, &by).await;
                // The asker may have gone away; what it asked for stays done.
                let _ = reply.send(removed);
            }
            Command::Present { site } => self.came(&site, batch),
            Command::Gone { site, reason } => self.went(&site, &reason, batch),
            Command::Revoked { site, reason } => {
                for slot in self.shared.all_runs() {
                    self.revoke_in(&slot, &site, &reason, batch);
                }
            }
            Command::Federation { draft, reply } => {
                let fits = check_len(&draft);
                if fits.is_ok() {
                    batch.push(JournalId::Federation, draft);
                }
                batch.reply(reply, fits);
            }
            // After the commit, or after the states that ran ahead were hidden.
            Command::Look(look) => batch.replies.push(Box::new(move |_| (look.0)())),
        }
    }

    /// Applies an event to a run and notes it for the commit.
    fn apply(&self, run: RunId, event: &Event, batch: &mut Batch) -> Result<(), Error> {
        let slot = self.shared.run(run)?;
        slot.read(|_| ())?;
        let at = self.shared.clock.now();
        let draft = draft_of(at, event)?;
        check_len(&draft)?;
        let actions = slot.apply(at, event)?;
        batch.push(JournalId::Run(run), draft);
        batch.actions.extend(actions.into_iter().map(|action| (run, action)));
        self.note(run, event, batch);
        Ok(())
    }

    /// What is told of an event elsewhere.
    fn note(&self, run: RunId, event: &Event, batch: &mut Batch) {
        let (site, text) = match event {
            Event::Folded { round, versions, .. } => {
                let makes_global = versions.iter().any(|version| version.lineage == LineageName::global());
                batch.rounds_closed += u64::from(*round > 0 && makes_global);
                return;
            }
            Event::Refused { site, refusal, .. } => (site, format!("refused: {refusal}")),
            Event::Failed { site, reason, .. } | Event::SiteLost { site, reason } => (site, reason.clone()),
            _ => return,
        };
        self.shared.incident(site, Kind::InRun, Some(run), &text);
    }

    fn submit(
        &self,
        run: RunId,
        site: SiteName,
        submission: Submission,
        batch: &mut Batch,
    ) -> Result<SubmitOutcome, Error> {
        match self.shared.with_run(run, |state| state.task(submission.task, &site))? {
            TaskStanding::Accepted => Ok(SubmitOutcome::Duplicate),
            TaskStanding::Closed(reason) => Ok(SubmitOutcome::TooLate { reason }),
            TaskStanding::Open(_) => {
                let Submission { task, slots, num_examples, metrics } = submission;
                self.apply(run, &Event::Submitted { task, site, slots, num_examples, metrics }, batch)?;
                Ok(SubmitOutcome::Accepted)
            }
            _ => Err(Error::not_found("no such task")),
        }
    }

    async fn create(&mut self, run: RunId, event: &Event, batch: &mut Batch) -> Result<(), Error> {
        let journal = JournalId::Run(run);
        let at = self.shared.clock.now();
        let (state, actions) = RunState::create(at, event)?;
        let draft = draft_of(at, event)?;
        check_len(&draft)?;
        let head = recover::acquire(&*self.shared.store, journal, &self.holder, at).await?;
        crash::reached(Point::RunLeased);
        if head.seq != 0 {
            return Err(Error::internal("a new run's journal is not empty"));
        }
        self.heads.insert(journal, head);
        self.shared.put_run(RunSlot::new(state));
        batch.push(journal, draft);
        batch.actions.extend(actions.into_iter().map(|action| (run, action)));
        self.tell_who_is_there(run, batch)
    }

    fn extend(&self, run: RunId, rounds: u32, batch: &mut Batch) -> Result<(), Error> {
        let (was_over, of_app) =
            self.shared.with_run(run, |state| (state.phase().is_over(), state.plan().app.is_some()))?;
        if was_over && of_app {
            let message = "a run of an app is not extended after its end: start another one from its model";
            return Err(Error::conflict(message));
        }
        self.apply(run, &Event::Extended { rounds }, batch)?;
        if was_over { self.tell_who_is_there(run, batch) } else { Ok(()) }
    }

    /// Names all participants at once, so that a cohort is drawn from all of them.
    fn tell_who_is_there(&self, run: RunId, batch: &mut Batch) -> Result<(), Error> {
        let shared = &self.shared;
        let plan = shared.with_run(run, |state| state.plan().clone())?;
        let here = |site: &SiteName| shared.registry.is_active(site) && shared.works_on(site, &plan);
        let sites: Vec<SiteName> = shared.presence.present().into_iter().filter(here).collect();
        if sites.is_empty() {
            return Ok(());
        }
        self.apply(run, &Event::SitesPresent { sites }, batch)
    }

    fn pass_deadlines(&mut self, batch: &mut Batch) {
        for (run, stage) in self.deadlines.due(self.shared.clock.now()) {
            let event = Event::DeadlinePassed { round: stage.round, stage: stage.stage };
            // A stage that closed meanwhile refuses the event, which is right.
            let _ = self.apply(run, &event, batch);
        }
    }

    async fn tick(&mut self, batch: &mut Batch) {
        let now = self.shared.clock.monotonic();
        if !self.rebuilds.runs.is_empty() && self.rebuilds.next.is_none_or(|next| next <= Instant::now()) {
            self.rebuild().await;
        }
        if std::mem::take(&mut self.presence_missed) {
            self.catch_up(batch);
        }
        if now.saturating_sub(self.leases_renewed) >= LEASE_TTL.as_duration() / 3 {
            self.leases_renewed = now;
            self.renew_leases().await;
        }
    }

    async fn renew_leases(&self) {
        let now = self.shared.clock.now();
        for (journal, head) in &self.heads {
            let over = match journal {
                JournalId::Federation | JournalId::Relay(_) => false,
                JournalId::Run(run) => {
                    self.shared.with_run(*run, |state| state.phase().is_over()).unwrap_or(false)
                }
            };
            if over {
                continue;
            }
            if let Err(error) =
                self.shared.store.renew_lease(*journal, head.lease_epoch, LEASE_TTL, now).await
            {
                tracing::warn!(%journal, %error, "a lease could not be renewed");
            }
        }
    }
}

/// An event as a journal entry.
fn draft_of(at: Timestamp, event: &Event) -> Result<EntryDraft, Error> {
    let body = serde_json::to_string(event);
    let body = body.map_err(|error| Error::internal(format!("an event has no JSON form: {error}")))?;
    Ok(EntryDraft { at, kind: event.kind().to_owned(), body })
}

/// An entry that the store would refuse must not spoil the commit of others.
fn check_len(draft: &EntryDraft) -> Result<(), Error> {
    if draft.body.len() > BODY_LEN_MAX {
        let (kind, len) = (&draft.kind, draft.body.len());
        return Err(Error::invalid(format!(
            "the entry {kind:?} would have {len} bytes, the limit is {BODY_LEN_MAX}"
        )));
    }
    Ok(())
}
