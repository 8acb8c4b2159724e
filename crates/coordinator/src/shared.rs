//! What the service and every clone of the handle share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sheaf_blob::{BlobStore, Hold};
use sheaf_domain::{LineageName, RunId, SiteName, TaskId};
use sheaf_engine::RunState;
use sheaf_pki::{CertificateAuthority, EnrolmentLimiter, JournalSigner};
use sheaf_runtime::{Clock, Compute, Entropy, TaskScope};
use sheaf_store::StateStore;
use sheaf_telemetry::Health;
use tokio::sync::mpsc;

use crate::budget::Budget;
use crate::command::Command;
use crate::outbox::{Outboxes, lock};
use crate::presence::Presence;
use crate::registry::Registry;
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
    pub(crate) limiter: EnrolmentLimiter,
    pub(crate) health: Health,
    pub(crate) scope: TaskScope,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) runs: RwLock<HashMap<RunId, Arc<Mutex<RunState>>>>,
    pub(crate) outboxes: Outboxes,
    pub(crate) presence: Presence,
    pub(crate) registry: Registry,
    pub(crate) budget: Budget,
    /// Read-locked by whatever frees bytes; write-locked by a backup while it copies.
    pub(crate) release_gate: tokio::sync::Semaphore,
}

/// How many releases may go on at once; a backup takes all of these permits.
pub(crate) const RELEASE_PERMITS: u32 = 1024;

impl Shared {
    /// The state of a run, behind its short lock.
    pub(crate) fn run(&self, run: RunId) -> Result<Arc<Mutex<RunState>>, Error> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        runs.get(&run).cloned().ok_or_else(|| Error::not_found(format!("no run {run}")))
    }

    /// Reads something off a run.
    pub(crate) fn with_run<T>(&self, run: RunId, read: impl FnOnce(&RunState) -> T) -> Result<T, Error> {
        let state = self.run(run)?;
        let state = lock(&state);
        Ok(read(&state))
    }

    /// Every run, newest first.
    pub(crate) fn all_runs(&self) -> Vec<Arc<Mutex<RunState>>> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = runs.values().cloned().collect();
        drop(runs);
        all.sort_by_key(|state| {
            let state = lock(state);
            std::cmp::Reverse((state.created_at(), state.run()))
        });
        all
    }

    /// Sends a command to the writer.
    pub(crate) async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::shutting_down())
    }

    /// Puts an assignment into its outbox, or takes it out.
    pub(crate) fn outbox(&self, site: &SiteName) -> Arc<crate::outbox::Outbox> {
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
}

/// The hold on what was uploaded under a task.
pub(crate) fn task_hold(task: TaskId) -> Result<Hold, Error> {
    hold(format!("task/{task}"))
}

/// The hold on the bytes of a version.
pub(crate) fn version_hold(run: RunId, lineage: &LineageName, version: u32) -> Result<Hold, Error> {
    hold(format!("run/{run}/{lineage}/{version}"))
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

fn hold(text: String) -> Result<Hold, Error> {
    Hold::new(text).map_err(Error::from)
}
