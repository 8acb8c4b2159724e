//! What the parts of a running participant share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use sheaf_domain::TaskId;
use sheaf_messages::Withdrawal;
use sheaf_runtime::{Clock, Compute, TaskScope};
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::download::ModelCache;
use super::event::{Event, EventSink};
use super::home::Home;
use super::link::Link;
use crate::Error;
use crate::transport::Retry;

/// Shared by the loop, the beats, the renewals and the tasks.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) link: Link,
    pub(crate) home: Home,
    pub(crate) retry: Retry,
    pub(crate) compute: Compute,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) cache: ModelCache,
    pub(crate) events: EventSink,
    pub(crate) scope: TaskScope,
    /// Cancelled when the participant is to end, for whatever reason.
    pub(crate) stop: CancellationToken,
    tasks: Mutex<BTreeMap<TaskId, CancellationToken>>,
    /// Results that could not be handed in; none of them is under way.
    kept: Mutex<BTreeSet<TaskId>>,
    ended_by: Mutex<Option<Error>>,
    connected: Mutex<Option<bool>>,
}

/// What [`State`] is made from.
pub(crate) struct Parts {
    pub(crate) link: Link,
    pub(crate) home: Home,
    pub(crate) retry: Retry,
    pub(crate) compute: Compute,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) events: EventSink,
}

impl State {
    /// The state of a participant that has begun nothing yet.
    pub(crate) fn new(parts: Parts) -> State {
        let Parts { link, home, retry, compute, clock, worker, events } = parts;
        State {
            link,
            home,
            retry,
            compute,
            clock,
            worker,
            cache: ModelCache::default(),
            events,
            scope: TaskScope::new(),
            stop: CancellationToken::new(),
            tasks: Mutex::default(),
            kept: Mutex::default(),
            ended_by: Mutex::default(),
            connected: Mutex::default(),
        }
    }

    /// The tasks under way.
    pub(crate) fn tasks(&self) -> Vec<TaskId> {
        lock(&self.tasks).keys().copied().collect()
    }

    /// Notes a task as under way, unless it is already.
    pub(crate) fn begin(&self, task: TaskId) -> Option<CancellationToken> {
        let mut tasks = lock(&self.tasks);
        if tasks.contains_key(&task) {
            return None;
        }
        let cancel = self.stop.child_token();
        tasks.insert(task, cancel.clone());
        lock(&self.kept).remove(&task);
        Some(cancel)
    }

    /// Notes a task as no longer under way.
    pub(crate) fn forget(&self, task: TaskId) {
        lock(&self.tasks).remove(&task);
    }

    /// Notes that a task's result waits for the server's next answer; to be called while the task is under way.
    pub(crate) fn keep(&self, task: TaskId) {
        lock(&self.kept).insert(task);
    }

    /// The tasks whose results wait.
    pub(crate) fn kept(&self) -> Vec<TaskId> {
        lock(&self.kept).iter().copied().collect()
    }

    /// Ends what is no longer wanted.
    pub(crate) fn withdraw(&self, withdrawn: Withdrawal) {
        let Withdrawal { task, reason } = withdrawn;
        let cancel = lock(&self.tasks).get(&task).cloned();
        if let Some(cancel) = cancel
            && !cancel.is_cancelled()
        {
            cancel.cancel();
            self.events.emit(Event::Withdrawn { task, reason });
        }
    }

    /// Notes that the server answers.
    pub(crate) fn answered(&self) {
        if lock(&self.connected).replace(true) != Some(true) {
            self.events.emit(Event::Connected);
        }
    }

    /// Notes that the server does not answer, and turns to its next address.
    pub(crate) fn unanswered(&self, error: &Error) {
        if lock(&self.connected).replace(false) != Some(false) {
            self.events.emit(Event::Disconnected { reason: error.to_string() });
        }
        if let Err(error) = self.link.try_next_server() {
            tracing::warn!(%error, "the server's other addresses cannot be used");
        }
    }

    /// Ends the participant for good.
    pub(crate) fn end(&self, error: Error) {
        lock(&self.ended_by).get_or_insert(error);
        self.stop.cancel();
    }

    /// Why the participant ended by itself, if it did.
    pub(crate) fn ended_by(&self) -> Option<Error> {
        lock(&self.ended_by).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
