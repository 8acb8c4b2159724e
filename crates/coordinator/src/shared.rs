//! What the service and every clone of the handle share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use sheaf_blob::{BlobStore, Hold};
use sheaf_domain::plan::Plan;
use sheaf_domain::{EntryDraft, LineageName, RunId, SiteName, TaskId, Timestamp};
use sheaf_engine::{Action, Event, Rejected, RunState, StageKey};
use sheaf_pki::{CertificateAuthority, EnrolmentLimiter, JournalSigner};
use sheaf_runtime::{Clock, Compute, Entropy, TaskScope};
use sheaf_store::StateStore;
use sheaf_telemetry::Health;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::budget::Budget;
use crate::command::Command;
use crate::fold::Coder;
use crate::handle::AppHost;
use crate::incidents::{Incidents, Kind};
use crate::logins::Logins;
use crate::membership::Membership;
use crate::outbox::{Outbox, Outboxes, lock};
use crate::presence::Presence;
use crate::quarantine::{Broken, Quarantine};
use crate::registry::Registry;
use crate::tasks::Tasks;
use crate::tiles::Tiles;
use crate::vetted::Vetted;
use crate::{Error, Settings};

/// Everything the coordinator's parts share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) blob: Arc<dyn BlobStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) compute: Compute,
    pub(crate) ca: Arc<CertificateAuthority>,
    pub(crate) signer: Arc<JournalSigner>,
    /// Bounds enrolment.
    pub(crate) limiter: EnrolmentLimiter,
    /// Bounds keys that register themselves.
    pub(crate) key_limiter: EnrolmentLimiter,
    /// Bounds requests of operators to be let in.
    pub(crate) login_limiter: EnrolmentLimiter,
    pub(crate) health: Health,
    pub(crate) scope: TaskScope,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) runs: RwLock<HashMap<RunId, Arc<RunSlot>>>,
    /// Runs whose journals are broken.
    pub(crate) quarantine: Quarantine,
    pub(crate) outboxes: Outboxes,
    pub(crate) tasks: Tasks,
    pub(crate) presence: Presence,
    pub(crate) incidents: Incidents,
    pub(crate) registry: Registry,
    /// Operators who logged in from elsewhere.
    pub(crate) logins: Logins,
    pub(crate) budget: Budget,
    pub(crate) tiles: Tiles,
    pub(crate) vetted: Vetted,
    /// Folds under way: each stage is folded by one task at a time.
    pub(crate) folding: Mutex<HashSet<(RunId, StageKey)>>,
    /// Models on their way in from operators: when the last piece came.
    pub(crate) uploads: Mutex<HashMap<Hold, Duration>>,
    /// Read-locked by whatever frees bytes; write-locked by a backup while it copies.
    pub(crate) release_gate: Semaphore,
    /// How many submissions are read and checked at once.
    pub(crate) gates: Semaphore,
    /// Turns to change sites and invitations.
    pub(crate) membership: Membership,
    /// The relayed runs of the same service.
    pub(crate) relays: OnceLock<Weak<crate::relay::Core>>,
    /// Who has the codecs that programs name.
    pub(crate) coder: OnceLock<Arc<dyn Coder>>,
    /// Who knows the bundles of apps that runs may name.
    pub(crate) apps: OnceLock<Arc<dyn AppHost>>,
    /// Grows with every mail posted.
    pub(crate) mail_posted: watch::Sender<u64>,
}

/// How many releases may go on at once; a backup takes all of these permits.
pub(crate) const RELEASE_PERMITS: u32 = 1024;
/// How many submissions are checked at once; each holds a tile in memory.
pub(crate) const GATES_MAX: usize = 16;

/// A run in memory.
#[derive(Debug)]
pub(crate) struct RunSlot {
    pub(crate) run: RunId,
    created_at: Timestamp,
    state: Mutex<RunState>,
    /// While set, the state may be ahead of the journal and nobody is told about it.
    stale: AtomicBool,
}

impl RunSlot {
    pub(crate) fn new(state: RunState) -> RunSlot {
        let (run, created_at) = (state.run(), state.created_at());
        RunSlot { run, created_at, state: Mutex::new(state), stale: AtomicBool::new(false) }
    }

    /// Reads something off the run.
    ///
    /// # Errors
    /// Unavailable while the run is being rebuilt from its journal.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&RunState) -> T) -> Result<T, Error> {
        let state = lock(&self.state);
        if self.stale.load(Ordering::SeqCst) {
            let message =
                format!("run {} cannot be read now: it is being rebuilt from its journal", self.run);
            return Err(Error::unavailable(message));
        }
        Ok(read(&state))
    }

    /// Applies an event, ahead of its commit.
    pub(crate) fn apply(&self, at: Timestamp, event: &Event) -> Result<Vec<Action>, Rejected> {
        lock(&self.state).apply(at, event)
    }

    /// Says that the state is ahead of the journal.
    pub(crate) fn set_stale(&self) {
        self.stale.store(true, Ordering::SeqCst);
    }

    /// Puts what the journal says in place.
    pub(crate) fn replace(&self, rebuilt: RunState) {
        let mut state = lock(&self.state);
        *state = rebuilt;
        self.stale.store(false, Ordering::SeqCst);
    }
}

