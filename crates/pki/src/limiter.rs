//! Rate limits for what anybody may ask for: enrolment, and what is like it. A bucket for everybody and one per address, in bounded memory.
//!
//! Pure: time is handed in. An address is a whole IPv6 /64, since whoever has one address of it has them all. When there
//! are more addresses than are remembered, the one longest unheard of is forgotten; the bucket for everybody still holds.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sheaf_domain::{ErrorKind, Span};

/// How many requests are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnrolmentLimits {
    /// At once, from everybody.
    pub burst: u32,
    /// Per minute, from everybody.
    pub per_minute: u32,
    /// At once, from one address.
    pub peer_burst: u32,
    /// Per minute, from one address.
    pub peer_per_minute: u32,
    /// Addresses remembered.
    pub peers_max: usize,
}

impl Default for EnrolmentLimits {
    /// 200 at once and 600 per minute from everybody, 20 at once and 30 per minute from one address, 4096 addresses.
    fn default() -> EnrolmentLimits {
        EnrolmentLimits { burst: 200, per_minute: 600, peer_burst: 20, peer_per_minute: 30, peers_max: 4_096 }
    }
}

/// A request came too soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests of this kind: try again in {retry_after}")]
pub struct Limited {
    /// When the next one is let through, if nobody comes before.
    pub retry_after: Span,
}

impl Limited {
    /// Always [`ErrorKind::Exhausted`].
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Exhausted
    }
}

/// Lets requests of one kind through at a bounded rate.
#[derive(Debug)]
pub struct EnrolmentLimiter {
    limits: EnrolmentLimits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    everybody: Bucket,
    peers: HashMap<IpAddr, Bucket>,
}

impl EnrolmentLimiter {
    /// Starts with all buckets full.
    pub fn new(limits: EnrolmentLimits) -> EnrolmentLimiter {
        let everybody = Bucket::full(limits.burst, Duration::ZERO);
        EnrolmentLimiter { limits, state: Mutex::new(State { everybody, peers: HashMap::new() }) }
    }

    /// One of the same limits and with buckets of its own, all full: for another kind of request.
    #[must_use]
    pub fn another(&self) -> EnrolmentLimiter {
        EnrolmentLimiter::new(self.limits)
    }

    /// Takes one request of `peer` at `now` ([`Clock::monotonic`](sheaf_runtime::Clock::monotonic)).
    ///
    /// # Errors
    /// [`Limited`] saying when to try again; nothing is taken.
    pub fn admit(&self, peer: IpAddr, now: Duration) -> Result<(), Limited> {
        let limits = &self.limits;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        state.everybody.refill(limits.burst, limits.per_minute, now);
        // Asked first: when everybody is held up, strangers cannot push known addresses out of the memory.
        state.everybody.check(limits.per_minute)?;
        let peer = network_of(peer);
        if !state.peers.contains_key(&peer) {
            make_room(&mut state.peers, limits.peers_max);
        }
        let bucket = state.peers.entry(peer).or_insert_with(|| Bucket::full(limits.peer_burst, now));
        bucket.refill(limits.peer_burst, limits.peer_per_minute, now);
        bucket.check(limits.peer_per_minute)?;
        bucket.take();
        state.everybody.take();
        Ok(())
    }
}

/// Millionths of a request, so that a millisecond of refill is a whole number.
const ONE: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    at: Duration,
}

impl Bucket {
    fn full(burst: u32, at: Duration) -> Bucket {
        Bucket { level: u64::from(burst) * ONE, at }
    }

    fn refill(&mut self, burst: u32, per_minute: u32, now: Duration) {
        let elapsed = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX);
        // per minute × 10^6 / 60 000 ms = per minute × 50 / 3 per millisecond.
        let gained = elapsed.saturating_mul(u64::from(per_minute)).saturating_mul(50) / 3;
        self.level = self.level.saturating_add(gained).min(u64::from(burst) * ONE);
        self.at = self.at.max(now);
    }

    fn check(&self, per_minute: u32) -> Result<(), Limited> {
        if self.level >= ONE {
            return Ok(());
        }
        let missing = ONE - self.level;
        let wait = (missing * 3).div_ceil((u64::from(per_minute) * 50).max(1));
        Err(Limited { retry_after: Span::from_millis(wait.max(1)) })
    }

    fn take(&mut self) {
        self.level = self.level.saturating_sub(ONE);
    }
}

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 one.
pub fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

