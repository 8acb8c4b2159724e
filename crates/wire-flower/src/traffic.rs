//! What runs have moved, for those who list them: bytes between server and nodes, and seconds nodes worked.
//!
//! Counted in memory since the server started; there is an entry for runs that exist only.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sheaf_coordinator::RelayOverview;
use sheaf_domain::RunId;

use crate::proto;

/// The counts of every run.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<HashMap<RunId, Counts>>);

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    sent: u64,
    received: u64,
    worked_s: f64,
}

impl Traffic {
    /// Forgets runs that are not among these: they were removed.
    pub(crate) fn forget_others(&self, runs: &[RelayOverview]) {
        let mut counts = self.lock();
        if counts.len() > runs.len() {
            counts.retain(|run, _| runs.iter().any(|known| known.run == *run));
        }
    }

    /// Bytes went to a node.
    pub(crate) fn sent(&self, run: RunId, bytes: u64) {
        let mut counts = self.lock();
        let of_run = counts.entry(run).or_default();
        of_run.sent = of_run.sent.saturating_add(bytes);
    }

    /// Bytes came from a node.
    pub(crate) fn received(&self, run: RunId, bytes: u64) {
        let mut counts = self.lock();
        let of_run = counts.entry(run).or_default();
        of_run.received = of_run.received.saturating_add(bytes);
    }

    /// A node worked; what is no time is not counted.
    pub(crate) fn worked(&self, run: RunId, seconds: f64) {
        if seconds.is_finite() && seconds > 0.0 {
            self.lock().entry(run).or_default().worked_s += seconds;
        }
    }

    /// Puts the counts into the description of a run.
    pub(crate) fn describe(&self, run: RunId, description: &mut proto::Run) {
        let counts = self.lock().get(&run).copied().unwrap_or_default();
        description.bytes_sent = counts.sent;
        description.bytes_recv = counts.received;
        description.clientapp_runtime = counts.worked_s;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_described_with_what_it_moved() {
        let (traffic, run) = (Traffic::default(), RunId::new(7).unwrap());
        traffic.sent(run, 5);
        traffic.received(run, u64::MAX);
        traffic.received(run, 1);
        for seconds in [1.5, f64::NAN, -1.0] {
            traffic.worked(run, seconds);
        }
        let mut description = proto::Run::default();
        traffic.describe(run, &mut description);
        assert_eq!((description.bytes_sent, description.bytes_recv), (5, u64::MAX));
        assert_eq!(description.clientapp_runtime.to_bits(), 1.5_f64.to_bits());
    }
}
