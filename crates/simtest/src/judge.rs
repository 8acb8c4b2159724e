//! What must hold when a simulated run is over, judged by the journals and stores it left, not by what anybody says.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_blob::BlobStore as _;
use sheaf_coordinator::ReplayVerdict;
use sheaf_domain::{Digest, GENESIS, JournalEntry, JournalId, RunPhase, TaskId, Timestamp};
use sheaf_engine::{Event, RunState};
use sheaf_store::StateStore as _;

use crate::world::{Ended, World};

/// More entries than any simulated run writes.
const ENTRIES_MAX: u32 = 4096;

/// Judges; returns the final model's digest.
pub(crate) fn judge(world: &World) -> Result<Digest, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    let (ended, acknowledged) = {
        let notes = world.notes();
        (notes.ended.clone().ok_or("the run did not end")?, notes.acknowledged.clone())
    };
    check_end(world, &ended)?;
    let run = ended.status.run;
    let federation = runtime.block_on(entries(world, JournalId::Federation))?;
    check_chain(JournalId::Federation, &federation)?;
    let journal = runtime.block_on(entries(world, JournalId::Run(run)))?;
    check_chain(JournalId::Run(run), &journal)?;
    let (state, counted) = count(&journal)?;
    for (site, task) in &acknowledged {
        if !counted.contains(task) {
            return Err(format!("{site} was told that task {task} is accepted, and no journal has it"));
        }
    }
    if state.status().model != Some(ended.digest) {
        return Err("the journal's last model is another than the server's".to_owned());
    }
    runtime.block_on(check_bytes(world, &state))?;
    check_directories(world)?;
    Ok(ended.digest)
}

/// What the run waits for, for a run that does not end.
pub(crate) fn waits(world: &World) -> String {
    let replayed = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
        let run = world.notes().run?;
        let journal = runtime.block_on(entries(world, JournalId::Run(run))).ok()?;
        let (state, _) = count(&journal).ok()?;
        Some(state.status().waits.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
    };
    replayed().unwrap_or_else(|| "it never began".to_owned())
}

fn check_end(world: &World, ended: &Ended) -> Result<(), String> {
    let scenario = &world.scenario;
    match &ended.status.phase {
        RunPhase::Finished { .. } => {}
        // Without a fixed cohort a deadline may come when too few are there; that is said, and is an end.
        RunPhase::Failed { reason } if !scenario.strict && reason.contains(" needs ") => {}
        other => return Err(format!("the run is {}: {}", other.name(), other.reason().unwrap_or_default())),
    }
    if scenario.strict {
        let short = ended
            .status
            .history
            .iter()
            .find(|record| record.round > 0 && record.accepted.len() != scenario.sites.len());
        if let Some(record) = short {
            return Err(format!("{}/{} closed with {:?} only", record.round, record.stage, record.accepted));
        }
        let stages = 2 * scenario.rounds as usize + usize::from(scenario.init_by_trainer);
        if ended.status.history.len() != stages {
            return Err(format!("{} stages were closed instead of {stages}", ended.status.history.len()));
        }
    }
    for round in &ended.replay.rounds {
        let fine = match &round.verdict {
            ReplayVerdict::Same => true,
            ReplayVerdict::NotKept { .. } => !scenario.keep_all,
            ReplayVerdict::Different { .. } => false,
        };
        if !fine {
            return Err(format!("replay of round {}: {:?}", round.round, round.verdict));
        }
    }
    Ok(())
}

async fn entries(world: &World, journal: JournalId) -> Result<Vec<JournalEntry>, String> {
    world.store.entries(journal, 0, ENTRIES_MAX).await.map_err(|error| error.to_string())
}

fn check_chain(journal: JournalId, entries: &[JournalEntry]) -> Result<(), String> {
    let (mut end, mut at) = ((0, GENESIS), Timestamp::default());
    for entry in entries {
        entry.check_follows(journal, end).map_err(|error| error.to_string())?;
        if entry.at < at {
            return Err(format!("entry {} of {journal} is from before the one before it", entry.seq));
        }
        (end, at) = ((entry.seq, entry.hash), entry.at);
    }
    Ok(())
}

/// Replays a run's journal: every submission counts once and before its stage closes, no stage closes twice.
fn count(journal: &[JournalEntry]) -> Result<(RunState, BTreeSet<TaskId>), String> {
    let mut state: Option<RunState> = None;
    let mut counted = BTreeSet::new();
    let mut closed: BTreeMap<(u32, String), u64> = BTreeMap::new();
    for entry in journal {
        let event: Event = serde_json::from_str(&entry.body).map_err(|error| error.to_string())?;
        match &event {
            Event::Submitted { task, .. } if !counted.insert(*task) => {
                return Err(format!("task {task} counts twice (entry {})", entry.seq));
            }
            Event::Folded { round, stage, .. } => {
                if let Some(before) = closed.insert((*round, stage.to_string()), entry.seq) {
                    return Err(format!("{round}/{stage} closed at {before} and at {}", entry.seq));
                }
            }
            _ => {}
        }
        let rejected = |error: sheaf_engine::Rejected| format!("entry {} is refused: {error}", entry.seq);
        match &mut state {
            None => state = Some(RunState::create(entry.at, &event).map_err(rejected)?.0),
            Some(state) => {
                let rounds = state.status().history.len();
                state.apply(entry.at, &event).map_err(rejected)?;
                if state.status().history.len() < rounds {
                    return Err(format!("entry {} took a closed stage back", entry.seq));
                }
            }
        }
    }
    Ok((state.ok_or("the journal is empty")?, counted))
}

/// Bytes are held for what the run still needs, and for nothing else.
async fn check_bytes(world: &World, state: &RunState) -> Result<(), String> {
    let run = state.run();
    let mut expected: BTreeSet<String> =
        state.live_tasks().iter().map(|task| format!("task/{task}")).collect();
    let versions = state.live_versions();
    expected.extend(versions.map(|(lineage, version, _)| format!("run/{run}/{lineage}/{version}")));
    let held = world.blob.holds().await.map_err(|error| error.to_string())?;
    let held: BTreeSet<String> = held.iter().map(ToString::to_string).collect();
    // A task that uploaded nothing has no hold.
    let surplus: Vec<&String> = held.difference(&expected).collect();
    let lost: Vec<&String> = expected.difference(&held).filter(|hold| hold.starts_with("run/")).collect();
    match (surplus.as_slice(), lost.as_slice()) {
        ([], []) => Ok(()),
        _ => Err(format!("bytes held for nothing: {surplus:?}; versions without bytes: {lost:?}")),
    }
}

/// No site has anything left that it would hand in.
fn check_directories(world: &World) -> Result<(), String> {
    for site in &world.scenario.sites {
        let tasks = world.dir.path().join(&site.name).join("tasks");
        let left: Vec<_> = std::fs::read_dir(&tasks).map_err(|error| error.to_string())?.flatten().collect();
        if let Some(first) = left.first() {
            return Err(format!("{} has {} left over: {:?}", site.name, left.len(), first.file_name()));
        }
    }
    Ok(())
}
