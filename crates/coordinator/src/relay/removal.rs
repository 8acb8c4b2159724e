//! Removing a relayed run that is over: its journal, then its bundle and its log.
//!
//! The run is taken out of the hands of its writer first, so that nothing is appended to it any more; then its journal goes in the transaction
//! that notes its end in the federation's. A crash before leaves the run whole; one after leaves bytes that the next start frees.

use std::sync::Arc;

use sheaf_domain::{Digest, Identity, Role, RunId, SiteName};
use sheaf_relay::{Event, Outcome, Rejected, Relay};
use tokio::sync::oneshot;

use super::Relays;
use super::objects::bundle_hold;
use super::slot::Slot;
use super::writer::Command;
use crate::recover::Head;
use crate::{Error, Force, RemovedRun};

/// A run that its writer let go of.
#[derive(Debug)]
pub(super) struct TakenOut {
    pub(super) slot: Arc<Slot>,
    pub(super) head: Head,
}

/// In whose name the server tidies up.
fn this_server() -> Result<Identity, Error> {
    Ok(Identity {
        trust_domain: "server".to_owned(),
        name: SiteName::new("server")?,
        role: Role::Operator,
        key_fingerprint: Digest::from_bytes([0; 32]),
    })
}

impl Relays {
    /// A relayed run as people name it: its journal's name, its id or the beginning of one, or the number that its own stack shows.
    ///
    /// # Errors
    /// Conflict when several runs fit.
    pub(crate) fn named(&self, text: &str) -> Result<Option<RunId>, Error> {
        let text = text.strip_prefix("relay-").unwrap_or(text);
        let exact = |run: RunId| Some(run).filter(|run| self.knows(*run));
        let by_id = text.parse().ok().and_then(exact);
        let by_number = || text.parse().ok().and_then(RunId::new).and_then(exact);
        if let Some(run) = by_id.or_else(by_number) {
            return Ok(Some(run));
        }
        let all = self.runs().into_iter().map(|slot| slot.run).chain(self.core.broken.all());
        let fitting: Vec<RunId> =
            all.filter(|run| !text.is_empty() && run.to_string().starts_with(text)).collect();
        match fitting.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            several => {
                Err(Error::conflict(format!("{text:?} fits {} runs; write more of the id", several.len())))
            }
        }
    }

    /// Whether there is such a run, whole or broken.
    pub(crate) fn knows(&self, run: RunId) -> bool {
        self.core.slots.get(run).is_some() || self.core.broken.has(run)
    }

    /// Removes a run for good. To be carried out to its end, whether or not the asker stays.
    ///
    /// # Errors
    /// Not found; conflict when the run goes on, or is set aside, and `force` does not say that it may go nevertheless.
    pub(crate) async fn remove(&self, who: &Identity, run: RunId, force: Force) -> Result<RemovedRun, Error> {
        if self.shared.knows(run) {
            return Err(Error::conflict(format!(
                "relayed run {run} goes along with the run of that id; remove that"
            )));
        }
        let set_aside = self.core.broken.has(run);
        if !set_aside {
            let over = self.slot(run)?.read(|state| state.application().phase.is_over())?;
            match force {
                Force::Yes if !over => drop(self.stop(who, run).await?),
                Force::No if !over => {
                    let message =
                        format!("relayed run {run} goes on; stop it first, or remove it with --force");
                    return Err(Error::conflict(message));
                }
                _ => {}
            }
        } else if force == Force::No {
            let message =
                format!("relayed run {run} is set aside: its journal is broken; --force removes it");
            return Err(Error::conflict(message));
        }
        let taken = if set_aside { None } else { Some(self.detach(run).await?) };
        let (reply, answer) = oneshot::channel();
        let lease_epoch = taken.as_ref().map(|taken| taken.head.lease_epoch);
        let by = who.name.clone();
        self.shared.send(crate::command::Command::RemoveRelay { run, lease_epoch, by, reply }).await?;
        let removed = answer.await.map_err(|_| Error::shutting_down())?;
        match (removed, taken) {
            (Ok(removed), taken) => {
                self.core.broken.forget(run);
                self.shared.release(&bundle_hold(run)?).await;
                if let Some(TakenOut { slot, .. }) = taken {
                    slot.log.remove();
                }
                Ok(removed)
            }
            (Err(error), Some(taken)) => {
                let (done, put_back) = oneshot::channel();
                self.send(Command::PutBack { taken, done }).await?;
                put_back.await.map_err(|_| Error::shutting_down())?;
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Removes what went along with a coordinated run that is gone, if anything did.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub(crate) async fn remove_companion(&self, who: &Identity, run: RunId) -> Result<(), Error> {
        if self.core.broken.has(run) {
            return self.remove(who, run, Force::Yes).await.map(drop);
        }
        let Ok(slot) = self.slot(run) else { return Ok(()) };
        if !slot.read(Relay::is_coordinated)? {
            return Ok(());
        }
        // It would end by itself before long.
        self.transact(run, |transaction| {
            let details = "its run was removed".to_owned();
            match transaction.apply(Event::Ended { outcome: Outcome::Failed, details }) {
                Ok(()) | Err(Rejected::Over) => Ok(()),
                Err(rejected) => Err(rejected.into()),
            }
        })
        .await?;
        self.remove(who, run, Force::No).await.map(drop)
    }

    /// Removes what went along with coordinated runs that are not there: the server died between the ends of the two, or before the run
    /// was there. What cannot be removed now is tried again at the next start.
    pub(crate) async fn remove_lone_companions(&self) {
        let lone = |slot: &Arc<Slot>| {
            slot.read(Relay::is_coordinated).unwrap_or(false) && !self.shared.knows(slot.run)
        };
        for slot in self.runs().into_iter().filter(lone) {
            let run = slot.run;
            let removed = match this_server() {
                Ok(who) => self.remove_companion(&who, run).await,
                Err(error) => Err(error),
            };
            match removed {
                Ok(()) => tracing::info!(%run, "what went along with a run that is gone was removed"),
                Err(error) => tracing::warn!(%run, %error, "what went along with a run that is gone stays"),
            }
        }
    }

    async fn detach(&self, run: RunId) -> Result<TakenOut, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::TakeOut { run, reply }).await?;
        answer.await.map_err(|_| Error::shutting_down())?
    }
}
