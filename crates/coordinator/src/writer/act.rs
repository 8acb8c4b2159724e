//! Doing what the engine asks for. Every action may be done twice.

use std::sync::Arc;

use sheaf_blob::Hold;
use sheaf_domain::{JournalId, RunId};
use sheaf_engine::{Action, FoldOrder};
use sheaf_runtime::crash::{self, Point};

use super::Writer;
use crate::outbox::lock;
use crate::shared::{task_hold, version_hold};
use crate::{Error, fold, handle};

impl Writer {
    pub(super) fn act(&mut self, run: RunId, action: Action) {
        let shared = &self.shared;
        match action {
            Action::Assign(assignment) => {
                shared.tasks.put(assignment.task, run, &assignment.site);
                shared.outbox(&assignment.site).assign(*assignment);
            }
            Action::Withdraw { site, task, reason } => shared.outbox(&site).withdraw(task, reason),
            Action::Arm { stage, at } => self.deadlines.arm(run, stage, at),
            Action::Fold(order) => self.fold(*order),
            Action::ReleaseTask(task) => self.release(task_hold(task)),
            Action::ReleaseVersion { lineage, version } => self.release(version_hold(run, &lineage, version)),
            Action::Ended => self.ended(run),
            _ => tracing::error!(%run, "an action of the engine is not known here"),
        }
    }

    /// Starts a fold, unless it is under way.
    fn fold(&self, order: FoldOrder) {
        let key = (order.run, order.key.clone());
        if !lock(&self.shared.folding).insert(key.clone()) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let scope = shared.scope.clone();
        scope.spawn_until_cancelled(async move {
            fold::drive(Arc::clone(&shared), order).await;
            lock(&shared.folding).remove(&key);
        });
    }

    fn release(&self, hold: Result<Hold, Error>) {
        let Ok(hold) = hold else { return };
        let shared = Arc::clone(&self.shared);
        let scope = shared.scope.clone();
        crash::reached(Point::ReleaseBegun);
        scope.spawn(async move { shared.release(&hold).await });
    }

    fn ended(&self, run: RunId) {
        if let Ok(phase) = self.shared.with_run(run, |state| state.phase().clone()) {
            tracing::info!(%run, phase = phase.name(), reason = phase.reason().unwrap_or_default(), "run ended");
        }
        let shared = Arc::clone(&self.shared);
        let scope = shared.scope.clone();
        scope.spawn(async move {
            if let Err(error) = handle::sign_head(&shared, JournalId::Run(run)).await {
                tracing::warn!(%run, %error, "the journal's head could not be signed now");
            }
        });
    }
}
