//! What happens to relayed runs when somebody is silent for too long: claims are given back, applications given up, uploads
//! abandoned.
//!
//! Deadlines are on the monotonic clock and in memory; after a restart everybody gets one full period.

use std::sync::Arc;

use sheaf_domain::Digest;
use sheaf_relay::{Event, Outcome, Phase, Rejected};

use super::Relays;
use super::slot::Slot;
use super::transaction::Transaction;
use super::writer::Work;
use crate::Error;
use crate::outbox::lock;

impl Relays {
    /// After a start: gives everybody one full period.
    pub(super) fn begin_pulse(&self, slot: &Slot) -> Result<(), Error> {
        let now = self.shared.clock.monotonic();
        let (phase, coordinated, sessions) = slot.read(|state| {
            let sessions: Vec<String> = state.sessions().map(|(name, _)| name.to_owned()).collect();
            (state.application().phase.clone(), state.is_coordinated(), sessions)
        })?;
        let settings = self.settings();
        let mut pulse = lock(&slot.pulse);
        pulse.application = match phase {
            Phase::Starting => Some(now + settings.claim_ttl.as_duration()),
            Phase::Running if !coordinated => Some(now + settings.beat_ttl.as_duration()),
            Phase::Pending | Phase::Running | Phase::Ended { .. } => None,
        };
        let until = now + settings.upload_ttl.as_duration();
        pulse.uploads = sessions.into_iter().map(|session| (session, until)).collect();
        Ok(())
    }

    /// What is to be done to a run because somebody was silent for too long.
    pub(super) fn overdue(&self, slot: &Arc<Slot>) -> Vec<Work> {
        let now = self.shared.clock.monotonic();
        let Ok(phase) = slot.read(|state| state.application().phase.clone()) else { return Vec::new() };
        let mut pulse = lock(&slot.pulse);
        let mut overdue: Vec<Work> = Vec::new();
        if pulse.application.is_some_and(|until| until <= now) {
            pulse.application = None;
            match phase {
                Phase::Starting => overdue.push(quietly(give_back)),
                Phase::Running => overdue.push(quietly(give_up)),
                Phase::Pending | Phase::Ended { .. } => {}
            }
        }
        let rested: Vec<String> =
            pulse.uploads.extract_if(|_, until| *until <= now).map(|(name, _)| name).collect();
        for session in rested {
            overdue.push(quietly(move |transaction| abandon(transaction, &session)));
        }
        if overdue.is_empty() {
            return overdue;
        }
        let relays = self.clone();
        overdue.push(quietly(move |transaction| {
            if transaction.relay().application().phase == Phase::Pending {
                relays.core.online.a_run_waits();
            }
            Ok(())
        }));
        overdue
    }
}

/// A change that nobody waits for; a refusal means that it came too late.
fn quietly(change: impl FnOnce(&mut Transaction<'_>) -> Result<(), Rejected> + Send + 'static) -> Work {
    Box::new(move |transaction| {
        if let Ok(transaction) = transaction
            && let Err(rejected) = change(transaction)
        {
            tracing::debug!(%rejected, "a deadline came too late");
        }
        Box::new(|_| ())
    })
}

fn give_back(transaction: &mut Transaction<'_>) -> Result<(), Rejected> {
    let run = transaction.relay().run();
    tracing::warn!(%run, "the application was claimed and did not report for work; it waits to be claimed again");
    transaction.apply(Event::Returned { reason: "it did not report for work in time".to_owned() })
}

fn give_up(transaction: &mut Transaction<'_>) -> Result<(), Rejected> {
    let run = transaction.relay().run();
    tracing::warn!(%run, "the application shows no sign of life; the run has failed");
    let details = "No heartbeat received from the task".to_owned();
    transaction.apply(Event::Ended { outcome: Outcome::Failed, details })
}

fn abandon(transaction: &mut Transaction<'_>, session: &str) -> Result<(), Rejected> {
    let named = |(name, letters): (&str, &[Digest])| (name == session).then(|| letters.to_vec());
    let Some(letters) = transaction.relay().sessions().find_map(named) else { return Ok(()) };
    tracing::warn!(run = %transaction.relay().run(), letters = letters.len(), "an upload of letters rested for too long and is given up");
    transaction.apply(Event::Abandoned { letters, reason: "the upload rested for too long".to_owned() })
}
