//! What outlives a process: the stores, keys and directories; and what a simulation writes down about itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sheaf_blob::MemoryBlobs;
use sheaf_coordinator::ReplayReport;
use sheaf_domain::{ByteSize, Digest, Identity, Role, RunId, RunStatus, SiteName, Span, TaskId, Timestamp};
use sheaf_pki::{CertificateAuthority, JournalSigner, Kit};
use sheaf_store::{MailLimits, MemoryStore};

use crate::clock::{EPOCH_MS, elapsed, millis};
use crate::scenario::Scenario;

/// Shared by the hosts of a simulation and whoever drives it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) blob: Arc<MemoryBlobs>,
    pub(crate) ca: Arc<CertificateAuthority>,
    pub(crate) signer: Arc<JournalSigner>,
    pub(crate) dir: tempfile::TempDir,
    notes: Mutex<Notes>,
}

/// What is written down.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) kits: BTreeMap<String, Kit>,
    pub(crate) run: Option<RunId>,
    pub(crate) ended: Option<Ended>,
    /// What happened, in order: what two simulations of one seed must have in common.
    pub(crate) trace: Vec<String>,
    /// What must not have happened.
    pub(crate) complaints: Vec<String>,
    /// The tasks whose submission a site was told is accepted.
    pub(crate) acknowledged: Vec<(SiteName, TaskId)>,
    /// How often each host's process was started.
    pub(crate) starts: BTreeMap<String, u64>,
}

/// How the run ended, as the server says.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) status: RunStatus,
    pub(crate) digest: Digest,
    pub(crate) replay: ReplayReport,
}

impl World {
    pub(crate) fn new(scenario: &Scenario) -> Arc<World> {
        let validity = Span::from_secs(365 * 24 * 3600);
        let now = Timestamp::from_millis(EPOCH_MS);
        Arc::new(World {
            scenario: scenario.clone(),
            store: Arc::new(MemoryStore::new(MailLimits::default())),
            blob: Arc::new(MemoryBlobs::new(ByteSize::from_mib(64))),
            ca: Arc::new(CertificateAuthority::create("study", validity, now).unwrap()),
            signer: Arc::new(JournalSigner::generate().unwrap()),
            dir: tempfile::tempdir().unwrap(),
            notes: Mutex::default(),
        })
    }

    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what happened to `who` now.
    pub(crate) fn trace(&self, who: &str, what: &str) {
        let line = format!("{:>7} {who}: {what}", millis(elapsed()));
        self.notes().trace.push(line);
    }

    /// Writes down what must not have happened.
    pub(crate) fn complain(&self, what: String) {
        self.notes().complaints.push(what);
    }

    /// Notes that a host's process starts; returns how many did before.
    pub(crate) fn starts(&self, who: &str) -> u64 {
        let before = {
            let mut notes = self.notes();
            let starts = notes.starts.entry(who.to_owned()).or_default();
            *starts += 1;
            *starts - 1
        };
        self.trace(who, "starts");
        before
    }

    pub(crate) fn operator(&self) -> Identity {
        Identity {
            trust_domain: "study".to_owned(),
            name: SiteName::new("op").unwrap(),
            role: Role::Operator,
            key_fingerprint: Digest::of(b"operator"),
        }
    }
}