impl Shared {
    /// A run.
    pub(crate) fn run(&self, run: RunId) -> Result<Arc<RunSlot>, Error> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let found = runs.get(&run).cloned();
        found.ok_or_else(|| {
            let set_aside = self.quarantine.refusal(run);
            set_aside.unwrap_or_else(|| Error::not_found(format!("no run {run}")))
        })
    }

    /// Whether there is such a run, whole or broken.
    pub(crate) fn knows(&self, run: RunId) -> bool {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        runs.contains_key(&run) || self.quarantine.refusal(run).is_some()
    }

    /// Sets a run aside whose journal is broken, and says so wherever people look.
    pub(crate) fn set_aside(&self, run: RunId, broken: Broken, before: Option<&RunState>) {
        tracing::error!(%run, entry = broken.seq, reason = broken.reason, "the run is set aside: its journal is broken");
        let body = serde_json::json!({ "run": run, "entry": broken.seq, "what": broken.reason });
        self.quarantine.put(run, broken, before);
        self.remove_run(run);
        self.report_set_aside();
        self.note_in_journal("run_set_aside", &body);
    }

    /// Tells `/health` which runs are set aside.
    pub(crate) fn report_set_aside(&self) {
        match self.quarantine.summary() {
            Some(summary) => self.health.degraded("runs", summary),
            None => self.health.ok("runs"),
        }
    }

    /// Reads something off a run.
    pub(crate) fn with_run<T>(&self, run: RunId, read: impl FnOnce(&RunState) -> T) -> Result<T, Error> {
        self.run(run)?.read(read)
    }

    pub(crate) fn put_run(&self, slot: RunSlot) {
        self.runs.write().unwrap_or_else(PoisonError::into_inner).insert(slot.run, Arc::new(slot));
    }

    pub(crate) fn remove_run(&self, run: RunId) {
        self.runs.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// Every run, newest first.
    pub(crate) fn all_runs(&self) -> Vec<Arc<RunSlot>> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = runs.values().cloned().collect();
        drop(runs);
        all.sort_by_key(|slot| std::cmp::Reverse((slot.created_at, slot.run)));
        all
    }

    /// Whether a participant can work on the run of a plan: those that are known by a key alone run apps, all others have trainers.
    pub(crate) fn works_on(&self, site: &SiteName, plan: &Plan) -> bool {
        match self.registry.site(site) {
            Some(site) if crate::relay::is_known_by_key(&site) => plan.app.is_some(),
            _ => plan.is_for_trainers(),
        }
    }

    /// Sends a command to the writer.
    pub(crate) async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::shutting_down())
    }

    pub(crate) fn outbox(&self, site: &SiteName) -> Arc<Outbox> {
        self.outboxes.of(site)
    }

    /// Frees what is held under `hold`; a failure is logged and made good by the sweep of the next start.
    pub(crate) async fn release(&self, hold: &Hold) {
        let permit = self.release_gate.acquire().await;
        if let Err(error) = self.blob.release(hold).await {
            tracing::warn!(%error, %hold, "bytes could not be freed; they will be at the next start");
        }
        drop(permit);
    }

    /// Frees every version of a run.
    pub(crate) async fn release_versions(&self, run: RunId) {
        let Ok(holds) = self.blob.holds().await else { return };
        let of_run = versions_prefix(run);
        for hold in holds.iter().filter(|hold| hold.as_str().starts_with(&of_run)) {
            self.release(hold).await;
        }
    }

    /// Notes what went wrong with a site that is known here, where people will see it.
    pub(crate) fn incident(&self, site: &SiteName, kind: Kind, run: Option<RunId>, text: &str) {
        let journal = self.incidents.note(site, kind, run, text, self.clock.monotonic());
        if let (true, Some(entry)) = (journal, kind.entry()) {
            let run = run.map(|run| run.to_string());
            let body = serde_json::json!({ "site": site, "run": run, "what": text });
            self.note_in_journal(entry, &body);
        }
    }

    /// Puts an entry into the federation's journal without waiting for it; dropped when the writer is far behind.
    pub(crate) fn note_in_journal(&self, entry: &str, body: &serde_json::Value) {
        let draft = EntryDraft { at: self.clock.now(), kind: entry.to_owned(), body: body.to_string() };
        if self.commands.try_send(Command::Federation { draft, reply: None }).is_err() {
            tracing::warn!(entry, "the writer is behind; an incident is in the log only");
        }
    }
}

/// The hold on what was uploaded under a task.
pub(crate) fn task_hold(task: TaskId) -> Result<Hold, Error> {
    hold(format!("task/{task}"))
}

/// The hold on the bytes of a version.
pub(crate) fn version_hold(run: RunId, lineage: &LineageName, version: u32) -> Result<Hold, Error> {
    hold(format!("run/{run}/{lineage}/{version}"))
}

/// What the holds on a run's versions begin with.
pub(crate) fn versions_prefix(run: RunId) -> String {
    format!("run/{run}/")
}

/// The hold on what an operator uploads before the run it is for exists.
pub(crate) fn upload_hold(upload: &str) -> Result<Hold, Error> {
    let well_formed = !upload.is_empty()
        && upload.len() <= 64
        && upload.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !well_formed {
        return Err(Error::invalid("an upload's name is 1 to 64 ASCII letters, digits and '-'"));
    }
    hold(format!("upload/{upload}"))
}

pub(crate) fn hold(text: String) -> Result<Hold, Error> {
    Hold::new(text).map_err(Error::from)
}
