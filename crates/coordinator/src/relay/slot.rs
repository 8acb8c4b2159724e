//! A relayed run in memory, and who waits for news of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sheaf_domain::RunId;
use sheaf_relay::Relay;
use tokio::sync::{Semaphore, watch};

use super::logbook::Logbook;
use super::objects::INTAKES_MAX;
use crate::Error;
use crate::outbox::lock;

/// Every relayed run.
#[derive(Debug, Default)]
pub(super) struct Slots(RwLock<BTreeMap<RunId, Arc<Slot>>>);

impl Slots {
    pub(super) fn get(&self, run: RunId) -> Option<Arc<Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&run).cloned()
    }

    pub(super) fn put(&self, slot: Arc<Slot>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(slot.run, slot);
    }

    pub(super) fn remove(&self, run: RunId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        let mut all: Vec<_> =
            self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by_key(|slot| (slot.created_at, slot.run));
        all
    }
}

/// Runs whose journals are broken; nothing else is known of them.
#[derive(Debug, Default)]
pub(super) struct Broken(RwLock<BTreeSet<RunId>>);

impl Broken {
    pub(super) fn put(&self, run: RunId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(run);
    }

    pub(super) fn forget(&self, run: RunId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    pub(super) fn has(&self, run: RunId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&run)
    }

    pub(super) fn all(&self) -> BTreeSet<RunId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A relayed run in memory.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) run: RunId,
    pub(super) created_at: sheaf_domain::Timestamp,
    state: Mutex<Relay>,
    /// While set, the state may be ahead of the journal and nobody is told about it.
    stale: AtomicBool,
    /// What runs out when nobody shows life; begun anew after a restart.
    pub(super) pulse: Mutex<Pulse>,
    /// Grows with whatever the application may wait for.
    pub(super) changed: watch::Sender<u64>,
    pub(super) log: Logbook,
    /// Shared by intakes that end; all of it is taken by whoever frees bytes.
    pub(super) gate: Semaphore,
}

/// Deadlines on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    pub(super) application: Option<Duration>,
    pub(super) uploads: HashMap<String, Duration>,
}

impl Slot {
    pub(super) fn new(state: Relay, log: Logbook) -> Slot {
        let (run, created_at) = (state.run(), state.application().pending_at);
        Slot {
            run,
            created_at,
            state: Mutex::new(state),
            stale: AtomicBool::new(false),
            pulse: Mutex::default(),
            changed: watch::Sender::new(0),
            log,
            gate: Semaphore::new(INTAKES_MAX as usize),
        }
    }

    /// Reads something off the run.
    ///
    /// # Errors
    /// Unavailable while the run is being rebuilt from its journal.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Relay) -> T) -> Result<T, Error> {
        self.change(|state| read(state))
    }

    /// Changes the run in memory only.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Relay) -> T) -> Result<T, Error> {
        let mut state = lock(&self.state);
        if self.stale.load(Ordering::SeqCst) {
            return Err(Error::unavailable(format!("run {} is being rebuilt from its journal", self.run)));
        }
        Ok(change(&mut state))
    }

    pub(super) fn set_stale(&self) {
        let _state = lock(&self.state);
        self.stale.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::SeqCst)
    }

    /// Puts what the journal and the holds say in place.
    pub(super) fn replace(&self, rebuilt: Relay) {
        *lock(&self.state) = rebuilt;
    }

    /// Says that the state is what journal and holds say.
    pub(super) fn set_fresh(&self) {
        self.stale.store(false, Ordering::SeqCst);
        self.news();
    }

    /// Changes the state that is being rebuilt.
    pub(super) fn rebuild<T>(&self, change: impl FnOnce(&mut Relay) -> T) -> T {
        change(&mut lock(&self.state))
    }

    /// Wakes whoever waits for news of the run.
    pub(super) fn news(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}