fn make_room(peers: &mut HashMap<IpAddr, Bucket>, peers_max: usize) {
    while peers.len() >= peers_max.max(1) {
        let Some(oldest) = peers.iter().min_by_key(|(_, bucket)| bucket.at).map(|(peer, _)| *peer) else {
            return;
        };
        peers.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: EnrolmentLimits =
        EnrolmentLimits { burst: 5, per_minute: 60, peer_burst: 2, peer_per_minute: 6, peers_max: 3 };

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_address_is_held_up_without_holding_up_others() {
        let limiter = EnrolmentLimiter::new(LIMITS);
        let at = Duration::from_secs(1);
        assert_eq!(limiter.admit(v4(1), at), Ok(()));
        assert_eq!(limiter.admit(v4(1), at), Ok(()));
        let limited = limiter.admit(v4(1), at).unwrap_err();
        assert_eq!(limited.retry_after, Span::from_secs(10));
        assert_eq!(limiter.admit(v4(2), at), Ok(()));
        let later = at + limited.retry_after.as_duration();
        assert!(limiter.admit(v4(1), later - Duration::from_millis(1)).is_err());
        assert_eq!(limiter.admit(v4(1), later), Ok(()));
    }

    #[test]
    fn everybody_together_is_held_up_too() {
        let limiter = EnrolmentLimiter::new(LIMITS);
        let admitted = (0..50).filter(|peer| limiter.admit(v4(*peer), Duration::ZERO).is_ok()).count();
        assert_eq!(admitted, 5);
        assert_eq!(limiter.admit(v4(60), Duration::ZERO), Err(Limited { retry_after: Span::from_secs(1) }));
        assert_eq!(limiter.admit(v4(60), Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let limiter = EnrolmentLimiter::new(LIMITS);
        let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        assert!(limiter.admit(address(1), Duration::ZERO).is_ok());
        assert!(limiter.admit(address(2), Duration::ZERO).is_ok());
        assert!(limiter.admit(address(3), Duration::ZERO).is_err());
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(network_of(mapped), v4(1));
    }

    #[test]
    fn another_kind_of_request_has_buckets_of_its_own() {
        let limiter = EnrolmentLimiter::new(LIMITS);
        while limiter.admit(v4(1), Duration::ZERO).is_ok() {}
        let another = limiter.another();
        assert_eq!(another.admit(v4(1), Duration::ZERO), Ok(()));
        assert_eq!(another.admit(v4(1), Duration::ZERO), Ok(()));
        assert!(another.admit(v4(1), Duration::ZERO).is_err(), "at the same rate");
        assert!(limiter.admit(v4(1), Duration::ZERO).is_err());
    }

    #[test]
    fn a_rate_of_zero_never_refills() {
        let limiter = EnrolmentLimiter::new(EnrolmentLimits { per_minute: 0, burst: 1, ..LIMITS });
        assert!(limiter.admit(v4(1), Duration::ZERO).is_ok());
        assert!(limiter.admit(v4(1), Duration::from_secs(1_000_000)).is_err());
    }

    proptest! {
        #[test]
        fn memory_and_rate_stay_bounded(calls in proptest::collection::vec((0u8..20, 0u64..500), 1..400)) {
            let limiter = EnrolmentLimiter::new(LIMITS);
            let (mut now, mut admitted) = (Duration::ZERO, 0u64);
            for (peer, step) in calls {
                now += Duration::from_millis(step);
                admitted += u64::from(limiter.admit(v4(peer), now).is_ok());
                prop_assert!(limiter.state.lock().unwrap().peers.len() <= LIMITS.peers_max);
            }
            prop_assert!(admitted <= u64::from(LIMITS.burst) + now.as_secs() + 1);
        }
    }
}
