//! Where bytes are hashed: off the I/O threads, two messages at a time when two are waiting, a lone one at once.
//!
//! Nobody waits for a partner. A part may be left here while its owner gathers the next one: it is hashed beside the next part
//! that anybody brings, or alone once its owner wants it. Whoever wants a part brings a job to the pool; a job takes what is
//! waiting, two parts at a time. The pool is half as wide as the machine: two lanes on one core do the work of two cores with
//! one, and a narrow pool is what lets parts meet. Bounded by its callers: each wants its part before it brings the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sheaf_runtime::Compute;
use tokio::sync::oneshot;

use super::lane::{Lane, update_both};
use crate::Error;

/// Bytes that can be hashed on another thread.
pub(crate) trait Part: AsRef<[u8]> + Send + Sync + 'static {}

impl<T: AsRef<[u8]> + Send + Sync + 'static> Part for T {}

/// The stage; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    waiting: Arc<Mutex<VecDeque<Waiting>>>,
    pool: Compute,
}

struct Waiting {
    lane: Lane,
    part: Arc<dyn Part>,
    /// Whether its owner does nothing else any more.
    wanted: Arc<AtomicBool>,
    done: oneshot::Sender<Lane>,
}

/// A part that was left at the stage.
pub(crate) struct Left {
    hashed: oneshot::Receiver<Lane>,
    wanted: Arc<AtomicBool>,
    has_partner: bool,
    stage: Stage,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
}

impl Stage {
    /// A stage that hashes on up to `threads` threads at once.
    pub(crate) fn new(threads: usize) -> Stage {
        Stage { waiting: Arc::default(), pool: Compute::new(threads) }
    }

    /// A stage for this machine.
    pub(crate) fn for_this_machine() -> Stage {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Stage::new(cores.div_ceil(2))
    }

    /// Leaves `part` to be taken into `lane`; alone it is not hashed before [`Left::hashed`] is called.
    pub(crate) fn leave(&self, lane: Lane, part: Arc<dyn Part>) -> Left {
        let (done, hashed) = oneshot::channel();
        let wanted = Arc::new(AtomicBool::new(false));
        let mut waiting = self.lock();
        // Whose owner has left is nobody's partner, and its buffer is let go.
        waiting.retain(|other| !other.done.is_closed());
        let has_partner = !waiting.is_empty();
        waiting.push_back(Waiting { lane, part, wanted: Arc::clone(&wanted), done });
        drop(waiting);
        Left { hashed, wanted, has_partner, stage: self.clone() }
    }

