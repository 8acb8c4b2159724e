//! Tries a call again while it fails for a passing reason: jittered, growing pauses, for a bounded time.

use std::future::Future;
use std::sync::Arc;

use sheaf_domain::Span;
use sheaf_runtime::{Clock, Entropy};

use crate::Error;

/// How a call that failed for a passing reason is tried again.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// The pause after the first failure; each further one is twice as long, and between half and all of that.
    pub pause: Span,
    /// The longest pause.
    pub pause_max: Span,
    /// After this long the failure is final.
    pub give_up_after: Span,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            pause: Span::from_millis(200),
            pause_max: Span::from_secs(5),
            give_up_after: Span::from_secs(600),
        }
    }
}

/// Tries calls again by a policy.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    pub(crate) policy: RetryPolicy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl Retry {
    /// Makes `call` until it succeeds, fails for good, or time runs out.
    ///
    /// Only for calls that change nothing when repeated; every call of the protocol is one.
    pub(crate) async fn run<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let started = self.clock.monotonic();
        let mut failures = 0;
        loop {
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => error,
            };
            let pause = self.pause(failures).max(error.retry_after().unwrap_or_default());
            failures = failures.saturating_add(1);
            let spent = self.clock.monotonic().saturating_sub(started) + pause.as_duration();
            if spent > self.policy.give_up_after.as_duration() {
                return Err(error);
            }
            tracing::debug!(%error, failures, %pause, "trying again");
            tokio::time::sleep(pause.as_duration()).await;
        }
    }

    /// The pause after `failures` earlier failures.
    pub(crate) fn pause(&self, failures: u32) -> Span {
        let doubled = self.policy.pause.as_millis().saturating_mul(1 << failures.min(20));
        let full = doubled.clamp(1, self.policy.pause_max.as_millis().max(1));
        let mut random = [0; 8];
        // Without randomness the pause is merely not jittered.
        let _ = self.entropy.fill(&mut random);
        let half = full / 2;
        Span::from_millis(full - u64::from_le_bytes(random) % (half + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    use sheaf_domain::{ErrorKind, Timestamp};
    use sheaf_runtime::{ManualClock, SeededEntropy};

    fn retry(clock: &Arc<ManualClock>) -> Retry {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
        let policy = RetryPolicy {
            pause: Span::from_millis(1),
            pause_max: Span::from_millis(2),
            ..RetryPolicy::default()
        };
        Retry { policy, clock, entropy: SeededEntropy::shared(1) }
    }

    fn refused(kind: ErrorKind) -> Error {
        Error::Refused { kind, message: "no".to_owned(), retry_after: None }
    }

    #[tokio::test]
    async fn passing_failures_are_tried_again_and_others_are_not() {
        let clock = ManualClock::starting_at(Timestamp::from_millis(0));
        let calls = Cell::new(0);
        let retry = retry(&clock);
        let done = retry.run(async || {
            calls.set(calls.get() + 1);
            if calls.get() < 4 { Err(refused(ErrorKind::Unavailable)) } else { Ok(calls.get()) }
        });
        assert_eq!(done.await.unwrap(), 4);
        calls.set(0);
        let done = retry.run(async || {
            calls.set(calls.get() + 1);
            Err::<(), _>(refused(ErrorKind::PermissionDenied))
        });
        assert_eq!(done.await.unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(calls.get(), 1);
    }

    #[tokio::test]
    async fn time_runs_out() {
        let clock = ManualClock::starting_at(Timestamp::from_millis(0));
        let calls = Cell::new(0u32);
        let retry = retry(&clock);
        let done = retry.run(async || {
            calls.set(calls.get() + 1);
            clock.advance(Span::from_secs(100));
            Err::<(), _>(refused(ErrorKind::Unavailable))
        });
        assert!(done.await.is_err());
        assert_eq!(calls.get(), 6);
    }

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let clock = ManualClock::starting_at(Timestamp::from_millis(0));
        let retry = Retry { policy: RetryPolicy::default(), ..retry(&clock) };
        let pauses: Vec<u64> = (0..40).map(|failures| retry.pause(failures).as_millis()).collect();
        assert!(pauses[0] >= 100 && pauses[0] <= 200, "{pauses:?}");
        assert!(pauses[10..].iter().all(|pause| (2_500..=5_000).contains(pause)), "{pauses:?}");
        assert!(pauses[10..].iter().any(|pause| *pause != pauses[10]), "{pauses:?}");
    }
}
