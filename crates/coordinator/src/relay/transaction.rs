//! A change of a relayed run: decided under the run's lock in the writer, durable before anybody hears of it.

use sheaf_domain::{RunId, Timestamp};
use sheaf_relay::{Effects, Event, Relay};
use tokio::sync::oneshot;

use super::Relays;
use super::writer::{Answer, Command, Work};
use crate::Error;

/// A run that is being changed.
pub(super) struct Transaction<'a> {
    relay: &'a mut Relay,
    at: Timestamp,
    pub(super) events: Vec<Event>,
    pub(super) effects: Effects,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(relay: &'a mut Relay, at: Timestamp) -> Transaction<'a> {
        Transaction { relay, at, events: Vec::new(), effects: Effects::default() }
    }

    pub(super) fn relay(&self) -> &Relay {
        self.relay
    }

    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    /// Applies an event and notes it for the journal.
    pub(super) fn apply(&mut self, event: Event) -> Result<(), sheaf_relay::Rejected> {
        let effects = self.relay.apply(self.at, &event)?;
        self.effects.wake.extend(effects.wake);
        self.effects.freed.extend(effects.freed);
        self.events.push(event);
        Ok(())
    }
}

impl Relays {
    /// Carries out `change` on a run; returns when what it applied is durable.
    ///
    /// # Errors
    /// Not found; what `change` says; unavailable when it cannot be made durable now; whether it is shows when the run can be read again.
    /// # Cancel safety
    /// A dropped call is carried out wholly or not at all.
    pub(super) async fn transact<T, F>(&self, run: RunId, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |transaction| {
            let outcome = transaction.and_then(change);
            let answer: Answer = Box::new(move |committed: Result<(), Error>| {
                // The asker may have gone away; what it asked for stays done.
                let _ = reply.send(committed.and(outcome));
            });
            answer
        });
        self.send(Command::Change { run, work }).await?;
        answer.await.map_err(|_| Error::shutting_down())?
    }

    pub(super) async fn send(&self, command: Command) -> Result<(), Error> {
        self.core.commands.send(command).await.map_err(|_| Error::shutting_down())
    }
}
