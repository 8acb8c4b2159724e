//! The removal of an ended run: its journal goes in the transaction that notes its end in the federation's.
//!
//! Until then nothing of the run is touched; afterwards no journal explains its bytes, and whatever of them is not freed at once
//! is freed by the next start. So a crash leaves the run whole, or leaves nothing of it.

use sheaf_domain::{Digest, EntryDraft, GENESIS, JournalId, RunId, SiteName};
use sheaf_store::Append;

use super::Writer;
use crate::recover;
use crate::{Error, RemovedRun};

impl Writer {
    pub(super) async fn remove(&mut self, run: RunId, by: &SiteName) -> Result<RemovedRun, Error> {
        let name = self.removable(run)?;
        let journal = JournalId::Run(run);
        let lease_epoch = self.heads.get(&journal).map(|head| head.lease_epoch);
        let removed = self.remove_journal((journal, run, name), lease_epoch, by).await?;
        self.shared.remove_run(run);
        self.shared.quarantine.remove(run);
        self.shared.report_set_aside();
        self.forget(run);
        Ok(removed)
    }

    /// The end of a relayed run that its own writer let go of.
    pub(super) async fn remove_relay(
        &mut self,
        run: RunId,
        lease_epoch: Option<u64>,
        by: &SiteName,
    ) -> Result<RemovedRun, Error> {
        let journal = JournalId::Relay(run);
        self.remove_journal((journal, run, journal.to_string()), lease_epoch, by).await
    }

    async fn remove_journal(
        &mut self,
        (journal, run, name): (JournalId, RunId, String),
        lease_epoch: Option<u64>,
        by: &SiteName,
    ) -> Result<RemovedRun, Error> {
        let lease_epoch = match lease_epoch {
            Some(lease_epoch) => lease_epoch,
            // A run that is set aside has none of this start.
            None => {
                recover::lease(&*self.shared.store, journal, &self.holder, self.shared.clock.now()).await?
            }
        };
        let (entries, head) = self.end_of(journal).await?;
        let removed = RemovedRun { run, name, entries, head };
        let note = self.note_of(&removed, by)?;
        let outcome = self.shared.store.remove_journal(journal, lease_epoch, note).await;
        if let Err(error) = outcome {
            // The store may have done it and not been able to say so.
            self.reread_head(JournalId::Federation).await;
            let gone = self.shared.store.journals().await.is_ok_and(|all| !all.contains(&journal));
            if !gone {
                return Err(error.into());
            }
        } else if let Some(head) = self.heads.get_mut(&JournalId::Federation) {
            head.seq += 1;
        }
        tracing::info!(%run, operator = %by, name = removed.name, entries, "run removed");
        Ok(removed)
    }

    /// The name of a run that may be removed: one that has ended, or is set aside.
    fn removable(&self, run: RunId) -> Result<String, Error> {
        if let Some(status) = self.shared.quarantine.status(run) {
            return Ok(status.name);
        }
        let (over, name) =
            self.shared.with_run(run, |state| (state.phase().is_over(), state.plan().name.clone()))?;
        match over {
            true => Ok(name),
            false => Err(Error::conflict(format!(
                "run {run} goes on; `sheaf stop {run}` first, or remove it with --force"
            ))),
        }
    }

    /// A journal's last number and hash, as far as they can be read.
    async fn end_of(&self, journal: JournalId) -> Result<(u64, Digest), Error> {
        match self.shared.store.head(journal).await {
            Err(sheaf_store::Error::Damaged { .. }) => Ok((0, GENESIS)),
            end => Ok(end?),
        }
    }

    fn note_of(&self, removed: &RemovedRun, by: &SiteName) -> Result<Append, Error> {
        let body = serde_json::json!({
            "run": removed.run, "name": removed.name, "entries": removed.entries, "head": removed.head, "by": by,
        });
        let federation = self.heads.get(&JournalId::Federation);
        let federation =
            federation.ok_or_else(|| Error::internal("the federation's journal has no lease"))?;
        let draft = EntryDraft {
            at: self.shared.clock.now(),
            kind: "run_removed".to_owned(),
            body: body.to_string(),
        };
        Ok(Append {
            journal: JournalId::Federation,
            lease_epoch: federation.lease_epoch,
            expected_seq: federation.seq,
            entries: vec![draft],
        })
    }
}
