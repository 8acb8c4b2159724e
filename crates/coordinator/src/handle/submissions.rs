//! Submissions: through the gate, into the journal, then acknowledged.

use sheaf_domain::{Identity, Refusal, Role, RunId, Submission, SubmitOutcome, TaskId};
use sheaf_engine::{Event, TaskStanding};
use sheaf_runtime::crash::{self, Point};
use sheaf_telemetry::names;
use tokio::sync::oneshot;

use crate::command::Command;
use crate::incidents::Kind;
use crate::{Error, Handle, gate};

/// The longest reason of a failure kept, in characters.
const REASON_LEN_MAX: usize = 500;

impl Handle {
    /// Hands in the result of a task. Accepted means durable; repeated calls count once.
    ///
    /// # Errors
    /// Not found for an unknown task or another participant's; unavailable when nothing can be made durable now. Refusals that
    /// the protocol foresees are outcomes, not errors.
    /// # Cancel safety
    /// A dropped call may still be accepted; calling again then answers that it is a duplicate.
    pub async fn submit(&self, who: &Identity, submission: Submission) -> Result<SubmitOutcome, Error> {
        self.authorise(who, Role::Participant)?;
        self.touch(&who.name, None).await?;
        let task = submission.task;
        let (run, standing) = self.find_task(&who.name, task)?;
        if let TaskStanding::Open(assignment) = &standing {
            let gate = self.shared.gates.acquire().await.map_err(|_| Error::shutting_down())?;
            let examples_max = self.shared.with_run(run, |state| state.plan().cohort.examples_max)?;
            let checked = gate::check(&self.shared, assignment, &submission, examples_max).await;
            drop(gate);
            match checked {
                Ok(Ok(())) => crash::reached(Point::GatePassed),
                Ok(Err(refusal)) => return self.refuse(who, run, task, refusal).await,
                // Its bytes may have been freed because it closed while they were read.
                Err(error) => return self.closed_outcome(who, task).await?.ok_or(error).map(counted),
            }
        }
        // Also a repetition goes through the writer: it is told so only once the first is durable.
        let (reply, answer) = oneshot::channel();
        let (site, submission) = (who.name.clone(), Box::new(submission));
        self.shared.send(Command::Submit { run, site, submission, reply }).await?;
        answer.await.map_err(|_| Error::shutting_down())?.map(counted)
    }

    /// Refuses what was sent as the result of a task and cannot be read as one: the attempt ends as with any other refusal.
    ///
    /// # Errors
    /// As [`Handle::submit`].
    /// # Cancel safety
    /// A dropped call may still end the attempt.
    pub async fn refuse_malformed(
        &self,
        who: &Identity,
        task: TaskId,
        message: &str,
    ) -> Result<SubmitOutcome, Error> {
        self.refuse_with(who, task, Refusal::Malformed { message: told(message) }).await
    }

    /// Refuses a result for what its front-end found while it read it: the attempt ends as when the gate finds it.
    ///
    /// # Errors
    /// As [`Handle::submit`].
    /// # Cancel safety
    /// A dropped call may still end the attempt.
    pub async fn refuse_with(
        &self,
        who: &Identity,
        task: TaskId,
        refusal: Refusal,
    ) -> Result<SubmitOutcome, Error> {
        self.authorise(who, Role::Participant)?;
        self.touch(&who.name, None).await?;
        let (run, standing) = self.find_task(&who.name, task)?;
        if !matches!(standing, TaskStanding::Open(_)) {
            let closed = self.closed_outcome(who, task).await?;
            return closed.ok_or_else(|| Error::not_found("no such task")).map(counted);
        }
        self.refuse(who, run, task, refusal).await
    }

    /// Notes a message of a participant that could not be read and belongs to no task of its own.
    pub fn note_malformed(&self, who: &Identity, message: &str) {
        if self.authorise(who, Role::Participant).is_ok() {
            let text = format!("a message was refused: {}", told(message));
            tracing::warn!(site = %who.name, text, "a message cannot be read");
            self.shared.incident(&who.name, Kind::MessageRefused, None, &text);
        }
    }

    async fn refuse(
        &self,
        who: &Identity,
        run: RunId,
        task: TaskId,
        refusal: Refusal,
    ) -> Result<SubmitOutcome, Error> {
        tracing::warn!(%run, site = %who.name, %task, %refusal, "submission refused");
        let event = Event::Refused { task, site: who.name.clone(), refusal: refusal.clone() };
        match self.journal_event(run, event).await {
            Ok(()) => Ok(counted(SubmitOutcome::Refused { refusal })),
            // The task closed, or another submission of it came through, while this one was read.
            Err(error) if !error.is_transient() => {
                self.closed_outcome(who, task).await?.ok_or(error).map(counted)
            }
            Err(error) => Err(error),
        }
    }

    /// What a submission of a task that is no longer open comes to; nothing while it is open. Only what is durable is told.
    async fn closed_outcome(&self, who: &Identity, task: TaskId) -> Result<Option<SubmitOutcome>, Error> {
        let (run, _) = self.find_task(&who.name, task)?;
        let site = who.name.clone();
        Ok(match self.look_at(run, move |state| state.task(task, &site)).await? {
            TaskStanding::Accepted => Some(SubmitOutcome::Duplicate),
            TaskStanding::Closed(reason) => Some(SubmitOutcome::TooLate { reason }),
            _ => None,
        })
    }

    /// Reports that a task could not be done.
    ///
    /// # Errors
    /// Not found or conflict for the task.
    /// # Cancel safety
    /// A dropped call may still be journalled.
    pub async fn fail(&self, who: &Identity, task: TaskId, reason: String) -> Result<(), Error> {
        let (run, _) = self.open_task(who, task).await?;
        self.touch(&who.name, None).await?;
        let reason = told(&reason);
        let reason = if reason.trim().is_empty() { "no reason given".to_owned() } else { reason };
        tracing::warn!(%run, site = %who.name, %task, reason, "task failed at its site");
        self.journal_event(run, Event::Failed { task, site: who.name.clone(), reason }).await
    }

    /// Journals an event of a run and waits until it is durable and applied.
    pub(crate) async fn journal_event(&self, run: RunId, event: Event) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.shared.send(Command::Event { run, event: Box::new(event), reply: Some(reply) }).await?;
        answer.await.map_err(|_| Error::shutting_down())?
    }
}

/// What a peer said, as it may be kept and shown.
fn told(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').take(REASON_LEN_MAX).collect()
}

/// Counts an outcome on its way out.
fn counted(outcome: SubmitOutcome) -> SubmitOutcome {
    let label = match &outcome {
        SubmitOutcome::Accepted => "accepted",
        SubmitOutcome::Duplicate => "duplicate",
        SubmitOutcome::TooLate { .. } => "too_late",
        SubmitOutcome::Refused { .. } => "refused",
    };
    metrics::counter!(names::SUBMISSIONS_TOTAL, "outcome" => label).increment(1);
    outcome
}
