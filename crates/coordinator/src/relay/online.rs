//! Which participants of relayed runs are there, and who waits for a letter. In memory; after a restart everybody gets one full
//! period to show himself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use sheaf_domain::{SiteName, Timestamp};
use tokio::sync::watch;

use crate::outbox::lock;

/// Signs of life, by participant; there are entries for enrolled participants only.
#[derive(Debug)]
pub(super) struct Online {
    signs: Mutex<HashMap<SiteName, Sign>>,
    /// Until when nobody counts as gone who was not heard of since the start.
    grace: OnceLock<Duration>,
    /// Grows when a run waits to be claimed.
    pending: watch::Sender<u64>,
    /// Grows when a participant comes that was not there.
    comings: watch::Sender<u64>,
}

/// What is known of a participant since the server started.
#[derive(Debug, Clone)]
pub(super) struct Sign {
    /// Until when it counts as there, on the monotonic clock; nothing once it said goodbye.
    pub(super) until: Option<Duration>,
    /// When it last said anything.
    pub(super) last: Duration,
    /// How often it says that it beats, in milliseconds.
    pub(super) beat_every_ms: u64,
    pub(super) activated_at: Option<Timestamp>,
    pub(super) deactivated_at: Option<Timestamp>,
    /// Whether it has said anything since it was activated.
    pub(super) spoke: bool,
    /// Whether it was heard of since that was last written down.
    pub(super) unwritten: bool,
    letters: Arc<watch::Sender<u64>>,
}

impl Default for Online {
    fn default() -> Online {
        Online {
            signs: Mutex::default(),
            grace: OnceLock::new(),
            pending: watch::Sender::new(0),
            comings: watch::Sender::new(0),
        }
    }
}

impl Default for Sign {
    fn default() -> Sign {
        Sign {
            until: None,
            last: Duration::ZERO,
            beat_every_ms: 0,
            activated_at: None,
            deactivated_at: None,
            spoke: false,
            unwritten: false,
            letters: Arc::new(watch::Sender::new(0)),
        }
    }
}

/// What became of a participant's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It has begun.
    Begun,
    /// The same key showed life elsewhere meanwhile.
    AtWork,
    /// The same key was heard of lately; so long it may still be silent.
    Unclear {
        /// How long.
        left: Duration,
    },
}

impl Sign {
    /// Begins, unless the same key may be at work elsewhere: one that was there, has said something since it began, and beats
    /// again before five sixths of its interval are over. `heard_before` is when it was heard of as the beginning was asked for.
    pub(super) fn begin(
        &mut self,
        now: Duration,
        wall: Timestamp,
        beat_every: Duration,
        heard_before: Duration,
    ) -> Beginning {
        let there = self.until.is_some_and(|until| until > now) && self.spoke;
        let silence_max = Duration::from_millis(self.beat_every_ms) * 5 / 6;
        let silent = now.saturating_sub(self.last);
        if there && self.last > heard_before {
            return Beginning::AtWork;
        }
        if there && silent < silence_max {
            return Beginning::Unclear { left: silence_max - silent };
        }
        self.until = Some(now + 2 * beat_every);
        self.last = now;
        self.beat_every_ms = u64::try_from(beat_every.as_millis()).unwrap_or(u64::MAX);
        self.activated_at = Some(wall);
        self.spoke = false;
        Beginning::Begun
    }
}

impl Online {
    /// Changes what is known of a participant.
    pub(super) fn change<T>(&self, site: &SiteName, change: impl FnOnce(&mut Sign) -> T) -> T {
        change(lock(&self.signs).entry(site.clone()).or_default())
    }

    pub(super) fn of(&self, site: &SiteName) -> Sign {
        lock(&self.signs).get(site).cloned().unwrap_or_default()
    }

    pub(super) fn is_online(&self, site: &SiteName, now: Duration) -> bool {
        lock(&self.signs).get(site).is_some_and(|sign| sign.until.is_some_and(|until| until > now))
    }

    /// Gives everybody until then to show himself, whether or not he was heard of before the start.
    pub(super) fn grant(&self, until: Duration) {
        let _ = self.grace.set(until);
    }

    /// Whether a participant is not there and has had its time to come: one that said goodbye, went silent, or did not show
    /// itself for a full period after the start.
    pub(super) fn is_gone(&self, site: &SiteName, now: Duration) -> bool {
        let in_grace = self.grace.get().is_some_and(|until| now < *until);
        match lock(&self.signs).get(site) {
            Some(Sign { until: Some(until), .. }) => *until <= now,
            Some(Sign { deactivated_at: Some(_), .. }) => true,
            _ => !in_grace,
        }
    }

