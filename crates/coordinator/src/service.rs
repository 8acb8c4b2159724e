//! The writer: one task through which every transition of every run goes.
//!
//! It takes what has queued up, applies it to the engines, commits the events of all runs in one durable transaction, and only
//! then puts assignments into outboxes, starts folds, and answers. When a commit fails, the runs concerned are rebuilt from
//! their journals, so that memory never runs ahead of what is durable, and the askers are told to come again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sheaf_blob::BlobStore;
use sheaf_domain::{EntryDraft, JournalId, RunId, SiteName, SubmitOutcome, Submission};
use sheaf_engine::{Action, Event, RunState, TaskStanding};
use sheaf_pki::{CertificateAuthority, EnrolmentLimiter, JournalSigner};
use sheaf_runtime::{Clock, Compute, Entropy, TaskScope};
use sheaf_store::{Append, StateStore};
use sheaf_telemetry::{Health, names};
use tokio::sync::mpsc;

use crate::budget::Budget;
use crate::command::{Command, Reply};
use crate::outbox::{Outboxes, lock};
use crate::presence::Presence;
use crate::recover::{self, Head};
use crate::registry::Registry;
use crate::shared::{RELEASE_PERMITS, Shared, task_hold, version_hold};
use crate::{Error, Handle, Settings, fold};

/// How many commands wait for the writer at most; callers wait beyond it.
const QUEUE_LEN: usize = 1024;
/// How many commands one commit takes in at most.
const BATCH_MAX: usize = 256;
/// How often silent participants are looked for.
const LIVENESS_CHECK_MS: u64 = 500;

/// What the coordinator stands on.
#[derive(Debug)]
pub struct Dependencies {
    /// Journals, sites, mail.
    pub store: Arc<dyn StateStore>,
    /// Bytes.
    pub blob: Arc<dyn BlobStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The pool for gate and folds.
    pub compute: Compute,
    /// Issues participants' certificates.
    pub ca: Arc<CertificateAuthority>,
    /// Signs journal heads.
    pub signer: Arc<JournalSigner>,
    /// Bounds the anonymous path.
    pub limiter: EnrolmentLimiter,
    /// Where the state of the stores is reported.
    pub health: Health,
}

/// The running service; its tasks live in the scope given to [`Coordinator::start`].
#[derive(Debug)]
pub struct Coordinator {
    handle: Handle,
    scope: TaskScope,
}

impl Coordinator {
    /// Rebuilds every run from its journal, frees what nothing refers to, and starts the service in a child of `scope`.
    ///
    /// # Errors
    /// When the store cannot be read, a chain is broken, or another server holds a journal.
    pub async fn start(dependencies: Dependencies, settings: Settings, scope: &TaskScope) -> Result<Coordinator, Error> {
        let (commands, queue) = mpsc::channel(QUEUE_LEN);
        let scope = scope.child();
        let recovered = recover::load(&*dependencies.store, &*dependencies.entropy, &*dependencies.clock).await?;
        let registry = Registry::load(&*dependencies.store).await?;
        let shared = Arc::new(Shared {
            budget: Budget::new(settings.inflight, settings.inflight_wait),
            settings,
            store: dependencies.store,
            blob: dependencies.blob,
            clock: dependencies.clock,
            entropy: dependencies.entropy,
            compute: dependencies.compute,
            ca: dependencies.ca,
            signer: dependencies.signer,
            limiter: dependencies.limiter,
            health: dependencies.health,
            scope: scope.clone(),
            commands,
            runs: RwLock::new(HashMap::new()),
            outboxes: Outboxes::default(),
            presence: Presence::default(),
            registry,
            release_gate: tokio::sync::Semaphore::new(RELEASE_PERMITS as usize),
        });
        let mut writer = Writer { shared: Arc::clone(&shared), heads: HashMap::new(), holder: recovered.holder.clone() };
        writer.adopt(recovered).await?;
        recover::sweep(&shared).await?;
        scope.spawn(writer.run(queue));
        scope.spawn_until_cancelled(watch_liveness(Arc::clone(&shared)));
        Ok(Coordinator { handle: Handle::new(shared), scope })
    }

    /// A handle on the service.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops taking commands, lets what is queued become durable, and ends every task of the service.
    pub async fn stop(self) {
        self.scope.cancel();
        self.scope.finished().await;
    }
}

/// The one task that journals.
struct Writer {
    shared: Arc<Shared>,
    heads: HashMap<JournalId, Head>,
    holder: String,
}

/// What one commit takes in.
#[derive(Default)]
struct Batch {
    drafts: BTreeMap<JournalId, Vec<EntryDraft>>,
    actions: Vec<(RunId, Action)>,
    replies: Vec<Box<dyn FnOnce(Result<(), Error>) + Send>>,
    created: Vec<RunId>,
}

