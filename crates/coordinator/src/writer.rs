//! The writer: one task through which every transition of every run goes.
//!
//! It takes what has queued up, applies it to the engines, commits the events of all runs in one durable transaction, and only
//! then puts assignments into outboxes, starts folds, and answers. When a commit fails, nobody is told of the states that ran
//! ahead: the runs concerned are rebuilt from their journals, at once or as soon as the store can be read, and the askers are
//! told to come again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sheaf_domain::{
    EntryDraft, ErrorKind, JournalId, LineageName, RunId, SiteName, Submission, SubmitOutcome, Timestamp,
};
use sheaf_engine::{Action, Event, RunState, TaskStanding};
use sheaf_store::{Append, BATCH_BYTES_MAX, BODY_LEN_MAX};
use sheaf_telemetry::names;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Error;
use crate::command::{Command, Reply};
use crate::deadlines::Deadlines;
use crate::incidents::Kind;
use crate::recover::{self, Head, LEASE_TTL};
use crate::shared::{RunSlot, Shared};

mod act;

/// How many commands one commit takes in at most.
const BATCH_MAX: usize = 256;
/// No further command is taken into a commit of this many bytes; the next one's entry still fits.
const BATCH_BYTES_FULL: usize = BATCH_BYTES_MAX - 2 * BODY_LEN_MAX;
/// How often leases, rebuilding and deadlines are looked after at least.
const TICK: Duration = Duration::from_millis(500);
/// The longest wait before a run is rebuilt again.
const REBUILD_WAIT_MAX: Duration = Duration::from_secs(30);

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

/// Runs whose state in memory is ahead of their journals.
#[derive(Debug, Default)]
struct Rebuilds {
    runs: HashSet<RunId>,
    next: Option<Instant>,
    wait: Duration,
}

/// Answers an asker with what became of the commit.
type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What one commit takes in.
#[derive(Default)]
struct Batch {
    drafts: BTreeMap<JournalId, Vec<EntryDraft>>,
    bytes: usize,
    actions: Vec<(RunId, Action)>,
    replies: Vec<Answer>,
    rounds_closed: u64,
}

impl Batch {
    fn push(&mut self, journal: JournalId, draft: EntryDraft) {
        self.bytes = self.bytes.saturating_add(draft.body.len());
        self.drafts.entry(journal).or_default().push(draft);
    }

