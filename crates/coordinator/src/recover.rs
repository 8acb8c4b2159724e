//! Starting again: runs rebuilt from their journals, and bytes freed that nothing refers to any more.
//!
//! A run whose journal is broken is set aside and stops no other; a store that cannot be read stops the start.

use std::collections::{HashMap, HashSet};

use sheaf_blob::Hold;
use sheaf_domain::{Digest, GENESIS, JournalEntry, JournalId, RunId, Span, Timestamp};
use sheaf_engine::{Event, RunState};
use sheaf_runtime::crash::{self, Point};
use sheaf_runtime::{Clock, Entropy};
use sheaf_store::StateStore;

use crate::Error;
use crate::handle::waiting_mail;
use crate::quarantine::Broken;
use crate::shared::{Shared, task_hold, version_hold, versions_prefix};

/// How long a lease lasts before another server may take it.
pub(crate) const LEASE_TTL: Span = Span::from_secs(30);
/// Entries read at a time.
const PAGE: u32 = 1024;
/// The setting that names this installation among the holders of leases.
const INSTANCE_SETTING: &str = "instance_id";

/// A journal's end and the lease under which it grows.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) lease_epoch: u64,
    pub(crate) seq: u64,
}

/// What a start finds.
pub(crate) struct Recovered {
    pub(crate) holder: String,
    pub(crate) heads: HashMap<JournalId, Head>,
    pub(crate) runs: Vec<RunState>,
    pub(crate) broken: Vec<(RunId, Unreadable)>,
}

/// Why a run cannot be rebuilt.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// Its journal makes no sense from an entry on; what it was before.
    Broken(Broken, Option<Box<RunState>>),
    /// It has no entry.
    Empty,
    /// The store cannot say.
    Store(sheaf_store::Error),
}

/// Takes the leases and rebuilds every run.
pub(crate) async fn load(
    store: &dyn StateStore,
    entropy: &dyn Entropy,
    clock: &dyn Clock,
) -> Result<Recovered, Error> {
    let holder = instance_id(store, entropy).await?;
    let mut heads = HashMap::new();
    let (mut runs, mut broken) = (Vec::new(), Vec::new());
    let now = clock.now();
    heads.insert(JournalId::Federation, acquire(store, JournalId::Federation, &holder, now).await?);
    for journal in store.journals().await? {
        let JournalId::Run(run) = journal else { continue };
        match take(store, run, &holder, now).await {
            Ok((head, state)) => {
                heads.insert(journal, head);
                runs.push(state);
            }
            // A creation that was never committed left only its lease.
            Err(Unreadable::Empty) => {}
            Err(Unreadable::Store(error)) => return Err(error.into()),
            Err(unreadable) => broken.push((run, unreadable)),
        }
    }
    Ok(Recovered { holder, heads, runs, broken })
}

/// Takes the lease of a run and rebuilds it.
async fn take(
    store: &dyn StateStore,
    run: RunId,
    holder: &str,
    now: Timestamp,
) -> Result<(Head, RunState), Unreadable> {
    let journal = JournalId::Run(run);
    let damaged = |error| match error {
        sheaf_store::Error::Damaged { .. } => Unreadable::Broken(broken_at(1, error), None),
        other => Unreadable::Store(other),
    };
    let lease = store.acquire_lease(journal, holder, LEASE_TTL, now).await.map_err(damaged)?;
    let (seq, hash) = store.head(journal).await.map_err(damaged)?;
    let (state, end) = match replay_run(store, run).await {
        Err(Unreadable::Empty) if seq > 0 => {
            return Err(Unreadable::Broken(broken_at(1, "its entries are missing"), None));
        }
        replayed => replayed?,
    };
    if end != (seq, hash) {
        let reason = format!("it ends there, and the store says that it ends with entry {seq}");
        return Err(Unreadable::Broken(broken_at(end.0 + 1, reason), Some(Box::new(state))));
    }
    Ok((Head { lease_epoch: lease.epoch, seq }, state))
}

fn broken_at(seq: u64, reason: impl std::fmt::Display) -> Broken {
    Broken { seq, reason: reason.to_string() }
}

async fn instance_id(store: &dyn StateStore, entropy: &dyn Entropy) -> Result<String, Error> {
    if let Some(id) = store.setting(INSTANCE_SETTING).await? {
        return Ok(id);
    }
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
    let id = hex::encode(bytes);
    store.put_setting(INSTANCE_SETTING, &id).await?;
    Ok(id)
}

