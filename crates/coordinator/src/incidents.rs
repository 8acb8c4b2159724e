//! Incidents: what went wrong with a participant outside of a run's own rules, such as bytes that do not match their digest.
//!
//! The last one of each site is kept in memory for `status`; of each kind and site one entry a minute goes into the
//! federation's journal, so that no peer can fill it. Bounded by the enrolled sites and the fixed kinds. Beside them, what whoever
//! serves a run has to say of it for as long as it serves it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use sheaf_domain::{RunId, SiteName};

use crate::outbox::lock;

/// How long a kind of incident of one site is not journalled again.
const JOURNAL_EVERY: Duration = Duration::from_secs(60);
/// The longest text of an incident, in characters.
const TEXT_LEN_MAX: usize = 500;

/// What sort of incident it was; the kind of its journal entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A request with a credential that may not come in any more, or not yet.
    AccessRefused,
    /// A piece that was not taken: length, digest, no room.
    UploadRefused,
    /// A request about another participant's task.
    ForeignTask,
    /// A token that came too late or with another key.
    TokenRefused,
    /// A message that is none of the protocol's and names no task of the sender's.
    MessageRefused,
    /// A plan that cannot be run.
    PlanRefused,
    /// What the run's own journal has: refused and failed attempts, a participant lost.
    InRun,
}

impl Kind {
    /// The kind of the federation journal's entry; none for what a run's journal has already.
    pub(crate) fn entry(self) -> Option<&'static str> {
        match self {
            Kind::AccessRefused => Some("access_refused"),
            Kind::UploadRefused => Some("upload_refused"),
            Kind::ForeignTask => Some("foreign_task_refused"),
            Kind::TokenRefused => Some("token_refused"),
            Kind::MessageRefused => Some("message_refused"),
            Kind::PlanRefused => Some("plan_refused"),
            Kind::InRun => None,
        }
    }
}

/// The last incident of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incident {
    /// The run it belongs to, if it belongs to one.
    pub(crate) run: Option<RunId>,
    pub(crate) text: String,
}

/// Every site's last incident.
#[derive(Debug, Default)]
pub(crate) struct Incidents(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    last: HashMap<SiteName, Incident>,
    journalled: HashMap<(SiteName, Kind), Duration>,
    notices: HashMap<RunId, Vec<String>>,
}

impl Incidents {
    /// Notes an incident; returns whether it is to be journalled. The caller makes sure that the site is a known one.
    pub(crate) fn note(
        &self,
        site: &SiteName,
        kind: Kind,
        run: Option<RunId>,
        text: &str,
        now: Duration,
    ) -> bool {
        let mut content = lock(&self.0);
        let text = text.chars().take(TEXT_LEN_MAX).collect();
        content.last.insert(site.clone(), Incident { run, text });
        kind.entry().is_some() && content.may_journal(site, kind, now)
    }

    /// Whether an incident that is shown nowhere else is to be journalled.
    pub(crate) fn may_journal(&self, site: &SiteName, kind: Kind, now: Duration) -> bool {
        lock(&self.0).may_journal(site, kind, now)
    }

    /// The last incident of a site since the server started.
    pub(crate) fn last(&self, site: &SiteName) -> Option<Incident> {
        lock(&self.0).last.get(site).cloned()
    }

    /// Sets what is to be said of a run for as long as this server goes on.
    pub(crate) fn set_notices(&self, run: RunId, notices: Vec<String>) {
        lock(&self.0).notices.insert(run, notices);
    }

    /// What is to be said of a run.
    pub(crate) fn notices(&self, run: RunId) -> Vec<String> {
        lock(&self.0).notices.get(&run).cloned().unwrap_or_default()
    }
}

impl Content {
    fn may_journal(&mut self, site: &SiteName, kind: Kind, now: Duration) -> bool {
        let key = (site.clone(), kind);
        let before = self.journalled.get(&key);
        let due = before.is_none_or(|before| now.saturating_sub(*before) >= JOURNAL_EVERY);
        if due {
            self.journalled.insert(key, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_incident_is_shown_and_each_kind_journalled_once_a_minute() {
        let incidents = Incidents::default();
        let site = SiteName::new("a").unwrap();
        let secs = Duration::from_secs;
        assert!(incidents.note(&site, Kind::UploadRefused, None, "one", secs(0)));
        assert!(!incidents.note(&site, Kind::UploadRefused, None, "two", secs(59)));
        assert!(incidents.note(&site, Kind::ForeignTask, None, "three", secs(59)));
        assert!(incidents.note(&site, Kind::UploadRefused, None, &"x".repeat(900), secs(60)));
        assert_eq!(incidents.last(&site).unwrap().text.len(), TEXT_LEN_MAX);
        assert!(!incidents.note(&site, Kind::InRun, None, "four", secs(999)));
        assert_eq!(incidents.last(&site).unwrap().text, "four");
    }
}
