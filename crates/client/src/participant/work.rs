//! One task from its order to the server's answer.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sheaf_domain::{ErrorKind, Metrics, SlotName, SubmitOutcome, TaskId};
use sheaf_messages::{Order, bounds, v1};
use sheaf_runtime::crash::{self, Point};
use sheaf_tensor::ParamSet;
use tokio_util::sync::CancellationToken;

use super::event::Event;
use super::results::{StoredResult, discard};
use super::state::State;
use super::{download, upload};
use crate::Error;

/// What there is to do, with its inputs read and checked.
#[derive(Debug)]
pub struct Job {
    /// The order.
    pub order: Arc<Order>,
    /// The tensors of each input.
    pub inputs: Vec<(SlotName, ParamSet)>,
    /// A directory of this job's own, existing and empty; removed when the work is done.
    pub scratch: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The tensors of each output.
    pub outputs: Vec<(SlotName, ParamSet)>,
    /// The number of examples the result rests on.
    pub num_examples: f64,
    /// Named numbers; all finite.
    pub metrics: Metrics,
}

/// Does the work of a task: what the site has chosen to train with.
#[async_trait]
pub trait Worker: std::fmt::Debug + Send + Sync + 'static {
    /// Refuses an order that this site does not take, before anything is read for it.
    ///
    /// # Errors
    /// The reason, for people; the server is told.
    fn accept(&self, order: &Order) -> Result<(), String>;

    /// Does the work.
    ///
    /// # Errors
    /// The reason, for people; the server is told.
    /// # Cancel safety
    /// Dropped, it must end what it started.
    async fn work(&self, job: Job) -> Result<Done, String>;
}

/// Why a task did not come to an answer.
enum Trouble {
    /// The work itself; the server is to be told.
    Work(String),
    /// The way to the server, or this machine.
    Way(Error),
}

/// Does a task to its end, whatever that is.
pub(crate) async fn run(state: Arc<State>, order: Arc<Order>, cancel: CancellationToken) {
    let task = order.assignment.task;
    state.events.emit(Event::Started { order: Arc::clone(&order) });
    let done = match cancel.run_until_cancelled(result_of(&state, &order)).await {
        Some(Ok(result)) => hand_in_to_the_end(&state, &result).await,
        Some(Err(trouble)) => Some(Err(trouble)),
        None => None,
    };
    finish(&state, task, done).await;
}

/// Begins to hand in the results that an outage kept back. Their orders need not come again: a run may have ended meanwhile,
/// and only the server can say that a result is of no use.
pub(crate) fn resume_kept(state: &Arc<State>) {
    for task in state.kept() {
        // Under way already means that its order did come again.
        if state.begin(task).is_none() {
            continue;
        }
        match StoredResult::load(&state.home.task_dir(task)) {
            Some(result) => {
                state.scope.spawn(resume(Arc::clone(state), result));
            }
            None => state.forget(task),
        }
    }
}

/// Hands in a result of an earlier process, or of this one from before an outage.
pub(crate) async fn resume(state: Arc<State>, result: StoredResult) {
    let task = result.task();
    state.events.emit(Event::Resumed { task });
    let done = hand_in_to_the_end(&state, &result).await;
    finish(&state, task, done).await;
}

/// Hands a result in unless the participant is to end. That the task was withdrawn does not end it: the server may have taken
/// the result a moment ago, and what it answers to the result is what counts.
async fn hand_in_to_the_end(state: &State, result: &StoredResult) -> Option<Result<SubmitOutcome, Trouble>> {
    let handed = state.stop.run_until_cancelled(hand_in(state, result)).await;
    handed.map(|handed| handed.map_err(Trouble::Way))
}

/// The result of an order: one that is there, or that of the work.
async fn result_of(state: &State, order: &Arc<Order>) -> Result<StoredResult, Trouble> {
    let task = order.assignment.task;
    // An attempt that was cut short by the network may have left its result.
    if let Some(stored) = StoredResult::load(&state.home.task_dir(task)) {
        return Ok(stored);
    }
    state.worker.accept(order).map_err(Trouble::Work)?;
    let transport = state.link.transport();
    let mut inputs = Vec::with_capacity(order.inputs.len());
    for filled in &order.inputs {
        let (retry, compute) = (&state.retry, &state.compute);
        let read = download::input(&*transport, retry, compute, &state.cache, filled).await;
        inputs.push((filled.input.slot.clone(), read.map_err(Trouble::Way)?));
    }
    state.events.emit(Event::Training { order: Arc::clone(order) });
    let dir = state.home.task_dir(task);
    discard(&dir);
    let scratch = dir.join("scratch");
    std::fs::create_dir_all(&scratch).map_err(Error::file("create", &scratch)).map_err(Trouble::Way)?;
    let job = Job { order: Arc::clone(order), inputs, scratch: scratch.clone() };
    let done = state.worker.work(job).await.map_err(Trouble::Work)?;
    check(&done).map_err(Trouble::Work)?;
    let store = move || {
        let stored = StoredResult::store(&dir, task, &done.outputs, done.num_examples, done.metrics);
        discard(&scratch);
        stored
    };
    let stored = state.compute.run(store).await;
    crash::reached(Point::ResultStored);
    let stored = stored.map_err(|error| Trouble::Way(Error::Internal(error.to_string())))?;
    stored.map_err(Trouble::Way)
}

