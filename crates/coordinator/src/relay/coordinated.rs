//! Coordinated runs on whose behalf letters travel: a plan drives the run, and participants of another stack work on it.
//!
//! Such a run has a relayed run of the same id beside it, whose application is the server itself. It is at work from the beginning, has no
//! token and no deadline, and ends as the coordinated run does: what that run's journal says is looked up again and again, so
//! that after a restart they agree. Its front-end speaks as the application, by the calls of [`Relays`].

use std::sync::Arc;

use bytes::Bytes;
use sheaf_domain::{Digest, ErrorKind, Identity, Principal, Role, RunId, RunPhase, SiteName};
use sheaf_relay::{Answer, Event, Letter, Loss, Outcome, Rejected, Relay, Standing};
use tokio::sync::oneshot;

use super::letters::handed;
use super::participants::is_known_by_key;
use super::writer::{Command, Work, fits};
use super::{Core, Handed, Relays};
use crate::Error;
use crate::outbox::lock;

/// A relayed run whose coordinated run is about to be; dropped, it is held against what there is.
#[derive(Debug)]
pub(crate) struct Beginning {
    run: RunId,
    core: Arc<Core>,
}

impl Drop for Beginning {
    fn drop(&mut self) {
        lock(&self.core.beginning).remove(&self.run);
    }
}

/// A letter of the server's to a participant.
#[derive(Debug, Clone)]
pub struct Question {
    /// The letter.
    pub letter: Digest,
    /// What its front-end keeps with it.
    pub header: String,
    /// Whether it lies with its recipient, or is answered already.
    pub handed_out: bool,
}

/// What became of a letter of the server's.
#[derive(Debug, Clone)]
pub enum Reply {
    /// It is answered.
    Here(Handed),
    /// It will not be: it was taken back, or the run is over.
    Never,
}

fn question(letter: Digest, found: &Letter) -> Question {
    Question {
        letter,
        header: found.header.clone(),
        handed_out: !matches!(found.standing, Standing::Incoming | Standing::Waiting),
    }
}