    /// Answers `reply` with `answer` once the commit is through.
    fn reply<T: Send + 'static>(&mut self, reply: Option<Reply<T>>, answer: Result<T, Error>) {
        if let Some(reply) = reply {
            self.replies.push(Box::new(move |committed| {
                // The asker may have gone away; what it asked for stays done.
                let _ = reply.send(committed.and(answer));
            }));
        }
    }
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

    /// Applies an event to every run that goes on and has use for it.
    fn for_running(&mut self, batch: &mut Batch, event_for: impl Fn(&RunState) -> Option<Event>) {
        for slot in self.shared.all_runs() {
            match slot.read(|state| if state.phase().is_over() { None } else { event_for(state) }) {
                Err(_) => self.presence_missed |= !self.fenced.contains(&slot.run),
                Ok(None) => {}
                Ok(Some(event)) => {
                    if let Err(error) = self.apply(slot.run, &event, batch) {
                        tracing::error!(run = %slot.run, %error, event = event.kind(), "an event was refused");
                    }
                }
            }
        }
    }

    /// Tells the runs of a participant that came; whether it did is decided by what is known of it now.
    fn came(&mut self, site: &SiteName, batch: &mut Batch) {
        if self.shared.presence.is_present(site) && self.shared.registry.is_active(site) {
            let event = Event::SitePresent { site: site.clone() };
            self.for_running(batch, |state| (!state.present().contains(site)).then(|| event.clone()));
        }
    }

    fn went(&mut self, site: &SiteName, reason: &str, batch: &mut Batch) {
        if !self.shared.presence.is_present(site) {
            let event = Event::SiteLost { site: site.clone(), reason: reason.to_owned() };
            self.for_running(batch, |state| state.present().contains(site).then(|| event.clone()));
        }
    }

    fn revoke_in(&mut self, slot: &RunSlot, site: &SiteName, reason: &str, batch: &mut Batch) {
        let needed = slot.read(|state| {
            let told =
                |status: &sheaf_domain::SiteStatus| status.site == *site && status.presence == "revoked";
            !state.phase().is_over() && !state.status().sites.iter().any(told)
        });
        match needed {
            Err(_) => self.presence_missed |= !self.fenced.contains(&slot.run),
            Ok(false) => {}
            Ok(true) => {
                let event = Event::SiteRevoked { site: site.clone(), reason: reason.to_owned() };
                if let Err(error) = self.apply(slot.run, &event, batch) {
                    tracing::error!(run = %slot.run, %error, "a revocation did not reach the run");
                }
            }
        }
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
        let was_over = self.shared.with_run(run, |state| state.phase().is_over())?;
        self.apply(run, &Event::Extended { rounds }, batch)?;
        if was_over { self.tell_who_is_there(run, batch) } else { Ok(()) }
    }

    /// Names all participants at once, so that a cohort is drawn from all of them.
    fn tell_who_is_there(&self, run: RunId, batch: &mut Batch) -> Result<(), Error> {
        let present = self.shared.presence.present().into_iter();
        let sites: Vec<SiteName> = present.filter(|site| self.shared.registry.is_active(site)).collect();
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

    /// Makes the batch durable, then acts and answers.
    async fn commit(&mut self, batch: Batch) {
        if batch.drafts.is_empty() {
            batch.replies.into_iter().for_each(|reply| reply(Ok(())));
            return;
        }
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

    /// Hides the states that ran ahead and puts the runs back to what their journals say.
    async fn roll_back(&mut self, journals: impl Iterator<Item = JournalId>) {
        self.presence_missed = true;
        for journal in journals {
            match journal {
                // What is written there does not depend on what is in memory; only its end may.
                JournalId::Federation => self.reread_head(journal).await,
                JournalId::Run(run) => {
                    if let Ok(slot) = self.shared.run(run) {
                        slot.set_stale();
                        self.rebuilds.runs.insert(run);
                    }
                }
            }
        }
        self.rebuilds.wait = Duration::ZERO;
        self.rebuild().await;
    }

    async fn reread_head(&mut self, journal: JournalId) {
        let Ok((seq, _)) = self.shared.store.head(journal).await else { return };
        if let Some(head) = self.heads.get_mut(&journal) {
            head.seq = seq;
        }
    }

    /// Rebuilds the runs that are to be; those that cannot be read now are left for later.
    async fn rebuild(&mut self) {
        let runs: Vec<RunId> =
            self.rebuilds.runs.iter().copied().filter(|run| !self.fenced.contains(run)).collect();
        for run in runs {
            match recover::replay_run(&*self.shared.store, run).await {
                Ok((state, end)) => {
                    if let Some(head) = self.heads.get_mut(&JournalId::Run(run)) {
                        head.seq = end.0;
                    }
                    self.put_back(run, state);
                    self.rebuilds.runs.remove(&run);
                }
                // Its creation was not carried out.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.shared.remove_run(run);
                    self.heads.remove(&JournalId::Run(run));
                    self.rebuilds.runs.remove(&run);
                }
                Err(error) => {
                    tracing::error!(%run, %error, "the run cannot be rebuilt now; it will be tried again")
                }
            }
        }
        let wait = self.rebuilds.wait.max(TICK);
        self.rebuilds.next = Instant::now().checked_add(wait);
        self.rebuilds.wait = (wait * 2).min(REBUILD_WAIT_MAX);
    }

    /// Puts a rebuilt state in place, and outboxes, deadlines and folds in step with it.
    fn put_back(&mut self, run: RunId, state: RunState) {
        let Ok(slot) = self.shared.run(run) else { return };
        let actions = state.outstanding();
        slot.replace(state);
        let assigned = actions.iter().filter_map(|action| match action {
            Action::Assign(assignment) => Some(assignment.task),
            _ => None,
        });
        self.shared.outboxes.retain_run(run, &assigned.collect());
        for action in actions {
            self.act(run, action);
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

    /// Tells the runs who came, went and was shut out while they could not be told.
    fn catch_up(&mut self, batch: &mut Batch) {
        let mut revoked: Vec<(SiteName, String)> = Vec::new();
        for site in self.shared.registry.all() {
            if let Some(reason) = self.shared.registry.revocation(&site.name) {
                revoked.push((site.name.clone(), reason));
            } else {
                self.came(&site.name, batch);
                self.went(&site.name, "no sign of life", batch);
            }
        }
        for slot in self.shared.all_runs() {
            let known = slot.read(|state| state.status().sites).unwrap_or_default();
            for (site, reason) in revoked.iter().filter(|(site, _)| known.iter().any(|k| k.site == *site)) {
                self.revoke_in(&slot, site, reason, batch);
            }
        }
    }

    async fn renew_leases(&self) {
        let now = self.shared.clock.now();
        for (journal, head) in &self.heads {
            let over = match journal {
                JournalId::Federation => false,
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

/// What the askers of a failed commit are told: whether something was changed, as far as it is known, and what is lacking.
fn failure_of(kind: ErrorKind, known: bool) -> impl Fn() -> Error {
    let outcome =
        if known { "nothing was changed" } else { "it is not known yet whether this was carried out" };
    move || match kind {
        ErrorKind::Exhausted => Error::new(kind, format!("{outcome}: the state store is full")),
        _ => Error::unavailable(format!("{outcome}: the state store cannot take it now")),
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
