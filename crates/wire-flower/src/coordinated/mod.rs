//! Runs that a plan drives, worked on by SuperNodes: no ServerApp decides, this server's own engine does.
//!
//! For each node that is there an agent takes work orders as a native participant would, sends them as messages of type `train` and
//! `evaluate` with the records that the stock strategies send, and hands the answers in. It has no state of its own: orders are the engine's,
//! messages the relayed run's beside it.

mod agent;
mod host;
mod models;
mod pursuit;
mod records;
mod reply;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sheaf_coordinator::{Handle, Relays};
use sheaf_domain::{Identity, SiteName};
use sheaf_runtime::{Clock, TaskScope};
use tokio::sync::Semaphore;

pub use host::FlowerApps;

use crate::front::Flower;
use agent::Agent;
use models::Models;
use pursuit::task_of;

/// How often it is looked who is there, beside when somebody comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Answers that are read at once; each holds a piece of an update.
const READING_MAX: usize = 8;
/// How often letters are looked for that nobody waits for, and whose nodes went away.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// Column-major arrays that are held and turned at once.
const CONVERSIONS_MAX: usize = 1;

/// What all agents stand on.
#[derive(Debug)]
struct Works {
    handle: Handle,
    relays: Relays,
    clock: Arc<dyn Clock>,
    /// Who reads the models that all nodes are handed.
    reader: Identity,
    models: Models,
    reading: Semaphore,
    conversions: Semaphore,
}

impl Flower {
    /// Lets SuperNodes work on runs that plans of apps drive, until `scope` is cancelled.
    ///
    /// # Cancel safety
    /// Dropped, nodes get no more work of such runs; nothing is lost.
    pub async fn work_on_plans(self, handle: Handle, scope: TaskScope) {
        let works = Arc::new(Works {
            handle,
            relays: self.relays.clone(),
            clock: Arc::clone(&self.clock),
            reader: self.local_operator().clone(),
            models: Models::default(),
            reading: Semaphore::new(READING_MAX),
            conversions: Semaphore::new(CONVERSIONS_MAX),
        });
        let acting: Arc<Mutex<HashSet<SiteName>>> = Arc::default();
        let mut looked_after = self.clock.monotonic();
        loop {
            if self.clock.monotonic().saturating_sub(looked_after) >= TIDY_EVERY {
                looked_after = self.clock.monotonic();
                works.take_back_stray().await;
            }
            for site in works.relays.online() {
                if let Some(who) = works.relays.identity(&site)
                    && lock(&acting).insert(site.clone())
                {
                    let (agent, acting) = (Agent { works: Arc::clone(&works), who }, Arc::clone(&acting));
                    scope.spawn_until_cancelled(async move {
                        agent.act().await;
                        lock(&acting).remove(&site);
                    });
                }
            }
            tokio::select! {
                biased;
                () = scope.cancelled() => return,
                () = works.relays.somebody_came() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

impl Works {
    /// Takes back letters whose tasks are closed and whose nodes are gone: each keeps a whole model.
    async fn take_back_stray(&self) {
        for (run, site, question) in self.relays.stray() {
            let Some(task) = task_of(&question) else { continue };
            // What cannot be told now is looked at again.
            let closed = self.handle.is_open(&site, task).is_ok_and(|open| !open);
            if closed && let Err(error) = self.relays.take_back(run, question.letter, true).await {
                tracing::debug!(%run, %site, %task, %error, "a letter that nobody waits for stays for now");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
