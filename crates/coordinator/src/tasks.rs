//! Whose a task is: an index over what was handed out, so that a request about a task need not look through every run.
//!
//! Only a memory aid: what it has forgotten is found by looking through the runs. Bounded, oldest out first.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use sheaf_domain::{RunId, SiteName, TaskId};

use crate::outbox::lock;

/// How many tasks are remembered.
const TASKS_MAX: usize = 262_144;

/// The tasks handed out last.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    known: HashMap<TaskId, (RunId, SiteName)>,
    order: VecDeque<TaskId>,
}

impl Tasks {
    /// Remembers a task.
    pub(crate) fn put(&self, task: TaskId, run: RunId, site: &SiteName) {
        let mut content = lock(&self.0);
        if content.known.insert(task, (run, site.clone())).is_some() {
            return;
        }
        content.order.push_back(task);
        if content.order.len() > TASKS_MAX
            && let Some(oldest) = content.order.pop_front()
        {
            content.known.remove(&oldest);
        }
    }

    /// The run and the participant of a task.
    pub(crate) fn find(&self, task: TaskId) -> Option<(RunId, SiteName)> {
        lock(&self.0).known.get(&task).cloned()
    }
}
