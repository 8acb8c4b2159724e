//! What goes on beside the work: beats, and the renewal of the certificate.

use std::sync::Arc;

use sheaf_domain::{ErrorKind, Span, Timestamp};
use sheaf_messages::{Withdrawal, v1};

use super::event::Event;
use super::state::State;
use super::{enrol, work};
use crate::Error;

/// Beats as often as the server asks, until the participant stops.
pub(crate) async fn beats(state: Arc<State>) {
    let mut every = FIRST_BEAT;
    let mut failures = 0;
    loop {
        let pause = match beat(&state).await {
            Ok(asked) => {
                state.answered();
                work::resume_kept(&state);
                every = asked.clamp(BEAT_MIN, BEAT_MAX);
                failures = 0;
                every
            }
            Err(error) => {
                failed(&state, &error).await;
                failures += 1;
                every.min(state.retry.pause(failures))
            }
        };
        tokio::time::sleep(pause.as_duration()).await;
    }
}

async fn beat(state: &State) -> Result<Span, Error> {
    let request = v1::BeatRequest {
        working: state.tasks().iter().map(ToString::to_string).collect(),
        client: CLIENT.to_owned(),
    };
    let reply = state.link.transport().beat(request).await?;
    for withdrawn in &reply.withdrawn {
        let withdrawn = Withdrawal::from_wire(withdrawn);
        state.withdraw(withdrawn.map_err(|error| Error::bad_answer("beat", error))?);
    }
    Ok(Span::from_millis(reply.beat_every_ms))
}

/// Judges a failed beat or wait: the connection, the certificate, or the end.
pub(crate) async fn failed(state: &State, error: &Error) {
    match error.kind() {
        ErrorKind::PermissionDenied => state.end(Error::Revoked { message: error.to_string() }),
        // A certificate that ended is renewed; if that is refused, this is the end.
        ErrorKind::Unauthenticated => renew(state).await,
        _ => state.unanswered(error),
    }
}

/// Renews the certificate at two thirds of its life, until the participant stops.
pub(crate) async fn renewals(state: Arc<State>) {
    loop {
        let (now, due) = (state.clock.now(), enrol::renew_at(&state.link.enrolled()));
        if now >= due {
            renew(&state).await;
        }
        // In small steps: the clock may be set, and the machine may sleep.
        let left = enrol::renew_at(&state.link.enrolled()).since(state.clock.now());
        tokio::time::sleep(left.clamp(RENEWAL_PAUSE, RENEWAL_STEP).as_duration()).await;
    }
}

pub(crate) async fn renew(state: &State) {
    match enrol::renew(&state.link, &state.home, state.clock.now()).await {
        Ok(not_after) => state.events.emit(Event::Renewed { not_after }),
        Err(error) if enrol::is_final(&error) => {
            state.end(Error::Revoked { message: error.to_string() });
        }
        Err(error) => state.events.emit(Event::RenewalFailed { reason: error.to_string() }),
    }
}

/// Whether the certificate has ended.
pub(crate) fn has_ended(state: &State, now: Timestamp) -> bool {
    now > state.link.enrolled().not_after
}

const CLIENT: &str = concat!("sheaf/", env!("CARGO_PKG_VERSION"));
const FIRST_BEAT: Span = Span::from_secs(10);
const BEAT_MIN: Span = Span::from_millis(100);
const BEAT_MAX: Span = Span::from_secs(3_600);
const RENEWAL_PAUSE: Span = Span::from_secs(10);
const RENEWAL_STEP: Span = Span::from_secs(60);
