//! Following a run: its journal told as lines, and waiting for its end.

use std::time::Duration;

use sheaf_admin_api::JournalBody;
use sheaf_domain::{ErrorKind, JournalEntry, RunId, RunStatus};

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
            Hold::Long => Duration::from_secs(20),
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
    pub(crate) async fn next(&mut self, operator: &mut Operator, hold: Hold) -> anyhow::Result<Vec<JournalEntry>> {
        let hold_for = hold.duration();
        let path = format!("/journals/{}?after={}&hold_ms={}", self.journal, self.after, hold_for.as_millis());
        match operator.get_held::<JournalBody>(&path, hold_for).await {
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

/// The state of a run.
pub(crate) async fn status(operator: &mut Operator, run: RunId) -> anyhow::Result<RunStatus> {
    operator.get(&format!("/runs/{run}")).await
}

/// One line for people about a journal entry.
pub(crate) fn describe(entry: &JournalEntry) -> String {
    let body: serde_json::Value = serde_json::from_str(&entry.body).unwrap_or_default();
    let text = |key: &str| match &body[key] {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    };
    let what = match entry.kind.as_str() {
        "created" => format!("run {} created from plan {:?}", text("run"), body["plan"]["name"].as_str().unwrap_or("")),
        "site_present" => format!("{} is present", text("site")),
        "site_lost" => format!("{} is lost: {}", text("site"), text("reason")),
        "site_revoked" => format!("{} was revoked: {}", text("site"), text("reason")),
        "submitted" => format!(
            "{} handed in a result on {} examples{}",
            text("site"),
            text("num_examples"),
            metrics(&body["metrics"])
        ),
        "refused" => format!("{}'s result was refused: {}", text("site"), body["refusal"]),
        "failed" => format!("{} could not do its task: {}", text("site"), text("reason")),
        "deadline_passed" => format!("round {}: the deadline of {} passed", text("round"), text("stage")),
        "folded" => {
            let versions = body["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let global = versions.iter().find(|version| version["lineage"] == "global");
            let digest = global.and_then(|version| version["digest"].as_str()).unwrap_or_default();
            format!("round {}: {} folded into model {}", text("round"), text("stage"), digest.get(..12).unwrap_or(digest))
        }
        "fold_failed" => format!("round {}: {} could not be folded: {}", text("round"), text("stage"), text("reason")),
        "stop_requested" => format!("stop requested by {}", text("reason")),
        "extended" => format!("extended by {} rounds", text("rounds")),
        other => format!("{other} {}", entry.body),
    };
    format!("{} {:>5}  {what}", output::utc(entry.at), entry.seq)
}

fn metrics(metrics: &serde_json::Value) -> String {
    let Some(metrics) = metrics.as_object().filter(|metrics| !metrics.is_empty()) else { return String::new() };
    let shown: Vec<String> =
        metrics.iter().map(|(name, value)| format!("{name} {:.4}", value.as_f64().unwrap_or(f64::NAN))).collect();
    format!(" ({})", shown.join(", "))
}
