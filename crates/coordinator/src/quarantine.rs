//! Runs set aside: their journals cannot be followed to the end, so nothing is certain of them from there on.
//!
//! Every call about one is refused with the entry and the reason. Nothing is appended to its journal and none of its bytes are
//! freed; the other runs go on. A start that finds the journal whole again takes the run up as if nothing had been.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use sheaf_domain::{RunId, RunPhase, RunStatus, Timestamp, code};
use sheaf_engine::RunState;

use crate::Error;

/// Where a journal stops making sense, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its journal is broken at entry {seq}: {reason}")]
pub(crate) struct Broken {
    pub(crate) seq: u64,
    pub(crate) reason: String,
}

/// The runs that are set aside, with what was true of each before the broken entry.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(RwLock<BTreeMap<RunId, (Broken, RunStatus)>>);

impl Quarantine {
    /// Sets a run aside; `before` is its state up to the entry that is broken.
    pub(crate) fn put(&self, run: RunId, broken: Broken, before: Option<&RunState>) {
        let mut status = before.map_or_else(|| unknown(run), RunState::status);
        status.waits.clear();
        status.ended_at = None;
        status.phase = RunPhase::Broken { reason: format!("{broken} [{}]", code::JOURNAL_BROKEN) };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(run, (broken, status));
    }

    /// Forgets a run.
    pub(crate) fn remove(&self, run: RunId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// The runs that are set aside, by id.
    pub(crate) fn all(&self) -> Vec<RunStatus> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.values().map(|(_, status)| status.clone()).collect()
    }

    /// What is known of a run that is set aside.
    pub(crate) fn status(&self, run: RunId) -> Option<RunStatus> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&run).map(|(_, status)| status.clone())
    }

    /// Why calls about a run are refused, if it is set aside.
    pub(crate) fn refusal(&self, run: RunId) -> Option<Error> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&run).map(|(broken, _)| refusal(run, broken))
    }

    /// What `/health` says: nothing when no run is set aside.
    pub(crate) fn summary(&self) -> Option<String> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (run, (broken, _)) = all.first_key_value()?;
        let others = match all.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        Some(format!("run {run} is set aside{others}: {broken}"))
    }
}

fn refusal(run: RunId, broken: &Broken) -> Error {
    Error::conflict(format!(
        "run {run} is set aside: {broken}; restore a backup, or remove the run with `sheaf rm --force {run}` [{}]",
        code::JOURNAL_BROKEN
    ))
}

/// The status of a run whose first entry cannot be read.
fn unknown(run: RunId) -> RunStatus {
    RunStatus {
        run,
        name: "(unreadable)".to_owned(),
        phase: RunPhase::Running,
        round: 0,
        rounds: 0,
        waits: Vec::new(),
        history: Vec::new(),
        sites: Vec::new(),
        notices: Vec::new(),
        model: None,
        best: None,
        created_at: Timestamp::default(),
        ended_at: None,
    }
}
