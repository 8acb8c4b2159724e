//! Seeing a fold through: tried again while what hinders it may pass, reported until the report is durable.
//!
//! A full disk is named in the run's status and waited out; any other failure ends the run. What an attempt has written and
//! nobody will read is freed.

use std::sync::Arc;

use sheaf_domain::{ErrorKind, LineageName, RunId, Span};
use sheaf_engine::{Event, FoldOrder};
use sheaf_runtime::crash::{self, Point};
use sheaf_strategy::ServerOptimiser;
use sheaf_telemetry::names;

use super::{Folder, moments_of};
use crate::Error;
use crate::command::Command;
use crate::shared::{Shared, version_hold};

/// The longest wait before a failed fold is tried again.
const RETRY_MAX: Span = Span::from_secs(30);

/// Folds until it succeeds, fails for good, or the run no longer wants it, and reports the outcome until it is durable.
pub(crate) async fn drive(shared: Arc<Shared>, order: FoldOrder) {
    let mut wait = shared.settings.fold_retry;
    let mut told: Option<ErrorKind> = None;
    let event = loop {
        match attempt(&shared, &order).await {
            Ok(event) => break event,
            Err(error) => {
                release_versions(&shared, &order).await;
                let permanent = !error.is_transient();
                let (run, round, stage) = (order.run, order.key.round, &order.key.stage);
                if permanent {
                    tracing::error!(%run, round, %stage, %error, "a fold failed");
                } else {
                    tracing::warn!(%run, round, %stage, %error, "a fold is tried again");
                }
                let event = failure(&order, &error, permanent);
                if permanent {
                    break event;
                }
                // One entry a sort of failure: a disk that stays full must not fill the journal as well.
                if told != Some(error.kind()) {
                    match deliver(&shared, order.run, event).await {
                        Delivered::Durable => told = Some(error.kind()),
                        Delivered::NotNow => {}
                        Delivered::Unwanted => return,
                    }
                }
            }
        }
        if !wanted(&shared, &order) {
            return;
        }
        pause(&mut wait).await;
    };
    let mut wait = shared.settings.fold_retry;
    loop {
        match deliver(&shared, order.run, event.clone()).await {
            Delivered::Durable => return crash::reached(Point::FoldTold),
            Delivered::Unwanted => {
                tracing::info!(run = %order.run, round = order.key.round, "the run does not want this fold any more");
                return release_versions(&shared, &order).await;
            }
            Delivered::NotNow => pause(&mut wait).await,
        }
    }
}

async fn attempt(shared: &Shared, order: &FoldOrder) -> Result<Event, Error> {
    let started = shared.clock.monotonic();
    crash::reached(Point::FoldBegun);
    let folder = Folder::new(&*shared.blob, &shared.compute, shared.settings.fold_budget.as_bytes());
    let folder = folder.with_coder(shared.coder.get().cloned());
    let versions = folder.fold(order, |lineage, version| version_hold(order.run, lineage, version)).await?;
    crash::reached(Point::VersionWritten);
    let seconds = shared.clock.monotonic().saturating_sub(started).as_secs_f64();
    metrics::histogram!(names::FOLD_SECONDS).record(seconds);
    Ok(Event::Folded { round: order.key.round, stage: order.key.stage.clone(), versions })
}

fn failure(order: &FoldOrder, error: &Error, permanent: bool) -> Event {
    let (round, stage) = (order.key.round, order.key.stage.clone());
    Event::FoldFailed { round, stage, reason: error.to_string(), permanent }
}

/// Waits, then doubles the wait.
async fn pause(wait: &mut Span) {
    tokio::time::sleep(wait.as_duration()).await;
    *wait = Span::from_millis(wait.as_millis().saturating_mul(2)).min(RETRY_MAX);
}

/// Whether the run still waits for this fold; a run that cannot be read now may.
fn wanted(shared: &Shared, order: &FoldOrder) -> bool {
    match shared.with_run(order.run, |state| state.phase().is_over()) {
        Ok(over) => !over,
        Err(error) => error.is_transient(),
    }
}

/// Frees what an attempt has written, except versions that the run has published.
async fn release_versions(shared: &Shared, order: &FoldOrder) {
    for fold in &order.folds {
        let version = order.next(&fold.target);
        let optimiser = ServerOptimiser::new(&fold.step, version);
        let moments = optimiser.ok().and_then(|optimiser| moments_of(&fold.target, &optimiser).ok());
        let moments = moments.unwrap_or_default();
        let difference = LineageName::difference(&fold.target).ok();
        for lineage in std::iter::once(&fold.target).chain(&moments).chain(&difference) {
            let published = shared.with_run(order.run, |state| state.version(lineage, version).is_some());
            if let (Ok(false), Ok(hold)) = (published, version_hold(order.run, lineage, version)) {
                shared.release(&hold).await;
            }
        }
    }
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivered {
    /// It is in the journal.
    Durable,
    /// The run does not take it.
    Unwanted,
    /// It may be taken later.
    NotNow,
}

/// Reports how a fold ended.
async fn deliver(shared: &Shared, run: RunId, event: Event) -> Delivered {
    let (reply, answer) = tokio::sync::oneshot::channel();
    if shared.send(Command::Event { run, event: Box::new(event), reply: Some(reply) }).await.is_err() {
        return Delivered::NotNow;
    }
    match answer.await {
        Ok(Ok(())) => Delivered::Durable,
        Ok(Err(error)) if !error.is_transient() => Delivered::Unwanted,
        _ => Delivered::NotNow,
    }
}
