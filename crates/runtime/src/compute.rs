//! The pool for work that would hold up I/O: hashing, decoding, folding.
//!
//! Bounded: at most `threads` pieces of work run at once; further ones wait their turn.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A cheaply cloned handle to the pool.
#[derive(Debug, Clone)]
pub struct Compute {
    /// None for work done on the spot.
    permits: Option<Arc<Semaphore>>,
}

/// A piece of work that panicked or was cut off by shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a computation was cut off")]
pub struct ComputeError;

impl Compute {
    /// A pool that runs at most `threads` pieces of work at once (at least one).
    pub fn new(threads: usize) -> Compute {
        Compute { permits: Some(Arc::new(Semaphore::new(threads.max(1)))) }
    }

    /// No pool: work is done at once by the task that asks. For simulations only, where threads would bring an order that no
    /// seed decides.
    pub fn on_the_spot() -> Compute {
        Compute { permits: None }
    }

    /// A pool as wide as the machine.
    pub fn for_this_machine() -> Compute {
        Compute::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
    }

    /// Runs `work` off the I/O threads.
    ///
    /// # Errors
    /// [`ComputeError`] when it panicked.
    /// # Cancel safety
    /// Dropping the future does not stop work that has begun; its result is dropped.
    pub async fn run<T, F>(&self, work: F) -> Result<T, ComputeError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Some(permits) = &self.permits else { return Ok(work()) };
        let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| ComputeError)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that takes work off the I/O threads"
        )]
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        task.await.map_err(|_| ComputeError)
    }
}