impl Relays {
    /// Creates the relayed run that goes along with a coordinated run of the same id.
    ///
    /// # Errors
    /// Conflict when there is one; exhausted when the store is full.
    /// # Cancel safety
    /// A dropped call may create the run, which then ends by itself.
    pub(crate) async fn accompany(
        &self,
        run: RunId,
        by: &SiteName,
        bundle: Bytes,
        header: String,
    ) -> Result<Beginning, Error> {
        if self.core.slots.get(run).is_some() {
            return Err(Error::conflict(format!("there is a relayed run {run} already")));
        }
        lock(&self.core.beginning).insert(run);
        let beginning = Beginning { run, core: Arc::clone(&self.core) };
        let bundle = self.keep_bundle(run, bundle).await?;
        let event = Event::Created { run, by: by.clone(), bundle, header, coordinated: true };
        fits(&event)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Create { run, event, reply }).await?;
        answer.await.map_err(|_| Error::shutting_down())??;
        Ok(beginning)
    }

    /// The end of a coordinated run's companion, where its run is over and it is not.
    pub(super) fn settled(&self, run: RunId) -> Option<Work> {
        let slot = self.slot(run).ok()?;
        let at_work = |state: &Relay| state.is_coordinated() && !state.application().phase.is_over();
        if !slot.read(at_work).unwrap_or(false) || lock(&self.core.beginning).contains(&run) {
            return None;
        }
        let (outcome, details) = self.outcome_of(run)?;
        Some(Box::new(move |transaction| {
            if let Ok(transaction) = transaction
                && let Err(rejected) = transaction.apply(Event::Ended { outcome, details })
            {
                tracing::debug!(%run, %rejected, "the companion of a run had ended");
            }
            Box::new(|_| ())
        }))
    }

    /// How a coordinated run ended; nothing while it goes on, or while that cannot be told.
    fn outcome_of(&self, run: RunId) -> Option<(Outcome, String)> {
        let phase = match self.shared.with_run(run, |state| state.phase().clone()) {
            Ok(phase) => phase,
            // One that is set aside may come back; one that cannot be read now will be.
            Err(_) if self.shared.knows(run) => return None,
            Err(_) => return Some((Outcome::Failed, "there is no such run".to_owned())),
        };
        match phase {
            RunPhase::Finished { reason } => Some((Outcome::Completed, reason)),
            RunPhase::Stopped { reason } => Some((Outcome::Stopped, reason)),
            RunPhase::Failed { reason } => Some((Outcome::Failed, reason)),
            _ => None,
        }
    }

    /// Asks the coordinated run itself to stop; its companion follows it.
    pub(super) async fn stop_coordinated(&self, who: &Identity, run: RunId) -> Result<bool, Error> {
        let event = sheaf_engine::Event::StopRequested { reason: format!("{}: stopped", who.name) };
        let (reply, answer) = oneshot::channel();
        let command = crate::command::Command::Event { run, event: Box::new(event), reply: Some(reply) };
        self.shared.send(command).await?;
        match answer.await.map_err(|_| Error::shutting_down())? {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The coordinated runs that go on with letters.
    pub fn coordinated(&self) -> Vec<RunId> {
        let at_work = |state: &Relay| state.is_coordinated() && !state.application().phase.is_over();
        let on = self.runs().into_iter().filter(|slot| slot.read(at_work).unwrap_or(true));
        on.map(|slot| slot.run).collect()
    }

    /// The server's letters to a participant in a run that are not answered and confirmed.
    ///
    /// # Errors
    /// Not found; unavailable while the run is being rebuilt.
    pub fn questions(&self, run: RunId, site: &SiteName) -> Result<Vec<Question>, Error> {
        self.slot(run)?
            .read(|state| state.letters_to(site).map(|(letter, found)| question(letter, found)).collect())
    }

    /// Letters of the server's, in whatever run, that are not answered and whose recipients are not there.
    pub fn stray(&self) -> Vec<(RunId, SiteName, Question)> {
        let mut stray = Vec::new();
        for run in self.coordinated() {
            let found = self.slot(run).and_then(|slot| {
                slot.read(|state| {
                    let letters = state.unanswered().filter_map(|(letter, found)| {
                        let Principal::Participant(site) = &found.to else { return None };
                        Some((site.clone(), letter, found))
                    });
                    let away = letters.filter(|(site, _, _)| !self.is_online(site));
                    away.map(|(site, letter, found)| (run, site, question(letter, found))).collect::<Vec<_>>()
                })
            });
            stray.extend(found.unwrap_or_default());
        }
        stray
    }

    /// Waits until a letter of the server's is answered. That its recipient is away is no reason to give it up.
    ///
    /// # Errors
    /// Not found for the run; unavailable when the server ends.
    /// # Cancel safety
    /// Safe: an answer is there until it is confirmed.
    pub async fn reply_to(&self, run: RunId, letter: Digest) -> Result<Reply, Error> {
        let slot = self.slot(run)?;
        let mut changed = slot.changed.subscribe();
        loop {
            changed.mark_unchanged();
            // While the run is being rebuilt nothing is known; there is news when it is.
            let known = slot.read(|state| match state.answer(&letter) {
                Answer::Ready(answer) => handed(state, answer).map(Reply::Here),
                Answer::Awaited => None,
                Answer::Lost(_) | Answer::Unknown => Some(Reply::Never),
            });
            if let Ok(Some(reply)) = known {
                return Ok(reply);
            }
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Err(Error::shutting_down()),
                changed = changed.changed() => changed.map_err(|_| Error::shutting_down())?,
            }
        }
    }

    /// Takes a letter of the server's back, unless it is answered; one that lies with its recipient only where `handed_out` says so.
    /// Returns whether it is gone.
    ///
    /// # Errors
    /// Unavailable when it cannot be made durable.
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn take_back(&self, run: RunId, letter: Digest, handed_out: bool) -> Result<bool, Error> {
        self.transact(run, move |transaction| {
            let Some(found) = transaction.relay().letter(&letter) else { return Ok(true) };
            let lies_there = matches!(found.standing, Standing::HandedOut | Standing::Confirmed);
            if lies_there && !handed_out {
                return Ok(false);
            }
            match transaction.apply(Event::Lost { letter, why: Loss::Withdrawn }) {
                Ok(()) => Ok(true),
                // It was answered.
                Err(Rejected::NoLetter(_)) => Ok(false),
                Err(Rejected::Over) => Ok(true),
                Err(rejected) => Err(rejected.into()),
            }
        })
        .await
    }

    /// The identity under which a participant that is known by its key acts.
    pub fn identity(&self, site: &SiteName) -> Option<Identity> {
        let known = self.shared.registry.site(site)?;
        is_known_by_key(&known).then(|| Identity {
            trust_domain: self.shared.ca.trust_domain().to_owned(),
            name: site.clone(),
            role: Role::Participant,
            key_fingerprint: known.key_fingerprint,
        })
    }

    /// The participants that are there now.
    pub fn online(&self) -> Vec<SiteName> {
        let there = self.core.online.all(self.shared.clock.monotonic());
        there.into_iter().filter(|site| self.shared.registry.is_active(site)).collect()
    }

    /// Resolves when a participant came that was not there.
    ///
    /// # Cancel safety
    /// One that comes between two calls is not told: look at [`Relays::online`] after each, and now and then.
    pub async fn somebody_came(&self) {
        let mut comings = self.core.online.watch_comings();
        // Dropped only with the server.
        let _ = comings.changed().await;
    }
}