    /// Everybody who is there.
    pub(super) fn all(&self, now: Duration) -> Vec<SiteName> {
        let signs = lock(&self.signs);
        let there = signs.iter().filter(|(_, sign)| sign.until.is_some_and(|until| until > now));
        there.map(|(site, _)| site.clone()).collect()
    }

    /// Says that a participant came that was not there.
    pub(super) fn somebody_came(&self) {
        self.comings.send_modify(|version| *version += 1);
    }

    /// A receiver that sees every participant that comes.
    pub(super) fn watch_comings(&self) -> watch::Receiver<u64> {
        self.comings.subscribe()
    }

    /// Those heard of since this was last asked.
    pub(super) fn take_unwritten(&self) -> Vec<SiteName> {
        let mut signs = lock(&self.signs);
        let mut heard = Vec::new();
        for (site, sign) in signs.iter_mut() {
            if heard.len() < sheaf_store::SEEN_MAX && std::mem::take(&mut sign.unwritten) {
                heard.push(site.clone());
            }
        }
        heard
    }

    pub(super) fn forget(&self, site: &SiteName) {
        lock(&self.signs).remove(site);
    }

    /// Wakes those who wait for a letter to a participant.
    pub(super) fn wake(&self, site: &SiteName) {
        let letters = lock(&self.signs).get(site).map(|sign| Arc::clone(&sign.letters));
        if let Some(letters) = letters {
            letters.send_modify(|version| *version += 1);
        }
    }

    /// Wakes everybody who waits.
    pub(super) fn wake_all(&self) {
        let all: Vec<_> = lock(&self.signs).values().map(|sign| Arc::clone(&sign.letters)).collect();
        all.iter().for_each(|letters| letters.send_modify(|version| *version += 1));
        self.a_run_waits();
    }

    /// A receiver that sees every letter to a participant.
    pub(super) fn watch(&self, site: &SiteName) -> watch::Receiver<u64> {
        self.change(site, |sign| sign.letters.subscribe())
    }

    /// Says that a run waits to be claimed.
    pub(super) fn a_run_waits(&self) {
        self.pending.send_modify(|version| *version += 1);
    }

    /// A receiver that sees every run that waits.
    pub(super) fn watch_pending(&self) -> watch::Receiver<u64> {
        self.pending.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(30);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn nobody_is_gone_before_he_had_a_period_to_come() {
        let [silent, there, left]: [SiteName; 3] =
            ["silent", "there", "left"].map(|name| name.parse().unwrap());
        let online = Online::default();
        assert!(online.is_gone(&silent, secs(1)), "nothing was granted");
        online.grant(secs(60));
        online.change(&there, |sign| sign.until = Some(secs(30)));
        online.change(&left, |sign| sign.deactivated_at = Some(Timestamp::from_millis(1)));
        let gone = |at| [&silent, &there, &left].map(|site| online.is_gone(site, secs(at)));
        assert_eq!(gone(1), [false, false, true]);
        assert_eq!(gone(31), [false, true, true], "its own time is over");
        assert_eq!(gone(60), [true, true, true]);
    }

    #[test]
    fn a_key_begins_anew_when_the_other_is_silent_and_not_when_it_speaks() {
        let wall = Timestamp::from_millis(1);
        let mut sign = Sign::default();
        assert_eq!(sign.begin(secs(100), wall, BEAT, secs(0)), Beginning::Begun);
        // The answer was lost: the same beginning.
        assert_eq!(sign.begin(secs(101), wall, BEAT, secs(100)), Beginning::Begun);
        (sign.spoke, sign.last) = (true, secs(102));
        let asked = sign.last;
        assert_eq!(sign.begin(secs(110), wall, BEAT, asked), Beginning::Unclear { left: secs(17) });
        assert_eq!(sign.clone().begin(secs(127), wall, BEAT, asked), Beginning::Begun);
        sign.last = secs(120);
        assert_eq!(sign.begin(secs(121), wall, BEAT, asked), Beginning::AtWork);
        sign.until = None;
        assert_eq!(sign.begin(secs(121), wall, BEAT, asked), Beginning::Begun, "it said goodbye");
    }
}