/// Takes a journal's lease and reads its end.
pub(crate) async fn acquire(
    store: &dyn StateStore,
    journal: JournalId,
    holder: &str,
    now: Timestamp,
) -> Result<Head, Error> {
    let lease_epoch = lease(store, journal, holder, now).await?;
    let (seq, _) = store.head(journal).await?;
    Ok(Head { lease_epoch, seq })
}

/// Takes a journal's lease; tells its epoch.
pub(crate) async fn lease(
    store: &dyn StateStore,
    journal: JournalId,
    holder: &str,
    now: Timestamp,
) -> Result<u64, Error> {
    Ok(store.acquire_lease(journal, holder, LEASE_TTL, now).await?.epoch)
}

/// Rebuilds a run from its journal, checking the chain on the way; also returns the journal's end.
pub(crate) async fn replay_run(
    store: &dyn StateStore,
    run: RunId,
) -> Result<(RunState, (u64, Digest)), Unreadable> {
    let journal = JournalId::Run(run);
    let mut state: Option<RunState> = None;
    let mut end = (0, GENESIS);
    let mut limit = PAGE;
    loop {
        let page = match store.entries(journal, end.0, limit).await {
            // One of them is damaged: entry by entry, so that it is named.
            Err(sheaf_store::Error::Damaged { .. }) if limit > 1 => {
                limit = 1;
                continue;
            }
            Err(error @ sheaf_store::Error::Damaged { .. }) => {
                return Err(Unreadable::Broken(broken_at(end.0 + 1, error), state.map(Box::new)));
            }
            page => page.map_err(Unreadable::Store)?,
        };
        if page.is_empty() {
            break;
        }
        for entry in page {
            if let Err(broken) = follow(journal, &mut state, end, &entry) {
                return Err(Unreadable::Broken(broken, state.map(Box::new)));
            }
            end = (entry.seq, entry.hash);
        }
    }
    let state = state.ok_or(Unreadable::Empty)?;
    Ok((state, end))
}

/// Applies the entry that follows `end`.
fn follow(
    journal: JournalId,
    state: &mut Option<RunState>,
    end: (u64, Digest),
    entry: &JournalEntry,
) -> Result<(), Broken> {
    let seq = end.0 + 1;
    entry.check_follows(journal, end).map_err(|error| broken_at(seq, error.reason))?;
    let event = serde_json::from_str(&entry.body)
        .map_err(|error| broken_at(seq, format!("it is not an event: {error}")))?;
    let applied = match state {
        None => RunState::create(entry.at, &event).map(|(created, _)| *state = Some(created)),
        Some(state) => state.apply(entry.at, &event).map(drop),
    };
    applied.map_err(|rejected| broken_at(seq, format!("the run cannot take it: {rejected}")))
}

/// The event an entry holds.
pub(crate) fn event_of(entry: &JournalEntry) -> Result<Event, Error> {
    serde_json::from_str(&entry.body)
        .map_err(|error| Error::internal(format!("journal entry {} is not an event: {error}", entry.seq)))
}

/// Frees what is held for tasks, versions and uploads that no longer matter, and for mail that has expired.
pub(crate) async fn sweep(shared: &Shared) -> Result<(), Error> {
    let mut live = HashSet::new();
    for slot in shared.all_runs() {
        let (tasks, versions) = slot.read(|state| {
            let versions: Vec<_> =
                state.live_versions().map(|(lineage, n, _)| (lineage.clone(), n)).collect();
            (state.live_tasks(), versions)
        })?;
        for task in tasks {
            live.insert(task_hold(task)?);
        }
        for (lineage, version) in versions {
            live.insert(version_hold(slot.run, &lineage, version)?);
        }
    }
    let now = shared.clock.now();
    let set_aside = shared.quarantine.all();
    for hold in shared.blob.holds().await? {
        // Relayed runs look after theirs.
        let explained =
            live.contains(&hold) || waiting_mail(&hold, now) || hold.as_str().starts_with("relay/");
        if !explained && !set_aside.iter().any(|status| may_be_of(&hold, status.run)) {
            crash::reached(Point::HoldSwept);
            let freed = shared.blob.release(&hold).await?;
            tracing::info!(%hold, freed_bytes = freed, "bytes freed that nothing refers to");
        }
    }
    Ok(())
}

/// Whether bytes may belong to a run whose journal cannot be followed: its versions do, and any task may be its own.
fn may_be_of(hold: &Hold, run: RunId) -> bool {
    let hold = hold.as_str();
    hold.starts_with("task/") || hold.starts_with(&versions_prefix(run))
}
