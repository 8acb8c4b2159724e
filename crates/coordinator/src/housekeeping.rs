//! What is looked after now and then: silent participants, sightings written down in batches, expired mail, gauges.

use std::sync::Arc;
use std::time::Duration;

use sheaf_domain::Span;
use sheaf_store::SEEN_MAX;
use sheaf_telemetry::names;

use crate::command::Command;
use crate::handle::expired_mail;
use crate::outbox::lock;
use crate::shared::Shared;

/// How often silent participants are looked for.
const TICK: Duration = Duration::from_millis(500);
/// After how many ticks gauges are set.
const GAUGES_EVERY: u64 = 4;
/// After how many ticks sightings are written down and what has expired is forgotten.
const WRITE_EVERY: u64 = 20;
/// How long an operator's upload may rest before it is given up.
const UPLOAD_REST_MAX: Duration = Duration::from_secs(3600);
/// How long an invitation that ended unspent is remembered.
const INVITES_KEPT: Span = Span::from_secs(30 * 24 * 3600);

/// Looks after everything until the scope is cancelled; then writes down what is left.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for tick_idx in 0_u64.. {
        tokio::select! {
            biased;
            () = shared.scope.cancelled() => break,
            _ = ticks.tick() => {}
        }
        report_silent(&shared).await;
        if tick_idx.is_multiple_of(GAUGES_EVERY) {
            set_gauges(&shared);
        }
        if tick_idx % WRITE_EVERY == WRITE_EVERY - 1 {
            write_sightings(&shared).await;
            forget_expired(&shared).await;
        }
    }
    write_sightings(&shared).await;
}

/// Reports participants that fell silent.
async fn report_silent(shared: &Shared) {
    let (now, liveness) = (shared.clock.monotonic(), shared.settings.liveness);
    for (site, silent) in shared.presence.silent(now, liveness) {
        let Ok(permit) = shared.commands.reserve().await else { return };
        if shared.presence.expire(&site, now, liveness) {
            tracing::warn!(%site, %silent, "participant lost");
            permit.send(Command::Gone { site, reason: format!("no sign of life for {silent}") });
        }
    }
}

async fn write_sightings(shared: &Shared) {
    loop {
        let seen = shared.presence.take_unwritten(SEEN_MAX);
        if seen.is_empty() {
            return;
        }
        if let Err(error) = shared.store.touch_sites(seen).await {
            tracing::warn!(%error, "when participants were last heard of could not be written down");
            return;
        }
    }
}

async fn forget_expired(shared: &Shared) {
    let now = shared.clock.now();
    let month_ago =
        sheaf_domain::Timestamp::from_millis(now.as_millis().saturating_sub(INVITES_KEPT.as_millis()));
    shared.membership.forget(month_ago);
    let forgotten = shared.store.expire_mail(now).await.and(shared.store.forget_invites(month_ago).await);
    if let Err(error) = forgotten {
        tracing::warn!(%error, "what has expired could not be forgotten now");
    }
    if let Ok(holds) = shared.blob.holds().await {
        for hold in holds.into_iter().filter(|hold| expired_mail(hold, now)) {
            shared.release(&hold).await;
        }
    }
    let resting = |last: &mut Duration| shared.clock.monotonic().saturating_sub(*last) > UPLOAD_REST_MAX;
    let abandoned: Vec<_> = lock(&shared.uploads).extract_if(|_, last| resting(last)).collect();
    for (hold, _) in abandoned {
        tracing::info!(%hold, "an upload was abandoned");
        shared.release(&hold).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
fn set_gauges(shared: &Shared) {
    metrics::gauge!(names::SITES_PRESENT).set(shared.presence.present().len() as f64);
    metrics::gauge!(names::INFLIGHT_BYTES).set(shared.budget.reserved() as f64);
    let usage = shared.blob.usage();
    metrics::gauge!(names::BLOB_STORED_BYTES).set(usage.stored_bytes as f64);
    metrics::gauge!(names::BLOB_SPOOL_BYTES).set(usage.spool_bytes as f64);
    let runs = shared.all_runs();
    let phases: Vec<_> = runs.iter().filter_map(|run| run.read(|state| state.phase().name()).ok()).collect();
    for phase in ["running", "finished", "stopped", "failed"] {
        let count = phases.iter().filter(|other| **other == phase).count();
        metrics::gauge!(names::RUNS, "phase" => phase).set(count as f64);
    }
    metrics::gauge!(names::RUNS, "phase" => "broken").set(shared.quarantine.all().len() as f64);
}
