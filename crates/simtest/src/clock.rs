//! The simulated clock: the time of the simulation, seen by a host whose wall clock may be off.

use std::sync::Arc;
use std::time::Duration;

use sheaf_domain::Timestamp;
use sheaf_runtime::Clock;

/// When every simulation begins.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;

/// A host's clock. Monotonic time is that of the simulation, also across a restart of the host's process.
#[derive(Debug)]
pub(crate) struct SimClock {
    skew_ms: i64,
}

impl SimClock {
    /// A clock that is `skew_ms` ahead of the simulation's time.
    pub(crate) fn skewed(skew_ms: i64) -> Arc<dyn Clock> {
        Arc::new(SimClock { skew_ms })
    }
}

/// The time since the simulation began; zero outside of its hosts.
pub(crate) fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis((EPOCH_MS + millis(elapsed())).saturating_add_signed(self.skew_ms))
    }

    fn monotonic(&self) -> Duration {
        elapsed()
    }
}