async fn hand_in(state: &State, result: &StoredResult) -> Result<SubmitOutcome, Error> {
    let task = result.task();
    state.events.emit(Event::HandingIn { task, bytes: result.byte_len() });
    let transport = state.link.transport();
    let dir = state.home.task_dir(task);
    let handed = upload::hand_in(&*transport, &state.retry, &state.compute, result, &dir).await;
    handed.map(|(outcome, _)| outcome)
}

/// JSON has no form for NaN and infinities, and the server refuses them: better said here, where the reason is.
fn check(done: &Done) -> Result<(), String> {
    if !done.num_examples.is_finite() {
        return Err(format!("the trainer's num_examples of {} is not a finite number", done.num_examples));
    }
    match done.metrics.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => {
            Err(format!("the trainer's metric {name:?} of {value} is not a finite number"))
        }
        None => Ok(()),
    }
}

async fn finish(state: &State, task: TaskId, done: Option<Result<SubmitOutcome, Trouble>>) {
    let dir = state.home.task_dir(task);
    match done {
        Some(Ok(outcome)) => {
            crash::reached(Point::ResultAnswered);
            discard(&dir);
            state.events.emit(Event::Answered { task, outcome });
        }
        Some(Err(Trouble::Work(reason))) => {
            discard(&dir);
            fail(state, task, reason).await;
        }
        Some(Err(Trouble::Way(error))) => trouble_on_the_way(state, task, &error).await,
        // Withdrawn: what there is of it is of no use. At shutdown it is kept for the next start.
        None if !state.stop.is_cancelled() => discard(&dir),
        None => {}
    }
    state.forget(task);
}

async fn trouble_on_the_way(state: &State, task: TaskId, error: &Error) {
    match error.kind() {
        // The task is gone on the server's side.
        ErrorKind::NotFound | ErrorKind::Conflict => {
            discard(&state.home.task_dir(task));
            state.events.emit(Event::Failed { task, reason: error.to_string() });
        }
        // The server has not answered for it; when it answers again, or the order comes again, the result is here.
        kind if kind.is_transient()
            || matches!(kind, ErrorKind::PermissionDenied | ErrorKind::Unauthenticated) =>
        {
            keep(state, task);
            state.events.emit(Event::Failed { task, reason: error.to_string() });
        }
        _ => {
            discard(&state.home.task_dir(task));
            fail(state, task, error.to_string()).await;
        }
    }
}

/// Keeps a whole result for later. There is none yet if the inputs could not be read.
fn keep(state: &State, task: TaskId) {
    let dir = state.home.task_dir(task);
    match StoredResult::load(&dir) {
        Some(_) => state.keep(task),
        None => discard(&dir),
    }
}

async fn fail(state: &State, task: TaskId, reason: String) {
    let reason = cut(reason);
    state.events.emit(Event::Failed { task, reason: reason.clone() });
    let request = v1::FailRequest { task: task.to_string(), reason };
    let transport = state.link.transport();
    let told = state.stop.run_until_cancelled(state.retry.run(|| transport.fail(request.clone()))).await;
    if let Some(Err(error)) = told {
        tracing::warn!(%task, %error, "the server could not be told that a task failed");
    }
}

/// Cuts a reason to what a message may carry, at a character's edge.
fn cut(mut reason: String) -> String {
    let mut end = reason.len().min(bounds::REASON_LEN_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let cut = cut("é".repeat(bounds::REASON_LEN_MAX));
        assert_eq!(cut.len(), bounds::REASON_LEN_MAX);
        assert!(cut.chars().all(|char| char == 'é'));
    }

    #[test]
    fn numbers_that_are_none_are_the_trainers_fault() {
        let done = |num_examples: f64, loss: f64| Done {
            outputs: Vec::new(),
            num_examples,
            metrics: Metrics::from([("loss".to_owned(), loss)]),
        };
        assert!(check(&done(1.0, 0.5)).is_ok());
        assert!(check(&done(f64::NAN, 0.5)).unwrap_err().contains("num_examples"));
        assert!(check(&done(1.0, f64::INFINITY)).unwrap_err().contains("loss"));
    }
}
