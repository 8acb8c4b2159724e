//! Following a run: its journal told as lines, and waiting for its end.

use std::time::Duration;

use sheaf_admin_api::{HeadBody, JournalBody};
use sheaf_domain::{ErrorKind, JournalEntry, JournalId, Refusal, RunId, RunStatus};

use crate::exit::Failure;
use crate::operator::Operator;
use crate::output;

/// How long a request for the next entry is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Not at all.
    None,
    /// For a moment, so that the caller can look after other things as well.
    Short,
    /// Until something happens, within reason.
    Long,
}

impl Hold {
    const fn duration(self) -> Duration {
        match self {
            Hold::None => Duration::ZERO,
            Hold::Short => Duration::from_secs(1),
            Hold::Long => Duration::from_secs(5),
        }
    }
}

/// How long the server may be away before following gives up.
const AWAY_MAX: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(500);

/// A position in a journal.
pub(crate) struct Follower {
    journal: String,
    after: u64,
    away: Duration,
}

impl Follower {
    pub(crate) fn new(journal: impl Into<String>) -> Follower {
        Follower { journal: journal.into(), after: 0, away: Duration::ZERO }
    }

    /// The next entries; none when the hold ended or the server is away for a moment.
    pub(crate) async fn next(
        &mut self,
        operator: &mut Operator,
        hold: Hold,
    ) -> anyhow::Result<Vec<JournalEntry>> {
        let hold_for = hold.duration();
        let path =
            format!("/journals/{}?after={}&hold_ms={}", self.journal, self.after, hold_for.as_millis());
        match operator.poll::<JournalBody>(&path, hold_for).await {
            Ok(body) => {
                self.away = Duration::ZERO;
                if let Some(last) = body.entries.last() {
                    self.after = last.seq;
                }
                Ok(body.entries)
            }
            Err(error) if is_away(&error) && self.away < AWAY_MAX => {
                tokio::time::sleep(RETRY).await;
                self.away += RETRY;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an error means that the server cannot be reached now.
pub(crate) fn is_away(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<Failure>()
            .is_some_and(|failure| matches!(failure.kind, ErrorKind::Unavailable | ErrorKind::Timeout))
    })
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let not_found = |failure: &Failure| failure.kind == ErrorKind::NotFound;
    error.chain().any(|cause| cause.downcast_ref::<Failure>().is_some_and(not_found))
}

/// The journal a person names: the federation's, or that of a run by id, beginning of an id, or name.
///
/// A name is looked up once: a run that takes it over later does not become the one that is read.
pub(crate) async fn journal_of(operator: &mut Operator, text: &str) -> anyhow::Result<JournalId> {
    if text == JournalId::Federation.to_string() {
        return Ok(JournalId::Federation);
    }
    match operator.get::<RunStatus>(&format!("/runs/{text}")).await {
        Ok(status) => Ok(JournalId::Run(status.run)),
        Err(error) if is_not_found(&error) => {
            // The server resolves the names of relayed runs as well.
            let head: HeadBody = operator.get(&format!("/journals/{text}/head")).await?;
            Ok(head.journal.parse()?)
        }
        Err(error) => Err(error),
    }
}

/// The state of a run.
pub(crate) async fn status(operator: &mut Operator, run: RunId) -> anyhow::Result<RunStatus> {
    operator.get(&format!("/runs/{run}")).await
}

/// One line for people about a journal entry.
pub(crate) fn describe(entry: &JournalEntry) -> String {
    let body: serde_json::Value = serde_json::from_str(&entry.body).unwrap_or_default();
    let what = of_run(&entry.kind, &body)
        .or_else(|| of_federation(&entry.kind, &body))
        .unwrap_or_else(|| format!("{} {}", entry.kind, entry.body));
    format!("{} {:>5}  {what}", output::utc(entry.at), entry.seq)
}

fn of_run(kind: &str, body: &serde_json::Value) -> Option<String> {
    let text = |key: &str| text(body, key);
    Some(match kind {
        "created" => {
            format!("run {} created from plan {:?}", text("run"), body["plan"]["name"].as_str().unwrap_or(""))
        }
        "site_present" => format!("{} is present", text("site")),
        "sites_present" => format!("present: {}", list(&body["sites"])),
        "site_lost" => format!("{} is lost: {}", text("site"), text("reason")),
        "site_revoked" => format!("{} was revoked: {}", text("site"), text("reason")),
        "submitted" => format!(
            "{} handed in a result on {} examples{}",
            text("site"),
            count(&body["num_examples"]),
            metrics(&body["metrics"])
        ),
        "refused" => {
            let why = serde_json::from_value::<Refusal>(body["refusal"].clone())
                .map_or_else(|_| body["refusal"].to_string(), |refusal| refusal.to_string());
            format!("{}'s result was refused: {why}", text("site"))
        }
        "failed" => format!("{} could not do its task: {}", text("site"), text("reason")),
        "deadline_passed" => format!("round {}: the deadline of {} passed", text("round"), text("stage")),
        "folded" => {
            let versions = body["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let global = versions.iter().find(|version| version["lineage"] == "global");
            let digest = global.and_then(|version| version["digest"].as_str()).unwrap_or_default();
            format!(
                "round {}: {} folded into model {}",
                text("round"),
                text("stage"),
                digest.get(..12).unwrap_or(digest)
            )
        }
        "fold_failed" => {
            format!("round {}: {} could not be folded: {}", text("round"), text("stage"), text("reason"))
        }
        "stop_requested" => format!("stop requested by {}", text("reason")),
        "extended" => format!("extended by {} rounds", text("rounds")),
        _ => return None,
    })
}

fn of_federation(kind: &str, body: &serde_json::Value) -> Option<String> {
    let text = |key: &str| text(body, key);
    Some(match kind {
        "site_invited" => {
            let then = if body["approve"] == true { "; an operator will have to approve it" } else { "" };
            format!("{} was invited until {} UTC{then}", text("site"), at(&body["expires_at"]))
        }
        "site_enrolled" => format!("{} came in with the key {}", text("site"), text("key")),
        "site_waits_for_approval" => {
            format!("{} waits for approval of the key {}", text("site"), text("key"))
        }
        "site_approved" => {
            format!("{} was approved by {} with the key {}", text("site"), text("by"), text("key"))
        }
        "certificate_renewed" => {
            format!("{} has a new certificate, until {} UTC", text("site"), at(&body["not_after"]))
        }
        "invitation_withdrawn" => {
            format!("the invitation of {} was withdrawn: {}", text("site"), text("reason"))
        }
        "token_reuse" => format!(
            "the spent token of {} came again from {} with another key, {}: somebody else may have its kit",
            text("site"),
            text("peer"),
            text("other_key")
        ),
        "run_removed" => format!(
            "run {} ({}) was removed by {}; its {} entries ended with {}",
            text("run"),
            text("name"),
            text("by"),
            text("entries"),
            text("head")
        ),
        "run_set_aside" => format!(
            "run {} was set aside: its journal is broken at entry {}: {}",
            text("run"),
            text("entry"),
            text("what")
        ),
        "plan_refused" => format!("a plan of {} was refused: {}", text("by"), text("what")),
        _ if body["site"].is_string() && body["what"].is_string() => {
            format!("{}: {}", text("site"), text("what"))
        }
        _ => return None,
    })
}

fn text(body: &serde_json::Value, key: &str) -> String {
    match &body[key] {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A number without a fraction that says nothing.
fn count(value: &serde_json::Value) -> String {
    value.as_f64().map_or_else(|| value.to_string(), |number| number.to_string())
}

fn list(values: &serde_json::Value) -> String {
    let names: Vec<&str> =
        values.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    names.join(", ")
}

fn at(value: &serde_json::Value) -> String {
    serde_json::from_value(value.clone()).map_or_else(|_| value.to_string(), output::utc)
}

fn metrics(metrics: &serde_json::Value) -> String {
    let Some(metrics) = metrics.as_object().filter(|metrics| !metrics.is_empty()) else {
        return String::new();
    };
    let shown: Vec<String> = metrics
        .iter()
        .map(|(name, value)| format!("{name} {:.4}", value.as_f64().unwrap_or(f64::NAN)))
        .collect();
    format!(" ({})", shown.join(", "))
}
