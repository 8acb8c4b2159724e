//! Starting again: runs rebuilt from their journals, and bytes freed that nothing refers to any more.

use std::collections::{HashMap, HashSet};

use sheaf_domain::{Digest, GENESIS, JournalEntry, JournalId, RunId, Span, Timestamp};
use sheaf_engine::{Event, RunState};
use sheaf_runtime::crash::{self, Point};
use sheaf_runtime::{Clock, Entropy};
use sheaf_store::StateStore;

use crate::Error;
use crate::handle::waiting_mail;
use crate::shared::{Shared, task_hold, version_hold};

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
}

/// Takes the leases and rebuilds every run.
pub(crate) async fn load(
    store: &dyn StateStore,
    entropy: &dyn Entropy,
    clock: &dyn Clock,
) -> Result<Recovered, Error> {
    let holder = instance_id(store, entropy).await?;
    let mut heads = HashMap::new();
    let mut runs = Vec::new();
    let now = clock.now();
    heads.insert(JournalId::Federation, acquire(store, JournalId::Federation, &holder, now).await?);
    for journal in store.journals().await? {
        let JournalId::Run(run) = journal else { continue };
        let head = acquire(store, journal, &holder, now).await?;
        if head.seq == 0 {
            // A creation that was never committed left only its lease.
            continue;
        }
        let (state, _) = replay_run(store, run).await?;
        heads.insert(journal, head);
        runs.push(state);
    }
    Ok(Recovered { holder, heads, runs })
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
    let lease = store.acquire_lease(journal, holder, LEASE_TTL, now).await?;
    let (seq, _) = store.head(journal).await?;
    Ok(Head { lease_epoch: lease.epoch, seq })
}

/// Rebuilds a run from its journal, checking the chain on the way; also returns the journal's end.
pub(crate) async fn replay_run(
    store: &dyn StateStore,
    run: RunId,
) -> Result<(RunState, (u64, Digest)), Error> {
    let journal = JournalId::Run(run);
    let mut state: Option<RunState> = None;
    let mut end = (0, GENESIS);
    loop {
        let page = store.entries(journal, end.0, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for entry in page {
            entry.check_follows(journal, end).map_err(|error| Error::internal(error.to_string()))?;
            let event = event_of(&entry)?;
            let applied = match &mut state {
                None => RunState::create(entry.at, &event).map(|(created, _)| state = Some(created)),
                Some(state) => state.apply(entry.at, &event).map(drop),
            };
            applied.map_err(|rejected| {
                Error::internal(format!(
                    "journal {run} cannot be replayed at entry {}: {rejected}",
                    entry.seq
                ))
            })?;
            end = (entry.seq, entry.hash);
        }
    }
    let state = state.ok_or_else(|| Error::not_found(format!("run {run} has no journal")))?;
    Ok((state, end))
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
    for hold in shared.blob.holds().await? {
        if !live.contains(&hold) && !waiting_mail(&hold, now) {
            crash::reached(Point::HoldSwept);
            let freed = shared.blob.release(&hold).await?;
            tracing::info!(%hold, freed_bytes = freed, "bytes freed that nothing refers to");
        }
    }
    Ok(())
}
