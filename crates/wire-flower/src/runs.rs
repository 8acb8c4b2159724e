//! Runs and nodes as Flower describes them.
//!
//! A run's header keeps what does not change of it, as the message that describes it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use sheaf_coordinator::{KeyOverview, RelayOverview};
use sheaf_domain::Timestamp;
use sheaf_relay::{Outcome, Phase};

use crate::names::{ACCOUNT_ID, ACCOUNT_NAME, iso, node_id_of, seconds};
use crate::proto;

/// What a run's header keeps.
pub(crate) fn header(run: &proto::Run) -> String {
    STANDARD.encode(run.encode_to_vec())
}

/// A run.
pub(crate) fn run_of(overview: &RelayOverview) -> proto::Run {
    let kept = STANDARD.decode(&overview.header).ok();
    let mut run = kept.and_then(|kept| proto::Run::decode(kept.as_slice()).ok()).unwrap_or_default();
    let application = &overview.application;
    run.run_id = overview.run.get();
    run.fab_hash = overview.bundle.to_string();
    run.pending_at = iso(Some(application.pending_at));
    run.starting_at = iso(application.starting_at);
    run.running_at = iso(application.running_at);
    run.finished_at = iso(application.ended_at);
    run.status = Some(status(&application.phase));
    run.primary_task_id = Some(overview.run.get());
    run.series_id = overview.run.get();
    run
}

/// The status of a run.
pub(crate) fn status(phase: &Phase) -> proto::RunStatus {
    let (sub_status, details) = match phase {
        Phase::Ended { outcome, details } => (outcome_name(*outcome), details.clone()),
        _ => ("", String::new()),
    };
    proto::RunStatus { status: status_name(phase).to_owned(), sub_status: sub_status.to_owned(), details }
}

/// Flower's name of a phase.
pub(crate) const fn status_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Ended { .. } => "finished",
    }
}

const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Failed => "failed",
        Outcome::Stopped => "stopped",
    }
}

/// How an application says that it ended.
pub(crate) fn outcome_of(sub_status: &str) -> Outcome {
    match sub_status {
        "completed" => Outcome::Completed,
        "stopped" => Outcome::Stopped,
        _ => Outcome::Failed,
    }
}

/// A node; `None` for a participant that is none.
pub(crate) fn node_info(one: &KeyOverview) -> Option<proto::NodeInfo> {
    let status = match (one.unregistered_at, one.online_until, one.activated_at) {
        (Some(_), _, _) => "unregistered",
        (None, Some(_), _) => "online",
        (None, None, Some(_)) => "offline",
        (None, None, None) => "registered",
    };
    let some = |at: Option<Timestamp>| at.map(|at| iso(Some(at)));
    Some(proto::NodeInfo {
        node_id: node_id_of(&one.site)?,
        owner_aid: ACCOUNT_ID.to_owned(),
        owner_name: ACCOUNT_NAME.to_owned(),
        status: status.to_owned(),
        registered_at: iso(Some(one.registered_at)),
        last_activated_at: some(one.activated_at),
        last_deactivated_at: some(one.deactivated_at),
        unregistered_at: some(one.unregistered_at),
        online_until: one.online_until.map(seconds),
        heartbeat_interval: one.beat_every.as_duration().as_secs_f64(),
        public_key: pem(&one.public_key_der).into(),
        location: one.card.location.clone(),
        name: one.card.label.clone(),
    })
}

/// A public key as Flower writes it: PEM with lines of 64 characters.
pub(crate) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every cut is between characters.
        let (line, left) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = left;
    }
    pem.push_str("-----END PUBLIC KEY-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_it_is_read() {
        let der = sheaf_pki::SiteKey::generate().unwrap().public_key().spki_der().to_vec();
        let read = sheaf_pki::PublicKey::from_pem(&pem(&der)).unwrap();
        assert_eq!(read.spki_der(), der);
    }

    #[test]
    fn an_end_has_a_status_and_a_sub_status() {
        let ended = Phase::Ended { outcome: Outcome::Completed, details: String::new() };
        let status = status(&ended);
        assert_eq!((status.status.as_str(), status.sub_status.as_str()), ("finished", "completed"));
        for outcome in [Outcome::Completed, Outcome::Failed, Outcome::Stopped] {
            assert_eq!(outcome_of(outcome_name(outcome)), outcome);
        }
    }
}
