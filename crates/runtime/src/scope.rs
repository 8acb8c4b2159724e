//! Task scopes: every task belongs to one, can be cancelled through it, and is waited for by it.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A scope of tasks. Clones share it; a child is cancelled with its parent, not the other way round.
#[derive(Debug, Clone, Default)]
pub struct TaskScope {
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl TaskScope {
    /// A scope of its own.
    pub fn new() -> TaskScope {
        TaskScope::default()
    }

    /// A scope that is cancelled with this one, and whose tasks are waited for separately.
    pub fn child(&self) -> TaskScope {
        TaskScope { cancel: self.cancel.child_token(), tasks: TaskTracker::new() }
    }

    /// Starts a task that should end by itself when [`TaskScope::cancelled`] resolves.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Starts a task that is dropped at its next await when the scope is cancelled.
    pub fn spawn_until_cancelled<F>(&self, task: F) -> tokio::task::JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move { cancel.run_until_cancelled_owned(task).await })
    }

    /// Asks every task of the scope and its children to end.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether [`TaskScope::cancel`] was called here or on a parent.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Resolves when the scope is cancelled.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Resolves when every task started so far has ended; no task may be started afterwards.
    ///
    /// # Cancel safety
    /// Safe: it may be called again.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
