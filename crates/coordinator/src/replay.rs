//! Replay: a run's chain checked from its first entry, and every model rebuilt whose inputs are still kept.
//!
//! Rebuilt models are written under a hold of their own and freed afterwards. What cannot be rebuilt is said, never assumed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sheaf_blob::Hold;
use sheaf_domain::{Digest, GENESIS, JournalId, LineageName, Manifest, RunId};
use sheaf_engine::{Action, Event, FoldOrder, RunState, StageKey};

use crate::Error;
use crate::fold::{Folder, digest_of};
use crate::recover::event_of;
use crate::shared::Shared;

/// Entries read at a time.
const PAGE: u32 = 1024;

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// The run.
    pub run: RunId,
    /// Entries whose chain was checked.
    pub entries: u64,
    /// The hash of the last of them.
    pub head: Digest,
    /// What became of every folded stage, in order.
    pub rounds: Vec<ReplayRound>,
}

/// One folded stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRound {
    /// The round; 0 is the initial model.
    pub round: u32,
    /// The digest of the global model as the journal has it.
    pub digest: Digest,
    /// What the rebuilding came to.
    #[serde(flatten)]
    pub verdict: ReplayVerdict,
}

/// What the rebuilding of a model came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum ReplayVerdict {
    /// It was rebuilt and is the same.
    Same,
    /// It was rebuilt and is another: the stored bytes or this binary differ.
    Different {
        /// What was rebuilt.
        rebuilt: Digest,
    },
    /// Its inputs are not kept.
    NotKept {
        /// What is missing, and which setting would keep it.
        reason: String,
    },
}

/// Replays a run.
pub(crate) async fn replay(shared: &Shared, run: RunId) -> Result<ReplayReport, Error> {
    let mut suffix = [0; 8];
    shared.entropy.fill(&mut suffix).map_err(|error| Error::internal(error.to_string()))?;
    let mut replay = Replay { shared, scratch: hex::encode(suffix), rebuilt: BTreeMap::new(), generation: 0 };
    let report = replay.run(run).await;
    replay.release_all().await;
    report
}

/// A replay under way.
struct Replay<'a> {
    shared: &'a Shared,
    scratch: String,
    /// What the last rebuilt round made: the next may stand on it where the run's own version is not kept.
    rebuilt: BTreeMap<LineageName, Standing>,
    generation: u64,
}

/// A version a fold stands on: its number, tensors and digest.
type Standing = (u32, Arc<Manifest>, Digest);

impl Replay<'_> {
    async fn run(&mut self, run: RunId) -> Result<ReplayReport, Error> {
        let journal = JournalId::Run(run);
        let mut end = (0, GENESIS);
        let mut state: Option<RunState> = None;
        let mut orders: HashMap<StageKey, FoldOrder> = HashMap::new();
        let mut rounds = Vec::new();
        loop {
            let page = self.shared.store.entries(journal, end.0, PAGE).await?;
            if page.is_empty() {
                break;
            }
            for entry in page {
                entry.check_follows(journal, end).map_err(|error| Error::conflict(error.to_string()))?;
                end = (entry.seq, entry.hash);
                let event = event_of(&entry)?;
                if let Event::Folded { round, stage, versions } = &event
                    && let Some(order) = orders.remove(&StageKey { round: *round, stage: stage.clone() })
                    && let Some(digest) = digest_of(versions, &LineageName::global())
                {
                    let verdict = self.rebuild(order, digest).await?;
                    rounds.push(ReplayRound { round: *round, digest, verdict });
                }
                let actions = match &mut state {
                    None => {
                        let (created, actions) = RunState::create(entry.at, &event)?;
                        state = Some(created);
                        actions
                    }
                    Some(state) => state.apply(entry.at, &event)?,
                };
                for action in actions {
                    if let Action::Fold(fold) = action {
                        orders.insert(fold.key.clone(), *fold);
                    }
                }
            }
        }
        if state.is_none() {
            return Err(Error::not_found(format!("run {run} has no journal")));
        }
        Ok(ReplayReport { run, entries: end.0, head: end.1, rounds })
    }

    async fn rebuild(&mut self, mut order: FoldOrder, expected: Digest) -> Result<ReplayVerdict, Error> {
        for (lineage, current) in &mut order.current {
            self.take_rebuilt(lineage, current);
        }
        for fold in &order.folds {
            if let Some(base) = order.bases.get_mut(&fold.slot) {
                self.take_rebuilt(&fold.target, base);
            }
        }
        if let Some(reason) = missing(self.shared, &order).await? {
            return Ok(ReplayVerdict::NotKept { reason });
        }
        let hold = self.hold(self.generation + 1)?;
        let folder = Folder::new(
            &*self.shared.blob,
            &self.shared.compute,
            self.shared.settings.fold_budget.as_bytes(),
        );
        let versions = folder.fold(&order, |_, _| Ok(hold.clone())).await?;
        self.shared.release(&self.hold(self.generation)?).await;
        self.generation += 1;
        let rebuilt = digest_of(&versions, &LineageName::global())
            .ok_or_else(|| Error::internal("a fold made no global model"))?;
        self.rebuilt = versions
            .into_iter()
            .map(|new| (new.lineage, (new.version, Arc::new(new.manifest), new.digest)))
            .collect();
        Ok(if rebuilt == expected { ReplayVerdict::Same } else { ReplayVerdict::Different { rebuilt } })
    }

    /// Puts the copy that was rebuilt in place of a version, where there is one.
    fn take_rebuilt(&self, lineage: &LineageName, version: &mut Standing) {
        if let Some(rebuilt) = self.rebuilt.get(lineage)
            && (rebuilt.0, rebuilt.2) == (version.0, version.2)
        {
            *version = rebuilt.clone();
        }
    }

    fn hold(&self, generation: u64) -> Result<Hold, Error> {
        Ok(Hold::new(format!("upload/replay-{}-{generation}", self.scratch))?)
    }

    async fn release_all(&self) {
        for generation in self.generation..=self.generation + 1 {
            if let Ok(hold) = self.hold(generation) {
                self.shared.release(&hold).await;
            }
        }
    }
}

/// What a fold would need and is not stored any more.
async fn missing(shared: &Shared, order: &FoldOrder) -> Result<Option<String>, Error> {
    let mut seen: HashSet<Digest> = HashSet::new();
    let updates = order.inputs.iter().flat_map(|input| &input.slots).flat_map(|slot| slot.manifest.objects());
    for object in updates {
        if seen.insert(object) && shared.blob.len(&object).await?.is_none() {
            let reason = "its updates are not kept (keep_updates = \"run\" would keep them)".to_owned();
            return Ok(Some(reason));
        }
    }
    let bases = order.folds.iter().filter_map(|fold| Some((&fold.target, order.bases.get(&fold.slot)?)));
    for (lineage, (version, manifest, _)) in order.current.iter().chain(bases) {
        for object in manifest.objects() {
            if seen.insert(object) && shared.blob.len(&object).await?.is_none() {
                let remedy = match *lineage == LineageName::global() {
                    true => " (keep_models = \"run\" would keep it)",
                    false => "",
                };
                return Ok(Some(format!(
                    "version {version} of {lineage}, which it stands on, is not kept{remedy}"
                )));
            }
        }
    }
    Ok(None)
}
