//! The application of a relayed run: created by an operator, claimed by whoever runs it, known by its token, ended once.

use std::time::Duration;

use bytes::Bytes;
use sheaf_domain::{Digest, ErrorKind, Identity, Principal, Role, RunId, SiteName, Timestamp};
use sheaf_relay::{Event, Outcome, Phase, Rejected};
use sheaf_runtime::Entropy;
use tokio::sync::oneshot;

use super::Relays;
use super::objects::bundle_hold;
use super::slot::Slot;
use super::writer::Command;
use crate::Error;
use crate::outbox::lock;

/// A relayed run to be.
#[derive(Debug, Clone)]
pub struct NewRelay {
    /// The bundle that holds the application.
    pub bundle: Bytes,
    /// What the front-end keeps with the run.
    pub header: String,
}

/// A run that somebody took upon himself.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The run.
    pub run: RunId,
    /// What proves its application; a secret that is told once.
    pub token: Token,
}

/// A secret that proves an application, or an operator who logged in; shown to nobody by accident.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Draws a token.
    pub(crate) fn draw(entropy: &dyn Entropy) -> Result<Token, Error> {
        let mut bytes = [0; TOKEN_LEN];
        entropy.fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Token(hex::encode(bytes)))
    }

    /// The token itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// An application that proved itself by its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Its run.
    pub run: RunId,
}

/// A relayed run, for lists.
#[derive(Debug, Clone)]
pub struct RelayOverview {
    /// The run.
    pub run: RunId,
    /// The operator who asked for it.
    pub by: SiteName,
    /// The bundle that holds its application.
    pub bundle: Digest,
    /// What the front-end keeps with it.
    pub header: String,
    /// Its application.
    pub application: sheaf_relay::Application,
    /// Letters that the run holds.
    pub letters: usize,
}

/// Bytes of a token.
const TOKEN_LEN: usize = 128;

