//! What works and what does not, by component, for a `/health` route.
//!
//! Components are named in the code, so their number is fixed; reasons are cut at [`REASON_CHARS_MAX`]. The answer
//! needs no credentials, so a reason names what failed and never an address, a path or a key.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde::Serialize;

/// The most characters of a reason that are kept.
pub const REASON_CHARS_MAX: usize = 300;

/// How one component does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum CheckState {
    /// It works.
    Ok,
    /// It works with a restriction; requests are still served.
    Degraded {
        /// What is restricted.
        reason: String,
    },
    /// It does not work; the server cannot do its job.
    Failed {
        /// What is broken.
        reason: String,
    },
}

/// The shared registry of components; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    checks: Arc<RwLock<BTreeMap<&'static str, CheckState>>>,
}

impl Health {
    /// A registry with no component in it, which reports `ok`.
    pub fn new() -> Health {
        Health::default()
    }

    /// Names a component that must report before the whole is well: until then it counts as failed, "starting".
    /// A component that already reported keeps its state.
    pub fn expect(&self, component: &'static str) {
        self.write(|checks| {
            checks.entry(component).or_insert_with(|| CheckState::Failed { reason: "starting".to_owned() });
        });
    }

    /// Sets how a component does.
    pub fn set(&self, component: &'static str, state: CheckState) {
        self.write(|checks| {
            checks.insert(component, state.bounded());
        });
    }

    /// Says that a component works.
    pub fn ok(&self, component: &'static str) {
        self.set(component, CheckState::Ok);
    }

    /// Says that a component works with a restriction.
    pub fn degraded(&self, component: &'static str, reason: impl Into<String>) {
        self.set(component, CheckState::Degraded { reason: reason.into() });
    }

    /// Says that a component does not work.
    pub fn failed(&self, component: &'static str, reason: impl Into<String>) {
        self.set(component, CheckState::Failed { reason: reason.into() });
    }

    /// The state of every component at this moment; the whole is as well as its worst component.
    pub fn report(&self) -> HealthReport {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let status = checks.values().map(CheckState::severity).max().unwrap_or(Severity::Ok);
        HealthReport { status, checks }
    }

    fn write(&self, change: impl FnOnce(&mut BTreeMap<&'static str, CheckState>)) {
        change(&mut self.checks.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A snapshot of [`Health`], as `/health` sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    status: Severity,
    checks: BTreeMap<&'static str, CheckState>,
}

impl HealthReport {
    /// 200 while requests are served, 503 once a component has failed.
    pub fn http_status(&self) -> u16 {
        if self.is_serving() { 200 } else { 503 }
    }

    /// Whether no component has failed.
    pub fn is_serving(&self) -> bool {
        self.status != Severity::Failed
    }

    /// How one component does, if it is known.
    pub fn check(&self, component: &str) -> Option<&CheckState> {
        self.checks.get(component)
    }

    /// The snapshot as one JSON object: `{"status": "ok", "checks": {"store": {"status": "ok"}}}`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| r#"{"status":"failed","checks":{}}"#.to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Severity {
    Ok,
    Degraded,
    Failed,
}

impl CheckState {
    fn severity(&self) -> Severity {
        match self {
            CheckState::Ok => Severity::Ok,
            CheckState::Degraded { .. } => Severity::Degraded,
            CheckState::Failed { .. } => Severity::Failed,
        }
    }

    fn bounded(mut self) -> CheckState {
        if let CheckState::Degraded { reason } | CheckState::Failed { reason } = &mut self
            && let Some((end, _)) = reason.char_indices().nth(REASON_CHARS_MAX)
        {
            reason.truncate(end);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_as_well_as_its_worst_component() {
        let health = Health::new();
        health.ok("store");
        assert_eq!(health.report().http_status(), 200);
        assert_eq!(health.report().to_json(), r#"{"status":"ok","checks":{"store":{"status":"ok"}}}"#);
        health.degraded("blob", "91 % of the space is used");
        assert_eq!(health.report().http_status(), 200);
        health.failed("store", "the device refuses writes");
        let report = health.report();
        assert_eq!(report.http_status(), 503);
        assert_eq!(
            report.to_json(),
            concat!(
                r#"{"status":"failed","checks":{"blob":{"status":"degraded","reason":"91 % of the space is used"},"#,
                r#""store":{"status":"failed","reason":"the device refuses writes"}}}"#
            )
        );
        health.ok("store");
        assert!(health.report().is_serving());
    }

    #[test]
    fn an_expected_component_fails_the_whole_until_it_reports() {
        let health = Health::new();
        health.expect("coordinator");
        assert_eq!(health.report().http_status(), 503);
        health.ok("coordinator");
        health.expect("coordinator");
        assert_eq!(health.report().check("coordinator"), Some(&CheckState::Ok));
    }

    #[test]
    fn clones_share_their_components_and_long_reasons_are_cut() {
        let health = Health::new();
        let of_the_disk = health.clone();
        of_the_disk.failed("disk", "é".repeat(REASON_CHARS_MAX + 7));
        let report = health.report();
        let Some(CheckState::Failed { reason }) = report.check("disk") else {
            panic!("the clone's report is lost")
        };
        assert_eq!(reason.chars().count(), REASON_CHARS_MAX);
    }
}
