//! Time that a thread spends on the processor: what others do on the machine is not in it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sheaf_domain::Timestamp;
use sheaf_runtime::Clock;

/// A clock that goes on while the calling thread does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnTime;

impl Clock for OwnTime {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn monotonic(&self) -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
        Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
    }
}
