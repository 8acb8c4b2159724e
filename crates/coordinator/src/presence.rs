//! Presence: when each participant last showed a sign of life. In memory; only transitions become events.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use sheaf_domain::{SiteName, Span, Timestamp};

use crate::outbox::lock;

/// Signs of life, by participant.
#[derive(Debug, Default)]
pub(crate) struct Presence(Mutex<HashMap<SiteName, Sign>>);

/// What is known of a participant that was met since the server started.
#[derive(Debug, Clone)]
pub(crate) struct Sign {
    pub(crate) last: Duration,
    pub(crate) last_wall: Timestamp,
    pub(crate) present: bool,
    pub(crate) client: Option<String>,
}

impl Presence {
    /// Notes a sign of life; returns whether the participant was not counted as present.
    pub(crate) fn touch(&self, site: &SiteName, monotonic: Duration, wall: Timestamp, client: Option<&str>) -> bool {
        let mut signs = lock(&self.0);
        let sign = signs.entry(site.clone()).or_insert(Sign {
            last: monotonic,
            last_wall: wall,
            present: false,
            client: None,
        });
        sign.last = monotonic;
        sign.last_wall = wall;
        if let Some(client) = client {
            sign.client = Some(client.to_owned());
        }
        !std::mem::replace(&mut sign.present, true)
    }

    /// Counts a participant as absent; returns whether it was present.
    pub(crate) fn leave(&self, site: &SiteName) -> bool {
        lock(&self.0).get_mut(site).is_some_and(|sign| std::mem::replace(&mut sign.present, false))
    }

    /// Counts those silent for longer than `liveness` as absent and returns them.
    pub(crate) fn expire(&self, monotonic: Duration, liveness: Span) -> Vec<(SiteName, Span)> {
        let mut lost = Vec::new();
        for (site, sign) in lock(&self.0).iter_mut().filter(|(_, sign)| sign.present) {
            let silent = monotonic.saturating_sub(sign.last);
            if silent > liveness.as_duration() {
                sign.present = false;
                lost.push((site.clone(), Span::from_secs(silent.as_secs())));
            }
        }
        lost.sort();
        lost
    }

    /// The participants counted as present, in canonical order.
    pub(crate) fn present(&self) -> Vec<SiteName> {
        let signs = lock(&self.0);
        let mut present: Vec<SiteName> =
            signs.iter().filter(|(_, sign)| sign.present).map(|(site, _)| site.clone()).collect();
        present.sort();
        present
    }

    /// What is known of one participant.
    pub(crate) fn sign(&self, site: &SiteName) -> Option<Sign> {
        lock(&self.0).get(site).cloned()
    }
}
