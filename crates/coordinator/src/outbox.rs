//! Outboxes: per participant, the assignments it has not answered yet, oldest first.
//!
//! Derived from the engines' actions and made anew from them after a restart, so nothing here needs to be stored. An
//! assignment is handed out again and again until it is answered or withdrawn. Bounded by the number of running runs; there are outboxes for
//! enrolled participants only.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sheaf_domain::{Assignment, RunId, SiteName, TaskId, VersionRef};
use tokio::sync::watch;

/// How many withdrawn tasks an outbox remembers, with the reason, for a participant that still works on one.
const WITHDRAWN_MAX: usize = 64;

/// A task taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    /// The assignment.
    pub task: TaskId,
    /// Why, for people.
    pub reason: String,
}

/// Every participant's outbox.
#[derive(Debug, Default)]
pub(crate) struct Outboxes {
    boxes: Mutex<HashMap<SiteName, Arc<Outbox>>>,
}

impl Outboxes {
    pub(crate) fn of(&self, site: &SiteName) -> Arc<Outbox> {
        let mut boxes = lock(&self.boxes);
        if let Some(outbox) = boxes.get(site) {
            return Arc::clone(outbox);
        }
        let outbox = Arc::new(Outbox::new());
        boxes.insert(site.clone(), Arc::clone(&outbox));
        outbox
    }

    /// Takes out whatever of `run` is not among its `assigned` tasks; for a run that was rebuilt.
    pub(crate) fn retain_run(&self, run: RunId, assigned: &BTreeSet<TaskId>) {
        let boxes: Vec<Arc<Outbox>> = lock(&self.boxes).values().cloned().collect();
        for outbox in boxes {
            for assignment in outbox.work(&[]) {
                if assignment.run == run && !assigned.contains(&assignment.task) {
                    outbox.withdraw(assignment.task, "no longer assigned".to_owned());
                }
            }
        }
    }
}

/// One participant's outbox.
#[derive(Debug)]
pub(crate) struct Outbox {
    content: Mutex<Content>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Content {
    next_number: u64,
    work: BTreeMap<u64, Arc<Assignment>>,
    withdrawn: VecDeque<Withdrawn>,
}

impl Outbox {
    fn new() -> Outbox {
        Outbox { content: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Puts an assignment in; one that is there already stays where it is.
    pub(crate) fn assign(&self, assignment: Assignment) {
        let mut content = lock(&self.content);
        if content.work.values().any(|present| present.task == assignment.task) {
            return;
        }
        let number = content.next_number;
        content.next_number += 1;
        content.work.insert(number, Arc::new(assignment));
        drop(content);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Takes an assignment out.
    pub(crate) fn withdraw(&self, task: TaskId, reason: String) {
        let mut content = lock(&self.content);
        content.work.retain(|_, assignment| assignment.task != task);
        if content.withdrawn.len() == WITHDRAWN_MAX {
            content.withdrawn.pop_front();
        }
        content.withdrawn.push_back(Withdrawn { task, reason });
        drop(content);
        self.changed.send_modify(|version| *version += 1);
    }

    /// The assignments not named in `have`, oldest first.
    pub(crate) fn work(&self, have: &[TaskId]) -> Vec<Arc<Assignment>> {
        let content = lock(&self.content);
        content.work.values().filter(|assignment| !have.contains(&assignment.task)).cloned().collect()
    }

    /// Those of `have` that are not to be worked on any more.
    pub(crate) fn withdrawn(&self, have: &[TaskId]) -> Vec<Withdrawn> {
        let content = lock(&self.content);
        let gone = have.iter().filter(|task| !content.work.values().any(|present| present.task == **task));
        gone.map(|task| {
            let known = content.withdrawn.iter().rev().find(|withdrawn| withdrawn.task == *task);
            known
                .cloned()
                .unwrap_or_else(|| Withdrawn { task: *task, reason: "no longer assigned".to_owned() })
        })
        .collect()
    }

    /// Whether one of the assignments hands out `version`.
    pub(crate) fn hands_out(&self, version: &VersionRef) -> bool {
        let content = lock(&self.content);
        content
            .work
            .values()
            .any(|assignment| assignment.inputs.iter().any(|input| input.version == *version))
    }

    /// The tasks in it.
    pub(crate) fn tasks(&self) -> Vec<TaskId> {
        lock(&self.content).work.values().map(|assignment| assignment.task).collect()
    }

    /// A receiver that sees every change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Locks a mutex whose content stays consistent even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
