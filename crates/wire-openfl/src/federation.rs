//! One federation: its plan, the run that drives it, and who takes part.
//!
//! Opened once a process. The run is created when there is none yet, and gone on with when there is; a run of another plan is refused.
//! Round *n* of the run makes version *n* of the model; upstream counts rounds from zero, or from that of the model it begins with.

mod begin;
mod follow;
mod index;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sheaf_coordinator::Handle;
use sheaf_domain::{Identity, JournalId, LineageName, RunId, VersionRef};
use sheaf_runtime::Compute;
use tokio::sync::{Semaphore, watch};

pub use self::begin::BeginError;
pub(crate) use self::index::{Index, Indices};
use crate::encoded::EncodedCache;
use crate::error::{CallError, Sort};
use crate::header::{self, HeaderError, Peer};
use crate::plan::Plan;
use crate::proto::openfl::aggregator::MessageHeader;
use crate::tensors::Limits;

/// What a federation is made of.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The plan.
    pub plan: Plan,
    /// The directory that the plan's paths are in.
    pub workspace: PathBuf,
    /// A directory of the server's where it notes what it has told; none where nothing is kept.
    pub notes: Option<PathBuf>,
}

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All rounds are done.
    Finished,
    /// It was stopped, or cannot go on: why.
    Failed(String),
}

/// A federation; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Federation(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) handle: Handle,
    /// Who takes collaborators in and reads what any of them may.
    pub(crate) operator: Identity,
    pub(crate) plan: Plan,
    pub(crate) run: RunId,
    /// What upstream calls the first round.
    pub(crate) first_round: u32,
    collaborators: BTreeMap<String, Identity>,
    /// Whose uploads are taken in at this moment.
    uploading: BTreeMap<String, Semaphore>,
    pub(crate) workspace: PathBuf,
    notes: Option<PathBuf>,
    indices: Indices,
    pub(crate) encoded: EncodedCache,
    pub(crate) compute: Compute,
    /// How much of a tensor that comes in is believed.
    pub(crate) limits: Limits,
    /// For those that hold a whole tensor in memory while they turn it.
    pub(crate) whole_tensors: Semaphore,
    /// Set once the run is over and its files are written.
    ending: watch::Sender<Option<Ending>>,
    /// Who was told that it is over.
    dismissed: watch::Sender<BTreeSet<String>>,
    /// Refusals that were told, so that one that comes again and again is told once.
    told: Mutex<BTreeSet<String>>,
}

/// How many hold a whole tensor in memory at once.
const WHOLE_TENSORS_MAX: usize = 2;
/// The most different refusals that are remembered.
const TOLD_MAX: usize = 1_000;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'f> {
    pub(crate) name: &'f str,
    pub(crate) who: &'f Identity,
}

impl Federation {
    pub(crate) fn of(inner: Inner) -> Federation {
        Federation(Arc::new(inner))
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// The run that drives it.
    pub fn run(&self) -> RunId {
        self.0.run
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Waits until every collaborator was told that it is over; then how it ended.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn all_dismissed(&self) -> Ending {
        let mut dismissed = self.0.dismissed.subscribe();
        let ending = self.ended().await;
        let all = self.0.collaborators.len();
        // The sender lives as long as this.
        let _ = dismissed.wait_for(|names| names.len() >= all).await;
        ending
    }

    /// Waits until the run is over and its files are written.
    ///
    /// # Cancel safety
    /// Safe: it only waits.
    pub async fn ended(&self) -> Ending {
        let mut ending = self.0.ending.subscribe();
        let found = ending.wait_for(Option::is_some).await.ok().and_then(|ending| ending.clone());
        found.unwrap_or_else(|| Ending::Failed("the server stops".to_owned()))
    }

    /// The collaborators that were not told that it is over.
    pub fn not_dismissed(&self) -> Vec<String> {
        let dismissed = self.0.dismissed.borrow();
        self.0.collaborators.keys().filter(|name| !dismissed.contains(*name)).cloned().collect()
    }
}

impl Inner {
    /// Whose turn it is among the uploads of a collaborator.
    pub(crate) fn uploading_of(&self, name: &str) -> Option<&Semaphore> {
        self.uploading.get(name)
    }

    /// The collaborator whose call it is; a refusal is told to operators by name.
    pub(crate) fn admit<'f>(
        &'f self,
        header: Option<&MessageHeader>,
        peer: Peer<'_>,
    ) -> Result<Caller<'f>, CallError> {
        let name = header::sender(&self.plan, header, peer).map_err(|error| self.refuse(header, &error))?;
        let found = self.collaborators.get_key_value(name);
        let (name, who) = found.ok_or_else(|| CallError::new(Sort::Identity, "it is not known"))?;
        Ok(Caller { name, who })
    }

    fn refuse(&self, header: Option<&MessageHeader>, error: &HeaderError) -> CallError {
        let sort = match error {
            HeaderError::NotTheSender { .. } | HeaderError::UnknownSender { .. } => Sort::Identity,
            _ => Sort::Header,
        };
        let sender = header.map(|header| header.sender.as_str()).unwrap_or_default();
        let known = self.collaborators.get(sender).filter(|_| sort == Sort::Header);
        let text = format!("{:?}: {error}", sender.chars().take(64).collect::<String>());
        if self.is_news(&text) {
            tracing::warn!(ours = %self.plan.identity.federation_uuid, "a call is refused: {text}");
            if let Some(who) = known {
                self.handle.note_malformed(who, &error.to_string());
            }
        }
        CallError::new(sort, error)
    }

    /// Whether a refusal was not told yet.
    pub(crate) fn is_news(&self, text: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(text.to_owned())
    }

    /// A receiver that sees every change of the run.
    pub(crate) fn news(&self) -> Result<watch::Receiver<u64>, CallError> {
        Ok(self.handle.watch_journal(&self.operator, JournalId::Run(self.run))?)
    }

    pub(crate) fn ending(&self) -> watch::Receiver<Option<Ending>> {
        self.ending.subscribe()
    }

    pub(crate) fn dismiss(&self, name: &str) {
        self.dismissed.send_if_modified(|names| names.insert(name.to_owned()));
    }

    /// What upstream calls a round of the run.
    pub(crate) fn told_round(&self, round: u32) -> i32 {
        i32::try_from(self.first_round.saturating_add(round.saturating_sub(1))).unwrap_or(i32::MAX)
    }

    /// The version of a lineage that belongs to what upstream calls a round.
    pub(crate) fn version_of(&self, lineage: LineageName, told_round: i32) -> Option<VersionRef> {
        let version = u32::try_from(told_round).ok()?.checked_sub(self.first_round)?;
        Some(VersionRef { run: self.run, lineage, version })
    }

    pub(crate) fn is_collaborator(&self, name: &str) -> bool {
        self.collaborators.contains_key(name)
    }

    pub(crate) fn indices(&self) -> &Indices {
        &self.indices
    }
}
