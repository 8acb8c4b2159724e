//! The byte budget: every upload reserves its declared length before its body is read.
//!
//! When the budget is used up, pushes wait their turn (first come, first served) and are told to come again after a while.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use sheaf_domain::{ByteSize, ErrorKind, Span};

use crate::Error;

/// Budget is accounted in units of this many bytes, so that it fits the semaphore.
const UNIT: u64 = 1024;

/// A shared number of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    total: u64,
    wait: Span,
}

/// A share of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Budget {
    pub(crate) fn new(size: ByteSize, wait: Span) -> Budget {
        let total = size.as_bytes().div_ceil(UNIT).clamp(1, u64::from(u32::MAX));
        let units = usize::try_from(total).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Budget { units: Arc::new(Semaphore::new(units)), total, wait }
    }

    /// How many bytes are reserved at this moment.
    pub(crate) fn reserved(&self) -> u64 {
        let free = self.units.available_permits() as u64;
        self.total.saturating_sub(free) * UNIT
    }

    /// Waits for `bytes` of the budget; a request larger than the whole budget takes all of it.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] when none is free for too long.
    /// # Cancel safety
    /// Safe: a dropped wait takes nothing.
    pub(crate) async fn reserve(&self, bytes: u64) -> Result<Reservation, Error> {
        let units = u32::try_from(bytes.div_ceil(UNIT).clamp(1, self.total)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.units).acquire_many_owned(units);
        match tokio::time::timeout(self.wait.as_duration(), permit).await {
            Ok(Ok(permit)) => Ok(Reservation(permit)),
            Ok(Err(_)) => Err(Error::shutting_down()),
            Err(_) => Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "no room for {bytes} more bytes in flight; the budget is {} bytes",
                    self.total * UNIT
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_budget_refuses_after_its_wait_and_recovers() {
        let budget = Budget::new(ByteSize::from_bytes(4096), Span::from_millis(1));
        let first = budget.reserve(4000).await.unwrap();
        let refused = budget.reserve(1000).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Exhausted);
        assert_eq!(budget.reserved(), 4096);
        drop(first);
        assert_eq!(budget.reserved(), 0);
        budget.reserve(1_000_000).await.unwrap();
    }
}
