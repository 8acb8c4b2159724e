//! Removing a run: its journal first, then its bytes.

use serde::{Deserialize, Serialize};
use sheaf_domain::{Digest, Identity, Role, RunId, TaskId};
use sheaf_engine::{Event, RunState};
use tokio::sync::oneshot;

use crate::command::Command;
use crate::shared::task_hold;
use crate::{Error, Handle, Relays};

/// What was removed, as the federation's journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRun {
    /// The run.
    pub run: RunId,
    /// Its name.
    pub name: String,
    /// How many entries its journal had; 0 when that could not be read.
    pub entries: u64,
    /// The hash of the last of them.
    pub head: Digest,
}

/// Whether a run that goes on, or is set aside, may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Only a run that has ended is removed.
    No,
    /// A run that goes on is stopped first; one that is set aside goes as it is.
    Yes,
}

impl Handle {
    /// Removes a run for good: its journal and every byte that only it needs. The federation's journal keeps its name and the
    /// end of its chain.
    ///
    /// # Errors
    /// Not found; conflict when the run goes on, or is set aside, and `force` does not say that it may go nevertheless.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless.
    pub async fn remove_run(&self, who: &Identity, run: RunId, force: Force) -> Result<RemovedRun, Error> {
        self.authorise(who, Role::Operator)?;
        let (handle, who) = (self.clone(), who.clone());
        self.to_the_end(async move { handle.remove(&who, run, force).await }).await
    }

    /// Removes a relayed run for good: its journal, its bundle and its log.
    ///
    /// # Errors
    /// As [`Handle::remove_run`].
    /// # Cancel safety
    /// A dropped call is carried out nevertheless.
    pub async fn remove_relayed(
        &self,
        who: &Identity,
        run: RunId,
        force: Force,
    ) -> Result<RemovedRun, Error> {
        self.authorise(who, Role::Operator)?;
        let (relays, who) = (Relays::of(&self.shared)?, who.clone());
        self.to_the_end(async move { relays.remove(&who, run, force).await }).await
    }

    async fn remove(&self, who: &Identity, run: RunId, force: Force) -> Result<RemovedRun, Error> {
        let set_aside = self.shared.quarantine.refusal(run);
        match (set_aside, force) {
            (Some(refusal), Force::No) => return Err(refusal),
            (None, Force::Yes) => self.stop_for_removal(who, run).await?,
            (Some(_), Force::Yes) | (None, Force::No) => {}
        }
        // None of a run that is set aside: which are its own is known when it is gone, at the next start.
        let tasks: Vec<TaskId> =
            self.look_at(run, RunState::live_tasks).await.unwrap_or_default().into_iter().collect();
        let (reply, answer) = oneshot::channel();
        self.shared.send(Command::Remove { run, by: who.name.clone(), reply }).await?;
        let removed = answer.await.map_err(|_| Error::shutting_down())??;
        self.shared.release_versions(run).await;
        for task in tasks {
            self.shared.release(&task_hold(task)?).await;
        }
        self.remove_companion(who, run).await;
        Ok(removed)
    }

    /// Removes what went along with a run that is gone, or never came to be.
    pub(super) async fn remove_companion(&self, who: &Identity, run: RunId) {
        let removed = match Relays::of(&self.shared) {
            Ok(relays) => relays.remove_companion(who, run).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(%run, %error, "what went along with a run that is gone stays: remove relay-{run}");
        }
    }

    async fn stop_for_removal(&self, who: &Identity, run: RunId) -> Result<(), Error> {
        if self.look_at(run, |state| state.phase().is_over()).await? {
            return Ok(());
        }
        let reason = format!("{}: to be removed", who.name);
        let stopped = self.journal_event(run, Event::StopRequested { reason }).await;
        match stopped {
            // It may have ended meanwhile.
            Err(error) if self.look_at(run, |state| state.phase().is_over()).await? => {
                tracing::debug!(%run, %error, "the run had ended");
                Ok(())
            }
            stopped => stopped,
        }
    }
}
