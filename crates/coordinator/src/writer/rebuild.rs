//! After a commit that failed: runs put back to what their journals say, at once or when the store can be read again.
//!
//! Until then nobody is told of the states that ran ahead.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sheaf_domain::{JournalId, RunId};
use sheaf_engine::{Action, RunState};
use tokio::time::Instant;

use super::{TICK, Writer};
use crate::recover::{self, Unreadable};

/// The longest wait before a run is rebuilt again.
const REBUILD_WAIT_MAX: Duration = Duration::from_secs(30);

/// Runs whose state in memory is ahead of their journals.
#[derive(Debug, Default)]
pub(super) struct Rebuilds {
    pub(super) runs: HashSet<RunId>,
    pub(super) next: Option<Instant>,
    pub(super) wait: Duration,
}

impl Writer {
    /// Hides the states that ran ahead and puts the runs back to what their journals say.
    pub(super) async fn roll_back(&mut self, journals: impl Iterator<Item = JournalId>) {
        self.presence_missed = true;
        for journal in journals {
            match journal {
                // What is written there does not depend on what is in memory; only its end may.
                JournalId::Federation => self.reread_head(journal).await,
                // Relayed runs have a writer of their own.
                JournalId::Relay(_) => {}
                JournalId::Run(run) => {
                    if let Ok(slot) = self.shared.run(run) {
                        slot.set_stale();
                        self.rebuilds.runs.insert(run);
                    }
                }
            }
        }
        self.rebuilds.wait = Duration::ZERO;
        self.rebuild().await;
    }

    pub(super) async fn reread_head(&mut self, journal: JournalId) {
        let Ok((seq, _)) = self.shared.store.head(journal).await else { return };
        if let Some(head) = self.heads.get_mut(&journal) {
            head.seq = seq;
        }
    }

    /// Rebuilds the runs that are to be; those that cannot be read now are left for later.
    pub(super) async fn rebuild(&mut self) {
        let runs: Vec<RunId> =
            self.rebuilds.runs.iter().copied().filter(|run| !self.fenced.contains(run)).collect();
        for run in runs {
            match recover::replay_run(&*self.shared.store, run).await {
                Ok((state, end)) => {
                    if let Some(head) = self.heads.get_mut(&JournalId::Run(run)) {
                        head.seq = end.0;
                    }
                    self.put_back(run, state);
                    self.rebuilds.runs.remove(&run);
                }
                // Its creation was not carried out.
                Err(Unreadable::Empty) => {
                    self.shared.remove_run(run);
                    self.forget(run);
                }
                Err(Unreadable::Broken(broken, before)) => {
                    self.shared.set_aside(run, broken, before.as_deref());
                    self.forget(run);
                }
                Err(Unreadable::Store(error)) => {
                    tracing::error!(%run, %error, "the run cannot be rebuilt now; it will be tried again")
                }
            }
        }
        let wait = self.rebuilds.wait.max(TICK);
        self.rebuilds.next = Instant::now().checked_add(wait);
        self.rebuilds.wait = (wait * 2).min(REBUILD_WAIT_MAX);
    }

    /// Drops what the writer knows of a run that is not there any more.
    pub(super) fn forget(&mut self, run: RunId) {
        self.heads.remove(&JournalId::Run(run));
        self.rebuilds.runs.remove(&run);
        self.fenced.remove(&run);
        self.shared.outboxes.retain_run(run, &BTreeSet::new());
    }

    /// Puts a rebuilt state in place, and outboxes, deadlines and folds in step with it.
    fn put_back(&mut self, run: RunId, state: RunState) {
        let Ok(slot) = self.shared.run(run) else { return };
        let actions = state.outstanding();
        slot.replace(state);
        let assigned = actions.iter().filter_map(|action| match action {
            Action::Assign(assignment) => Some(assignment.task),
            _ => None,
        });
        self.shared.outboxes.retain_run(run, &assigned.collect());
        for action in actions {
            self.act(run, action);
        }
    }
}