    /// Hashes what is waiting; one that is left over and not wanted yet stays.
    fn work(&self) {
        loop {
            let (first, second) = {
                let mut waiting = self.lock();
                match (next(&mut waiting), next(&mut waiting)) {
                    (Some(only), None) if !only.wanted.load(Ordering::SeqCst) => {
                        waiting.push_front(only);
                        return;
                    }
                    taken => taken,
                }
            };
            match (first, second) {
                (Some(first), Some(second)) => pair(first, second),
                (Some(mut only), None) => {
                    only.lane.update((*only.part).as_ref());
                    only.finish();
                }
                (None, _) => return,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
    /// Whether another part was waiting when this one was left: now is the time to have both hashed.
    pub(crate) fn has_partner(&self) -> bool {
        self.has_partner
    }

    /// The lane with the part taken in.
    ///
    /// # Errors
    /// [`Error::Closed`] when the work was cut off.
    /// # Cancel safety
    /// The lane of a dropped call is lost.
    pub(crate) async fn hashed(mut self) -> Result<Lane, Error> {
        // Before the job is brought: the job either finds it wanted, or finds it taken.
        self.wanted.store(true, Ordering::SeqCst);
        if let Ok(lane) = self.hashed.try_recv() {
            return Ok(lane);
        }
        let stage = self.stage.clone();
        let job = self.stage.pool.run(move || stage.work());
        tokio::select! {
            biased;
            // Another caller's job took this part; its own job is not needed.
            hashed = &mut self.hashed => hashed,
            ran = job => {
                ran?;
                self.hashed.await
            }
        }
        .map_err(|_| Error::Closed)
    }
}

impl Waiting {
    fn finish(self) {
        let Waiting { lane, part, done, .. } = self;
        // The part is let go first: who brought it wants its buffer back.
        drop(part);
        // Whoever brought it may have gone away.
        drop(done.send(lane));
    }
}

/// The next part that somebody still waits for.
fn next(waiting: &mut VecDeque<Waiting>) -> Option<Waiting> {
    loop {
        let next = waiting.pop_front()?;
        if !next.done.is_closed() {
            return Some(next);
        }
    }
}

fn pair(mut first: Waiting, mut second: Waiting) {
    update_both(&mut first.lane, (*first.part).as_ref(), &mut second.lane, (*second.part).as_ref());
    first.finish();
    second.finish();
}

#[cfg(test)]
mod tests {
    use sheaf_domain::Digest;
    use sheaf_runtime::TaskScope;

    use super::*;

    async fn hashed(stage: &Stage, parts: Vec<Vec<u8>>) -> Digest {
        let mut lane = Lane::new();
        for part in parts {
            lane = stage.leave(lane, Arc::new(part)).hashed().await.unwrap();
        }
        lane.finish()
    }

    fn parts(seed: usize) -> Vec<Vec<u8>> {
        let part = |idx: usize| vec![(seed + idx).to_le_bytes()[0]; (seed * 977 + idx * 64) % 9_000];
        (0..seed % 5 + 1).map(part).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_messages_at_once_each_get_their_own_digest() {
        for threads in [1, 3] {
            let (stage, scope) = (Stage::new(threads), TaskScope::new());
            let tasks: Vec<_> = (0..64)
                .map(|seed| {
                    let stage = stage.clone();
                    scope.spawn(async move { (seed, hashed(&stage, parts(seed)).await) })
                })
                .collect();
            for task in tasks {
                let (seed, digest) = task.await.unwrap();
                assert_eq!(digest, Digest::of(&parts(seed).concat()), "message {seed}, {threads} threads");
            }
        }
    }

    #[tokio::test]
    async fn a_job_takes_two_that_wait_and_passes_over_who_has_left() {
        let stage = Stage::new(1);
        let bring = |byte: u8| stage.leave(Lane::new(), Arc::new(vec![byte; 200]));
        let (first, gone, second, lone) = (bring(1), bring(2), bring(3), bring(4));
        assert!(!first.has_partner() && second.has_partner());
        drop(gone);
        stage.work();
        assert_eq!(stage.lock().len(), 1, "one that nobody wants yet waits for a partner");
        for (left, byte) in [(first, 1), (second, 3), (lone, 4)] {
            assert_eq!(left.hashed().await.unwrap().finish(), Digest::of(&[byte; 200]));
        }
        assert!(stage.lock().is_empty());
    }

    #[test]
    fn what_is_left_and_given_up_stays_no_longer_than_until_the_next_part() {
        let stage = Stage::new(1);
        for _ in 0..20 {
            let left = stage.leave(Lane::new(), Arc::new(vec![0; 100]));
            assert!(!left.has_partner());
            assert_eq!(stage.lock().len(), 1);
        }
    }

    #[tokio::test]
    async fn a_caller_that_leaves_holds_up_nobody() {
        let stage = Stage::new(1);
        for _ in 0..20 {
            let gone = stage.leave(Lane::new(), Arc::new(vec![0; 100])).hashed();
            tokio::select! {
                biased;
                _ = gone => {}
                () = std::future::ready(()) => {}
            }
            assert_eq!(hashed(&stage, parts(3)).await, Digest::of(&parts(3).concat()));
        }
    }
}
