//! One stage of one round while it is open: its seats, what is in, and when it may close.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sheaf_domain::{
    Arithmetic, CloseRule, Digest, InputSlot, LineageName, Manifest, Metrics, Missing, OutputSlot, Selector,
    SiteName, StageSpec, SubmittedSlot, TaskId, Timestamp, Wait,
};

use crate::select::share_of;

/// A stage that has started.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StageRun {
    pub(crate) spec: StageSpec,
    pub(crate) started_at: Timestamp,
    pub(crate) state: StageState,
    /// The cohort: one seat a participant. A seat may change hands; only a revoked participant's may go.
    pub(crate) seats: BTreeMap<SiteName, Seat>,
    /// What each participant has tried in this stage, also those that gave their seat up.
    pub(crate) tries: BTreeMap<SiteName, Tries>,
    /// What its assignments hand out, fixed when it started.
    pub(crate) inputs: Vec<InputSlot>,
    /// What its assignments ask for, fixed when it started.
    pub(crate) outputs: Vec<OutputSlot>,
    pub(crate) accepted: BTreeMap<SiteName, AcceptedSubmission>,
    /// The versions its folds stand on, fixed when it closed.
    pub(crate) base: BTreeMap<LineageName, (u32, Arc<Manifest>, Digest)>,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) deadline_passed: bool,
}

/// How far a stage has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StageState {
    Collecting,
    Folding,
    FoldRetry { reason: String },
    Closed,
}

/// A participant's place in a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) state: SeatState,
}

/// What a participant is doing in a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SeatState {
    /// It has the task.
    Working,
    /// It has the task and is not there; it may come back.
    Lost { reason: String },
    /// It may not come back; another participant may take the seat.
    Vacant { reason: String },
    /// It has handed in.
    Accepted,
    /// It has tried as often as it may.
    GivenUp { reason: String },
    /// The stage closed without it.
    TooLate,
}

impl Seat {
    /// Whether its task is open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, SeatState::Working | SeatState::Lost { .. })
    }
}

/// How often a participant was given a task in a stage, and how often that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tries {
    pub(crate) given: u32,
    pub(crate) failed: u32,
}

/// A submission that counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AcceptedSubmission {
    pub(crate) task: TaskId,
    pub(crate) slots: Vec<SubmittedSlot>,
    pub(crate) num_examples: f64,
    pub(crate) metrics: Metrics,
}

/// Whether a stage may close now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closing {
    NotYet,
    Now,
    /// It can never close; why.
    Never(String),
}

impl StageRun {
    /// The cohort's size.
    pub(crate) fn cohort(&self) -> u32 {
        count(self.seats.len())
    }

    /// How small the cohort may become when participants are revoked.
    pub(crate) fn least_cohort(&self) -> u32 {
        match &self.spec.selector {
            Selector::Sample { min, .. } => (*min).max(1),
            _ => 1,
        }
    }

    /// Whether another participant may take a seat of it.
    pub(crate) fn seats_change_hands(&self) -> bool {
        matches!(self.spec.selector, Selector::Sample { .. } | Selector::One)
    }

    /// Whether it closes with the stages beside it, and not by itself.
    pub(crate) fn closes_together(&self) -> bool {
        matches!(self.spec.close, CloseRule::Together { .. })
    }

    /// How many submissions close the stage before its deadline: the share asked for, and never fewer than `min`.
    pub(crate) fn needed(&self) -> u32 {
        match &self.spec.close {
            CloseRule::Quorum { share, .. } | CloseRule::Together { share, .. } => {
                share_of(*share, self.cohort()).max(self.needed_late())
            }
            _ => self.cohort().max(1),
        }
    }

    /// How many submissions close the stage once its deadline has passed: `min`, or all of a smaller cohort.
    pub(crate) fn needed_late(&self) -> u32 {
        match &self.spec.close {
            CloseRule::Quorum { min, .. } | CloseRule::Together { min, .. } => {
                (*min).min(self.cohort()).max(1)
            }
            _ => self.needed(),
        }
    }

    /// Whether the stage may close now.
    pub(crate) fn closing(&self) -> Closing {
        let accepted = count(self.accepted.len());
        if accepted >= self.needed() || (self.deadline_passed && accepted >= self.needed_late()) {
            return Closing::Now;
        }
        let may_come = |seat: &&Seat| seat.is_open() || matches!(seat.state, SeatState::Vacant { .. });
        let can_come = count(self.seats.values().filter(may_come).count());
        let possible = accepted.saturating_add(can_come);
        let enough_with_deadline = self.deadline.is_some() && possible >= self.needed_late();
        if possible >= self.needed() || (enough_with_deadline && can_come > 0) {
            return Closing::NotYet;
        }
        if enough_with_deadline {
            // Nobody else can hand in, so there is nothing to wait for until the deadline.
            return Closing::Now;
        }
        Closing::Never(self.why_never(accepted, possible))
    }