impl Batch {
    fn push(&mut self, journal: JournalId, draft: EntryDraft) {
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
    /// Takes over what was rebuilt from the journals.
    async fn adopt(&mut self, recovered: recover::Recovered) -> Result<(), Error> {
        self.heads = recovered.heads;
        let now = (self.shared.clock.monotonic(), self.shared.clock.now());
        for state in recovered.runs {
            let actions = state.outstanding();
            let run = state.run();
            if !state.phase().is_over() {
                for site in state.present() {
                    // Whoever was there before the restart gets the full time to show itself again.
                    self.shared.presence.touch(site, now.0, now.1, None);
                }
            }
            self.shared
                .runs
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(run, Arc::new(Mutex::new(state)));
            for action in actions {
                self.act(run, action).await;
            }
        }
        Ok(())
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        loop {
            let first = tokio::select! {
                biased;
                command = queue.recv() => command,
                () = self.shared.scope.cancelled() => {
                    queue.close();
                    queue.recv().await
                }
            };
            let Some(first) = first else { break };
            let mut batch = Batch::default();
            self.take(first, &mut batch).await;
            for _ in 1..BATCH_MAX {
                let Ok(next) = queue.try_recv() else { break };
                self.take(next, &mut batch).await;
            }
            self.commit(batch).await;
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
            Command::Present { site } => {
                self.for_running(batch, |state| {
                    (!state.present().contains(&site)).then(|| Event::SitePresent { site: site.clone() })
                });
            }
            Command::Gone { site, reason, revoked } => {
                self.for_running(batch, |state| {
                    let (site, reason) = (site.clone(), reason.clone());
                    if revoked {
                        Some(Event::SiteRevoked { site, reason })
                    } else {
                        state.present().contains(&site).then_some(Event::SiteLost { site, reason })
                    }
                });
            }
            Command::Federation { draft, reply } => {
                batch.push(JournalId::Federation, draft);
                batch.reply(reply, Ok(()));
            }
        }
    }

    /// Applies an event to a run and notes it for the commit.
    fn apply(&self, run: RunId, event: &Event, batch: &mut Batch) -> Result<(), Error> {
        let state = self.shared.run(run)?;
        let at = self.shared.clock.now();
        let draft = draft_of(at, event)?;
        let actions = lock(&state).apply(at, event)?;
        batch.push(JournalId::Run(run), draft);
        batch.actions.extend(actions.into_iter().map(|action| (run, action)));
        Ok(())
    }

    fn for_running(&self, batch: &mut Batch, event_for: impl Fn(&RunState) -> Option<Event>) {
        for state in self.shared.all_runs() {
            let (run, event) = {
                let state = lock(&state);
                (state.run(), if state.phase().is_over() { None } else { event_for(&state) })
            };
            let Some(event) = event else { continue };
            if let Err(error) = self.apply(run, &event, batch) {
                tracing::error!(%run, %error, event = event.kind(), "an event was refused");
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
        let head = recover::acquire(&*self.shared.store, journal, &self.holder, at).await?;
        if head.seq != 0 {
            return Err(Error::internal("a new run's journal is not empty"));
        }
        self.heads.insert(journal, head);
        self.shared
            .runs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(run, Arc::new(Mutex::new(state)));
        batch.created.push(run);
        batch.push(journal, draft_of(at, event)?);
        batch.actions.extend(actions.into_iter().map(|action| (run, action)));
        for site in self.shared.presence.present() {
            if self.shared.registry.is_active(&site) {
                self.apply(run, &Event::SitePresent { site }, batch)?;
            }
        }
        Ok(())
    }

    /// Makes the batch durable, then acts and answers.
    async fn commit(&mut self, batch: Batch) {
        let appends = self.appends(&batch.drafts);
        let outcome = if appends.is_empty() { Ok(Vec::new()) } else { self.timed_append(appends).await };
        match outcome {
            Ok(appended) => {
                self.shared.health.ok("store");
                for journal in appended {
                    if let (Some(head), Some(last)) = (self.heads.get_mut(&journal.journal), journal.entries.last()) {
                        head.seq = last.seq;
                        head.hash = last.hash;
                    }
                }
                for (run, action) in batch.actions {
                    self.act(run, action).await;
                }
                for reply in batch.replies {
                    reply(Ok(()));
                }
            }
            Err(error) => {
                self.shared.health.failed("store", error.to_string());
                tracing::error!(%error, "a commit failed; its runs are rebuilt from their journals");
                self.roll_back(batch.drafts.keys().copied().collect(), &batch.created).await;
                let message = format!("nothing was changed: {error}");
                let kind = error.kind();
                for reply in batch.replies {
                    reply(Err(Error::new(kind, message.clone())));
                }
            }
        }
    }

    fn appends(&self, drafts: &BTreeMap<JournalId, Vec<EntryDraft>>) -> Vec<Append> {
        let of = |(journal, entries): (&JournalId, &Vec<EntryDraft>)| {
            let head = self.heads.get(journal)?;
            Some(Append {
                journal: *journal,
                lease_epoch: head.lease_epoch,
                expected_seq: head.seq,
                entries: entries.clone(),
            })
        };
        drafts.iter().filter_map(of).collect()
    }

    async fn timed_append(&self, appends: Vec<Append>) -> Result<Vec<sheaf_store::Appended>, Error> {
        let started = self.shared.clock.monotonic();
        let appended = self.shared.store.append(appends).await.map_err(Error::from);
        let seconds = self.shared.clock.monotonic().saturating_sub(started).as_secs_f64();
        metrics::histogram!(names::JOURNAL_APPEND_SECONDS).record(seconds);
        appended
    }

    /// Puts the runs concerned back to what their journals say.
    async fn roll_back(&mut self, journals: Vec<JournalId>, created: &[RunId]) {
        for run in created {
            self.shared.runs.write().unwrap_or_else(PoisonError::into_inner).remove(run);
        }
        for journal in journals {
            let JournalId::Run(run) = journal else { continue };
            if created.contains(&run) {
                continue;
            }
            match recover::replay_run(&*self.shared.store, run).await {
                Ok((state, head)) => {
                    if let Ok(shared) = self.shared.run(run) {
                        *lock(&shared) = state;
                    }
                    if let Some(known) = self.heads.get_mut(&journal) {
                        known.seq = head.0;
                        known.hash = head.1;
                    }
                }
                Err(error) => {
                    // Without its journal the run cannot be trusted; it is taken out until the next start.
                    tracing::error!(%run, %error, "the run cannot be rebuilt and is set aside until the next start");
                    self.shared.runs.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
                }
            }
        }
    }

    /// Does what the engine asks for. Every action may be done twice.
    async fn act(&self, run: RunId, action: Action) {
        let shared = &self.shared;
        match action {
            Action::Assign(assignment) => {
                let outbox = shared.outbox(&assignment.site);
                outbox.assign(*assignment);
            }
            Action::Withdraw { site, task, reason } => shared.outbox(&site).withdraw(task, reason),
            Action::Arm { stage, at } => {
                let shared = Arc::clone(shared);
                let wait = at.since(shared.clock.now());
                let scope = shared.scope.clone();
                scope.spawn_until_cancelled(async move {
                    tokio::time::sleep(wait.as_duration()).await;
                    let event = Event::DeadlinePassed { round: stage.round, stage: stage.stage };
                    // A stage that closed meanwhile refuses the event, which is right.
                    let _ = shared.send(Command::Event { run, event: Box::new(event), reply: None }).await;
                });
            }
            Action::Fold(order) => {
                let scope = shared.scope.clone();
                scope.spawn_until_cancelled(fold::drive(Arc::clone(shared), *order));
            }
            Action::ReleaseTask(task) => {
                if let Ok(hold) = task_hold(task) {
                    let shared = Arc::clone(shared);
                    let scope = shared.scope.clone();
                    scope.spawn(async move { shared.release(&hold).await });
                }
            }
            Action::ReleaseVersion { lineage, version } => {
                if let Ok(hold) = version_hold(run, &lineage, version) {
                    let shared = Arc::clone(shared);
                    let scope = shared.scope.clone();
                    scope.spawn(async move { shared.release(&hold).await });
                }
            }
            Action::Ended => {
                self.report_end(run);
                let shared = Arc::clone(shared);
                let scope = shared.scope.clone();
                scope.spawn(async move {
                    if let Err(error) = crate::handle::sign_head(&shared, JournalId::Run(run)).await {
                        tracing::warn!(%run, %error, "the journal's head could not be signed now");
                    }
                });
            }
            _ => tracing::error!(%run, "an action of the engine is not known here"),
        }
    }

    fn report_end(&self, run: RunId) {
        let phase = self.shared.with_run(run, |state| state.phase().clone());
        if let Ok(phase) = phase {
            tracing::info!(%run, phase = phase.name(), reason = phase.reason().unwrap_or_default(), "run ended");
        }
    }
}

/// An event as a journal entry.
pub(crate) fn draft_of(at: sheaf_domain::Timestamp, event: &Event) -> Result<EntryDraft, Error> {
    let body = serde_json::to_string(event).map_err(|error| Error::internal(format!("an event has no JSON form: {error}")))?;
    Ok(EntryDraft { at, kind: event.kind().to_owned(), body })
}

/// Reports participants that fell silent.
async fn watch_liveness(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(LIVENESS_CHECK_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let lost = shared.presence.expire(shared.clock.monotonic(), shared.settings.liveness);
        for (site, silent) in lost {
            tracing::warn!(%site, silent = %silent, "participant lost");
            let reason = format!("no sign of life for {silent}");
            if shared.send(Command::Gone { site, reason, revoked: false }).await.is_err() {
                return;
            }
        }
    }
}
