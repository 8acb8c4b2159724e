//! What becomes of an assignment: a submission that counts, a refusal, a failure. Each task counts at most once.

use sheaf_domain::{Metrics, Refusal, SiteName, SubmittedSlot, TaskId};

use crate::action::Action;
use crate::apply::bounded;
use crate::event::Rejected;
use crate::stage::{AcceptedSubmission, SeatState, StageRun, StageState};
use crate::state::{RunState, TaskFate};

impl RunState {
    pub(crate) fn submitted(
        &mut self,
        task: TaskId,
        site: &SiteName,
        slots: &[SubmittedSlot],
        num_examples: f64,
        metrics: &Metrics,
        actions: &mut Vec<Action>,
    ) -> Result<(), Rejected> {
        let stage_idx = self.open_stage_of(task, site)?;
        check_numbers(num_examples, metrics)?;
        let stage = self.stages.get_mut(stage_idx).ok_or(Rejected::UnknownTask)?;
        let seat = stage.seats.get_mut(site).ok_or(Rejected::UnknownTask)?;
        seat.state = SeatState::Accepted;
        let submission =
            AcceptedSubmission { task, slots: slots.to_vec(), num_examples, metrics: metrics.clone() };
        stage.accepted.insert(site.clone(), submission);
        if let Some(facts) = self.tasks.get_mut(&task) {
            facts.fate = TaskFate::Accepted;
        }
        let facts = self.sites.entry(site.clone()).or_default();
        facts.accepted = facts.accepted.saturating_add(1);
        // The outbox forgets the assignment; the participant is not told, it knows.
        actions.push(Action::Withdraw { site: site.clone(), task, reason: "accepted".to_owned() });
        Ok(())
    }

    pub(crate) fn refused(
        &mut self,
        task: TaskId,
        site: &SiteName,
        refusal: &Refusal,
        actions: &mut Vec<Action>,
    ) -> Result<(), Rejected> {
        self.attempt_over(task, site, &format!("refused: {refusal}"), actions)?;
        let facts = self.sites.entry(site.clone()).or_default();
        facts.refused = facts.refused.saturating_add(1);
        Ok(())
    }

    /// Ends an attempt that came to nothing; the participant tries again as often as it may.
    pub(crate) fn attempt_over(
        &mut self,
        task: TaskId,
        site: &SiteName,
        reason: &str,
        actions: &mut Vec<Action>,
    ) -> Result<(), Rejected> {
        let stage_idx = self.open_stage_of(task, site)?;
        let attempts = self.attempts();
        let reason = bounded(reason);
        let stage = self.stages.get_mut(stage_idx).ok_or(Rejected::UnknownTask)?;
        let seat = stage.seats.get_mut(site).ok_or(Rejected::UnknownTask)?;
        let tries = stage.tries.entry(site.clone()).or_default();
        tries.failed = tries.failed.saturating_add(1);
        let again = tries.failed < attempts;
        seat.state = SeatState::GivenUp {
            reason: match tries.failed {
                1 => format!("its attempt failed: {reason}"),
                failed => format!("{failed} attempts failed, the last: {reason}"),
            },
        };
        self.sites.entry(site.clone()).or_default().last_error = Some(reason.clone());
        self.close_task(task, &reason, actions);
        if again {
            self.give_seat(stage_idx, site, actions);
        }
        self.fill_seats(actions);
        Ok(())
    }

    /// The stage in which `task` of `site` is open.
    fn open_stage_of(&self, task: TaskId, site: &SiteName) -> Result<usize, Rejected> {
        let facts = self.tasks.get(&task).filter(|facts| facts.site == *site).ok_or(Rejected::UnknownTask)?;
        match &facts.fate {
            TaskFate::Open => {}
            TaskFate::Accepted => return Err(Rejected::Closed("it was accepted already".to_owned())),
            TaskFate::Closed(reason) => return Err(Rejected::Closed(reason.clone())),
        }
        self.check_running()?;
        let holds_it = |stage: &StageRun| {
            stage.spec.name == facts.key.stage
                && stage.state == StageState::Collecting
                && stage.seats.get(site).is_some_and(|seat| seat.task == task && seat.is_open())
        };
        let found = self.stages.iter().position(holds_it).filter(|_| facts.key.round == self.round);
        found.ok_or(Rejected::UnknownTask)
    }
}

fn check_numbers(num_examples: f64, metrics: &Metrics) -> Result<(), Rejected> {
    if !(num_examples.is_finite() && num_examples > 0.0) {
        return Err(Rejected::Malformed(format!("a weight of {num_examples}")));
    }
    match metrics.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Err(Rejected::Malformed(format!("metric {name:?} is {value}"))),
        None => Ok(()),
    }
}