    fn why_never(&self, accepted: u32, possible: u32) -> String {
        let reasons: Vec<String> = self
            .seats
            .iter()
            .filter_map(|(site, seat)| match &seat.state {
                SeatState::GivenUp { reason } => Some(format!("{site}: {reason}")),
                _ => None,
            })
            .take(5)
            .collect();
        let reasons = match reasons.is_empty() {
            true => "nobody of its cohort is left".to_owned(),
            false => reasons.join("; "),
        };
        let needed = if self.deadline.is_some() { self.needed_late() } else { self.needed() };
        let name = &self.spec.name;
        format!(
            "stage {name} needs {needed} submissions, has {accepted} and can get at most {possible} ({reasons})"
        )
    }

    /// What the stage waits for, if it does.
    pub(crate) fn wait(&self) -> Option<Wait> {
        let stage = self.spec.name.clone();
        match &self.state {
            StageState::Closed => None,
            StageState::Folding => Some(Wait::Fold { stage }),
            StageState::FoldRetry { reason } => Some(Wait::FoldRetry { stage, reason: reason.clone() }),
            StageState::Collecting => Some(Wait::Submissions {
                stage,
                accepted: count(self.accepted.len()),
                needed: if self.deadline_passed { self.needed_late() } else { self.needed() },
                missing: self.missing(),
                deadline: self.deadline,
            }),
        }
    }

    fn missing(&self) -> Vec<Missing> {
        self.seats
            .iter()
            .filter_map(|(site, seat)| {
                let state = match &seat.state {
                    SeatState::Accepted => return None,
                    SeatState::Working if seat.attempt > 1 => format!("working, attempt {}", seat.attempt),
                    SeatState::Working => "working".to_owned(),
                    SeatState::Lost { reason } => format!("lost: {reason}"),
                    SeatState::Vacant { reason } => format!("to be replaced: {reason}"),
                    SeatState::GivenUp { reason } => format!("given up: {reason}"),
                    SeatState::TooLate => "too late".to_owned(),
                };
                Some(Missing { site: site.clone(), state })
            })
            .collect()
    }

    /// Means of the metrics that every accepted submission has, weighted by examples, in canonical order; always finite.
    pub(crate) fn mean_metrics(&self) -> Metrics {
        let mut names: Option<BTreeSet<&String>> = None;
        for submission in self.accepted.values() {
            let own: BTreeSet<&String> = submission.metrics.keys().collect();
            names = Some(match names {
                None => own,
                Some(common) => common.intersection(&own).copied().collect(),
            });
        }
        let means = names.unwrap_or_default().into_iter().map(|name| (name.clone(), self.mean_metric(name)));
        means.filter(|(_, mean)| mean.is_finite()).collect()
    }

    fn mean_metric(&self, name: &str) -> f64 {
        if self.spec.arithmetic == Arithmetic::Single {
            return self.mean_in_single(name);
        }
        let total = self.num_examples();
        let of = |submission: &AcceptedSubmission| {
            let value = submission.metrics.get(name).copied()?;
            Some((value, submission.num_examples))
        };
        let mean =
            self.accepted.values().filter_map(of).map(|(value, weight)| value * weight).sum::<f64>() / total;
        if mean.is_finite() {
            return mean;
        }
        // Finite values may have a sum that is not; shares of them do not grow.
        self.accepted.values().filter_map(of).map(|(value, weight)| value * (weight / total)).sum()
    }

    /// The mean as [`Arithmetic::Single`] says; metrics that came as float32 are so still.
    #[expect(clippy::cast_possible_truncation, reason = "rounding to float32 is what is asked for")]
    fn mean_in_single(&self, name: &str) -> f64 {
        let total = self.num_examples();
        let (mut sum, mut weights) = (0.0_f32, 0.0_f64);
        for submission in self.accepted.values() {
            let weight = submission.num_examples / total;
            weights += weight;
            sum += submission.metrics.get(name).copied().unwrap_or_default() as f32 * weight as f32;
        }
        f64::from(sum / weights as f32)
    }

    /// Sum of the accepted submissions' examples.
    pub(crate) fn num_examples(&self) -> f64 {
        self.accepted.values().map(|submission| submission.num_examples).sum::<f64>().min(f64::MAX)
    }

    /// Bytes of model the accepted submissions refer to.
    pub(crate) fn bytes(&self) -> u64 {
        self.accepted
            .values()
            .flat_map(|submission| &submission.slots)
            .map(|slot| slot.manifest.byte_len())
            .fold(0, u64::saturating_add)
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
