//! Presence: when each participant last showed a sign of life. In memory; only transitions become events.
//!
//! Bounded by the participants that are enrolled: nobody else is noted.

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
    last: Duration,
    /// When it was last heard of; nothing while it is only assumed to be there still.
    pub(crate) last_wall: Option<Timestamp>,
    pub(crate) present: bool,
    pub(crate) client: Option<String>,
    /// Whether `last_wall` is to be written down.
    unwritten: bool,
}

impl Presence {
    /// Notes a sign of life; returns whether the participant was not counted as present.
    pub(crate) fn touch(
        &self,
        site: &SiteName,
        monotonic: Duration,
        wall: Timestamp,
        client: Option<&str>,
    ) -> bool {
        let mut signs = lock(&self.0);
        let sign = signs.entry(site.clone()).or_insert_with(|| Sign::absent(monotonic));
        sign.last = monotonic;
        sign.last_wall = Some(wall);
        sign.unwritten = true;
        if let Some(client) = client {
            sign.client = Some(client.to_owned());
        }
        !std::mem::replace(&mut sign.present, true)
    }

    /// Counts a participant as present that was so before a restart, until it shows itself or its time is up.
    pub(crate) fn assume(&self, site: &SiteName, monotonic: Duration) {
        let mut signs = lock(&self.0);
        signs.entry(site.clone()).or_insert_with(|| Sign { present: true, ..Sign::absent(monotonic) });
    }

    /// Counts a participant as absent; returns whether it was present.
    pub(crate) fn leave(&self, site: &SiteName) -> bool {
        lock(&self.0).get_mut(site).is_some_and(|sign| std::mem::replace(&mut sign.present, false))
    }

    pub(crate) fn is_present(&self, site: &SiteName) -> bool {
        lock(&self.0).get(site).is_some_and(|sign| sign.present)
    }

    /// Those counted as present that were silent for longer than `liveness`, with how long.
    pub(crate) fn silent(&self, monotonic: Duration, liveness: Span) -> Vec<(SiteName, Span)> {
        let signs = lock(&self.0);
        let present = signs.iter().filter(|(_, sign)| sign.present);
        let silent = present.filter_map(|(site, sign)| {
            let silent = monotonic.saturating_sub(sign.last);
            (silent > liveness.as_duration()).then(|| (site.clone(), Span::from_secs(silent.as_secs())))
        });
        let mut silent: Vec<_> = silent.collect();
        silent.sort();
        silent
    }

    /// Counts a participant as absent if it is still silent for longer than `liveness`; returns whether it was counted out.
    pub(crate) fn expire(&self, site: &SiteName, monotonic: Duration, liveness: Span) -> bool {
        let mut signs = lock(&self.0);
        let Some(sign) = signs.get_mut(site) else { return false };
        let silent = monotonic.saturating_sub(sign.last) > liveness.as_duration();
        silent && std::mem::replace(&mut sign.present, false)
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

    /// When participants were last heard of, as far as it is not written down yet; at most `limit`.
    pub(crate) fn take_unwritten(&self, limit: usize) -> Vec<(SiteName, Timestamp)> {
        let mut signs = lock(&self.0);
        let unwritten = signs.iter_mut().filter(|(_, sign)| sign.unwritten).take(limit);
        let taken = unwritten.filter_map(|(site, sign)| {
            sign.unwritten = false;
            Some((site.clone(), sign.last_wall?))
        });
        taken.collect()
    }
}

impl Sign {
    fn absent(last: Duration) -> Sign {
        Sign { last, last_wall: None, present: false, client: None, unwritten: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participant_is_silent_only_beyond_the_limit_and_expires_only_if_it_still_is() {
        let presence = Presence::default();
        let site = SiteName::new("a").unwrap();
        let (wall, limit) = (Timestamp::from_millis(5), Span::from_secs(10));
        assert!(presence.touch(&site, Duration::from_secs(1), wall, None));
        assert!(!presence.touch(&site, Duration::from_secs(2), wall, None));
        assert!(presence.silent(Duration::from_secs(12), limit).is_empty());
        assert_eq!(presence.silent(Duration::from_secs(13), limit), [(site.clone(), Span::from_secs(11))]);
        presence.touch(&site, Duration::from_secs(13), wall, None);
        assert!(!presence.expire(&site, Duration::from_secs(13), limit));
        assert!(presence.expire(&site, Duration::from_secs(30), limit));
        assert!(!presence.expire(&site, Duration::from_secs(30), limit));
    }

    #[test]
    fn an_assumed_participant_was_not_heard_of() {
        let presence = Presence::default();
        let site = SiteName::new("a").unwrap();
        presence.assume(&site, Duration::ZERO);
        assert!(presence.is_present(&site));
        assert_eq!(presence.sign(&site).unwrap().last_wall, None);
        assert!(presence.take_unwritten(10).is_empty());
        presence.touch(&site, Duration::ZERO, Timestamp::from_millis(7), None);
        assert_eq!(presence.take_unwritten(10), [(site, Timestamp::from_millis(7))]);
        assert!(presence.take_unwritten(10).is_empty());
    }
}
