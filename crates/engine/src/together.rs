//! Stages that close together, participant by participant: whoever has handed in all of its work in any of them is done, and when enough are,
//! all of them close with what those handed in.
//!
//! Invariant: what somebody handed in who was not done when they closed counts in none of them.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_domain::{CloseRule, SiteName, StageStart, TaskId, Timestamp};

use crate::action::Action;
use crate::select::share_of;
use crate::stage::{Closing, Seat, SeatState, StageRun, StageState};
use crate::state::RunState;

/// How far a participant has come with its work in all of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It can never be done.
    Out,
    /// It may be.
    Expected,
    /// It is.
    Done,
}

impl RunState {
    /// Whether the stages that close together may close now.
    pub(crate) fn closing_together(&self) -> Closing {
        let Some((share, min)) = self.together().find_map(rule) else { return Closing::NotYet };
        let is_to_come = |start| start == StageStart::WithPrevious;
        if self.due.front().is_some_and(|spec| is_to_come(spec.start)) {
            // It belongs to them and has not begun.
            return Closing::NotYet;
        }
        let standings = self.standings();
        let count = |wanted: Standing| {
            u32::try_from(standings.values().filter(|standing| **standing == wanted).count())
                .unwrap_or(u32::MAX)
        };
        let (done, expected) = (count(Standing::Done), count(Standing::Expected));
        let all = u32::try_from(standings.len()).unwrap_or(u32::MAX);
        let late = min.min(all).max(1);
        let needed = share_of(share, all).max(late);
        let is_late = self.together().any(|stage| stage.deadline_passed);
        if done >= needed || (is_late && done >= late) {
            return Closing::Now;
        }
        let possible = done.saturating_add(expected);
        let enough_late = self.together().any(|stage| stage.deadline.is_some()) && possible >= late;
        if possible >= needed || (enough_late && expected > 0) {
            Closing::NotYet
        } else if enough_late {
            // Nobody else can be done, so there is nothing to wait for until the deadline.
            Closing::Now
        } else {
            Closing::Never(self.why_never(done, possible, needed))
        }
    }

    /// Closes them with what those handed in who are done.
    pub(crate) fn close_together(&mut self, at: Timestamp, actions: &mut Vec<Action>) {
        let standings = self.standings().into_iter();
        let done: BTreeSet<SiteName> = standings
            .filter(|(_, standing)| *standing == Standing::Done)
            .map(|(site, _)| site.clone())
            .collect();
        let mut dropped: Vec<TaskId> = Vec::new();
        let mut closing = Vec::new();
        for (stage_idx, stage) in self.stages.iter_mut().enumerate().filter(|(_, stage)| is_open(stage)) {
            let early: BTreeSet<SiteName> =
                stage.accepted.keys().filter(|site| !done.contains(*site)).cloned().collect();
            for site in early {
                dropped.extend(stage.accepted.remove(&site).map(|submission| submission.task));
                if let Some(seat) = stage.seats.get_mut(&site) {
                    seat.state = SeatState::TooLate;
                }
            }
            closing.push(stage_idx);
        }
        actions.extend(dropped.into_iter().map(Action::ReleaseTask));
        for stage_idx in closing {
            self.close_stage(stage_idx, at, actions);
        }
    }

    fn together(&self) -> impl Iterator<Item = &StageRun> {
        self.stages.iter().filter(|stage| is_open(stage))
    }

    /// Everybody with work in any of them, as far as it has come with the least of it.
    fn standings(&self) -> BTreeMap<&SiteName, Standing> {
        let mut standings = BTreeMap::new();
        for (site, seat) in self.together().flat_map(|stage| &stage.seats) {
            let standing = standing(seat);
            let least = standings.entry(site).or_insert(standing);
            *least = standing.min(*least);
        }
        standings
    }

    fn why_never(&self, done: u32, possible: u32, needed: u32) -> String {
        let given_up = |(site, seat): (&SiteName, &Seat)| match &seat.state {
            SeatState::GivenUp { reason } => Some(format!("{site}: {reason}")),
            _ => None,
        };
        let reasons: Vec<String> =
            self.together().flat_map(|stage| &stage.seats).filter_map(given_up).take(5).collect();
        let reasons = match reasons.is_empty() {
            true => "nobody with work is left".to_owned(),
            false => reasons.join("; "),
        };
        format!("{needed} participants must be done, {done} are and at most {possible} can be ({reasons})")
    }
}

fn is_open(stage: &StageRun) -> bool {
    stage.state == StageState::Collecting && stage.closes_together()
}

fn rule(stage: &StageRun) -> Option<(f64, u32)> {
    match stage.spec.close {
        CloseRule::Together { share, min, .. } => Some((share, min)),
        _ => None,
    }
}

fn standing(seat: &Seat) -> Standing {
    match seat.state {
        SeatState::Accepted => Standing::Done,
        SeatState::Working | SeatState::Lost { .. } | SeatState::Vacant { .. } => Standing::Expected,
        SeatState::GivenUp { .. } | SeatState::TooLate => Standing::Out,
    }
}

#[cfg(test)]
mod tests;