impl Relays {
    /// Creates a run whose application waits to be claimed.
    ///
    /// # Errors
    /// Permission denied unless `who` is an operator; exhausted when as many runs go on as may, or the store is full.
    /// # Cancel safety
    /// A dropped call may create the run; a bundle without a run is freed at the next start.
    pub async fn create(&self, who: &Identity, new: NewRelay) -> Result<RunId, Error> {
        self.shared.registry.authorise(who, Role::Operator)?;
        let on = self
            .runs()
            .iter()
            .filter(|slot| {
                let counts = |state: &sheaf_relay::Relay| {
                    !state.is_coordinated() && !state.application().phase.is_over()
                };
                slot.read(counts).unwrap_or(true)
            })
            .count();
        let max = self.shared.settings.running_max;
        if on >= max {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("{on} relayed runs go on already, {max} may"),
            ));
        }
        let run = self.run_id()?;
        let bundle = self.keep_bundle(run, new.bundle).await?;
        let event =
            Event::Created { run, by: who.name.clone(), bundle, header: new.header, coordinated: false };
        super::writer::fits(&event)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Create { run, event, reply }).await?;
        answer.await.map_err(|_| Error::shutting_down())??;
        tracing::info!(%run, by = %who.name, "relayed run created");
        Ok(run)
    }

    fn run_id(&self) -> Result<RunId, Error> {
        loop {
            let mut bytes = [0; 8];
            self.shared.entropy.fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
            let run = RunId::new(u64::from_le_bytes(bytes)).filter(|run| !self.shared.knows(*run));
            if let Some(run) = run.filter(|run| self.core.slots.get(*run).is_none()) {
                return Ok(run);
            }
        }
    }

    /// The bundle of a run.
    ///
    /// # Errors
    /// Not found; when it cannot be read.
    /// # Cancel safety
    /// Safe.
    pub async fn bundle(&self, run: RunId) -> Result<Bytes, Error> {
        let bundle = self.slot(run)?.read(sheaf_relay::Relay::bundle)?;
        let held = self.shared.blob.held(&bundle_hold(run)?).await?;
        let len = held.iter().find(|(object, _)| *object == bundle).map(|(_, len)| *len);
        let len =
            len.ok_or_else(|| Error::not_found(format!("the bundle of run {run} is not kept any more")))?;
        Ok(self.shared.blob.read(&bundle, 0, len).await?)
    }

    /// Every relayed run, oldest first.
    ///
    /// # Errors
    /// Unavailable while one is being rebuilt.
    pub fn overviews(&self) -> Result<Vec<RelayOverview>, Error> {
        self.runs().iter().map(|slot| overview(slot)).collect()
    }

    /// A relayed run.
    ///
    /// # Errors
    /// Not found; unavailable while it is being rebuilt.
    pub fn overview(&self, run: RunId) -> Result<RelayOverview, Error> {
        overview(&*self.slot(run)?)
    }

    /// Takes upon itself a run that nobody runs yet, the oldest of those that `wanted` says yes to; holds the request for `hold`
    /// while there is none.
    ///
    /// # Errors
    /// Unavailable when the claim cannot be made durable.
    /// # Cancel safety
    /// A claim whose answer is lost ends after its time, and the run waits again.
    pub async fn claim(
        &self,
        wanted: impl Fn(&RelayOverview) -> bool,
        hold: Duration,
    ) -> Result<Option<Claimed>, Error> {
        let mut pending = self.core.online.watch_pending();
        let deadline = tokio::time::Instant::now() + self.hold(hold);
        loop {
            pending.mark_unchanged();
            for slot in self.runs() {
                let Ok(found) = overview(&slot) else { continue };
                if found.application.phase == Phase::Pending
                    && wanted(&found)
                    && let Some(claimed) = self.claim_run(slot.run).await?
                {
                    return Ok(Some(claimed));
                }
            }
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Err(Error::shutting_down()),
                changed = pending.changed() => if changed.is_err() { return Ok(None) },
                () = tokio::time::sleep_until(deadline) => return Ok(None),
            }
        }
    }

    /// Takes this run upon itself; `None` when somebody else was first.
    ///
    /// # Errors
    /// Not found; unavailable when the claim cannot be made durable.
    /// # Cancel safety
    /// As [`Relays::claim`].
    pub async fn claim_run(&self, run: RunId) -> Result<Option<Claimed>, Error> {
        let slot = self.slot(run)?;
        let token = Token::draw(&*self.shared.entropy)?;
        let hash = Digest::of(token.0.as_bytes());
        let claimed = self
            .transact(run, move |transaction| match transaction.apply(Event::Claimed { token: hash }) {
                Ok(()) => Ok(true),
                Err(Rejected::NotThere { .. } | Rejected::Over) => Ok(false),
                Err(rejected) => Err(rejected.into()),
            })
            .await?;
        if !claimed {
            return Ok(None);
        }
        self.keep_alive(&slot, self.settings().claim_ttl);
        Ok(Some(Claimed { run, token }))
    }

    /// The application that a token proves.
    ///
    /// # Errors
    /// Unauthenticated when no application has this token now; unavailable while a run is being rebuilt.
    pub fn seat(&self, token: &str) -> Result<Seat, Error> {
        let hash = Digest::of(token.as_bytes());
        let mut unsure = None;
        for slot in self.runs() {
            match slot.read(|state| state.application().token) {
                // Digests of 128 random bytes: nothing is learnt from how long their comparison takes.
                Ok(Some(known)) if known == hash => return Ok(Seat { run: slot.run }),
                Ok(_) => {}
                Err(error) => unsure = Some(error),
            }
        }
        Err(unsure
            .unwrap_or_else(|| Error::new(ErrorKind::Unauthenticated, "no application has this token now")))
    }

    /// The application reports for work; reporting again changes nothing.
    ///
    /// # Errors
    /// Conflict when it is over or was given back; unavailable when it cannot be made durable.
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn begin(&self, seat: Seat) -> Result<(), Error> {
        let begun = self.transact(seat.run, |transaction| {
            if transaction.relay().application().phase == Phase::Running {
                return Ok(());
            }
            Ok(transaction.apply(Event::Begun)?)
        });
        begun.await?;
        self.beat(seat)
    }

    /// The application is alive.
    ///
    /// # Errors
    /// Not found.
    pub fn beat(&self, seat: Seat) -> Result<(), Error> {
        let slot = self.slot(seat.run)?;
        let phase = slot.read(|state| state.application().phase.clone())?;
        match phase {
            Phase::Starting => self.keep_alive(&slot, self.settings().claim_ttl),
            Phase::Running => self.keep_alive(&slot, self.settings().beat_ttl),
            Phase::Pending | Phase::Ended { .. } => {}
        }
        Ok(())
    }

    /// The process that was started for a claimed application is there, though the application has not reported for work yet.
    ///
    /// # Errors
    /// Not found.
    pub fn still_starting(&self, run: RunId) -> Result<(), Error> {
        let slot = self.slot(run)?;
        let starting = slot.read(|state| state.application().phase == Phase::Starting)?;
        if starting {
            self.keep_alive(&slot, self.settings().claim_ttl);
        }
        Ok(())
    }

    fn keep_alive(&self, slot: &Slot, ttl: sheaf_domain::Span) {
        lock(&slot.pulse).application = Some(self.shared.clock.monotonic() + ttl.as_duration());
    }

    /// Writes down the process that runs a claimed application.
    ///
    /// # Errors
    /// Conflict when nobody claimed it; unavailable when it cannot be made durable.
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn launched(&self, run: RunId, process: String) -> Result<(), Error> {
        self.transact(run, move |transaction| Ok(transaction.apply(Event::Launched { process })?)).await
    }

    /// The application, and with it the run, is over. Of several ends the first counts.
    ///
    /// # Errors
    /// Conflict when it completes without having begun; unavailable when it cannot be made durable.
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn end(&self, run: RunId, outcome: Outcome, details: String) -> Result<bool, Error> {
        let mut details = details;
        details.truncate(details.floor_char_boundary(sheaf_relay::TEXT_LEN_MAX));
        self.transact(run, move |transaction| match transaction.apply(Event::Ended { outcome, details }) {
            Ok(()) => Ok(true),
            Err(Rejected::Over) => Ok(false),
            Err(rejected) => Err(rejected.into()),
        })
        .await
    }

    /// Ends a run at an operator's word; `false` when it was over.
    ///
    /// # Errors
    /// Permission denied unless `who` is an operator; as [`Relays::end`].
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn stop(&self, who: &Identity, run: RunId) -> Result<bool, Error> {
        self.shared.registry.authorise(who, Role::Operator)?;
        if self.slot(run)?.read(sheaf_relay::Relay::is_coordinated)? {
            return self.stop_coordinated(who, run).await;
        }
        self.end(run, Outcome::Stopped, format!("stopped by {}", who.name)).await
    }

    /// Resolves when a run is over.
    ///
    /// # Errors
    /// Not found; unavailable when the server ends.
    /// # Cancel safety
    /// Safe.
    pub async fn over(&self, run: RunId) -> Result<(), Error> {
        let slot = self.slot(run)?;
        let mut changed = slot.changed.subscribe();
        loop {
            changed.mark_unchanged();
            // While the run is being rebuilt nothing is known; there is news when it is.
            if slot.read(|state| state.application().phase.is_over()).unwrap_or(false) {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Err(Error::shutting_down()),
                changed = changed.changed() => changed.map_err(|_| Error::shutting_down())?,
            }
        }
    }
}

fn overview(slot: &Slot) -> Result<RelayOverview, Error> {
    slot.read(|state| RelayOverview {
        run: state.run(),
        by: state.by().clone(),
        bundle: state.bundle(),
        header: state.header().to_owned(),
        application: state.application().clone(),
        letters: state.letters_len(),
    })
}

/// The principal of a run's application.
impl From<Seat> for Principal {
    fn from(seat: Seat) -> Principal {
        Principal::ServerApp(seat.run)
    }
}

/// The time of a run's newest change, for lists.
impl RelayOverview {
    /// When it last went from one phase to another.
    pub fn changed_at(&self) -> Timestamp {
        let application = &self.application;
        let newest = [application.starting_at, application.running_at, application.ended_at];
        newest.into_iter().flatten().max().unwrap_or(application.pending_at)
    }
}
