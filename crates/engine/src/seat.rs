//! Who sits where: participants come, go, come back, and take each other's seats.
//!
//! A task is in its participant's outbox exactly while its seat is open. A participant that sits down again gets a new
//! attempt, so that no task id ever means two things.

use std::collections::BTreeSet;

use sheaf_domain::{SiteName, TaskId};

use crate::action::{Action, StageKey};
use crate::apply::bounded;
use crate::stage::{Seat, SeatState, StageRun, StageState};
use crate::state::{RunState, TaskFacts, TaskFate};

/// How many tasks of one participant in one stage are remembered; a participant that comes and goes must not fill memory.
const TASKS_PER_SEAT_MAX: u32 = 8;

impl RunState {
    pub(crate) fn site_present(&mut self, site: &SiteName, actions: &mut Vec<Action>) {
        if self.admit(site) {
            self.site_returns(site, actions);
            self.fill_seats(actions);
        }
    }

    pub(crate) fn sites_present(&mut self, sites: &[SiteName], actions: &mut Vec<Action>) {
        if self.phase.is_over() {
            return;
        }
        let named: BTreeSet<&SiteName> = sites.iter().collect();
        let gone: Vec<SiteName> = self.present.iter().filter(|site| !named.contains(site)).cloned().collect();
        for site in &gone {
            self.mark_lost(site, "not present any more");
        }
        let admitted: Vec<&SiteName> = named.into_iter().filter(|site| self.admit(site)).collect();
        for site in admitted {
            self.site_returns(site, actions);
        }
        self.fill_seats(actions);
    }

    pub(crate) fn site_lost(&mut self, site: &SiteName, reason: &str, actions: &mut Vec<Action>) {
        self.mark_lost(site, reason);
        self.fill_seats(actions);
    }

    pub(crate) fn site_revoked(&mut self, site: &SiteName, reason: &str, actions: &mut Vec<Action>) {
        let reason = bounded(reason);
        self.present.remove(site);
        let facts = self.sites.entry(site.clone()).or_default();
        facts.revoked = true;
        facts.last_error = Some(reason.clone());
        let mut open = Vec::new();
        for stage in self.open_stages() {
            let seat = stage.seats.get_mut(site).filter(|seat| seat.state != SeatState::Accepted);
            let Some(seat) = seat else { continue };
            if seat.is_open() {
                open.push(seat.task);
            }
            seat.state = SeatState::Vacant { reason: reason.clone() };
        }
        for task in open {
            self.close_task(task, &reason, actions);
        }
        self.fill_seats(actions);
    }

    /// Counts a participant as present; returns whether the run takes it.
    fn admit(&mut self, site: &SiteName) -> bool {
        if self.phase.is_over() || self.is_revoked(site) {
            return false;
        }
        self.sites.entry(site.clone()).or_default();
        self.present.insert(site.clone());
        true
    }

    pub(crate) fn is_revoked(&self, site: &SiteName) -> bool {
        self.sites.get(site).is_some_and(|facts| facts.revoked)
    }

    /// Counts a participant as lost; it keeps its seats until another takes them.
    fn mark_lost(&mut self, site: &SiteName, reason: &str) {
        let Some(facts) = self.sites.get_mut(site).filter(|facts| !facts.revoked) else { return };
        let reason = bounded(reason);
        facts.last_error = Some(reason.clone());
        self.present.remove(site);
        for stage in self.open_stages() {
            if let Some(seat) = stage.seats.get_mut(site).filter(|seat| seat.state == SeatState::Working) {
                seat.state = SeatState::Lost { reason: reason.clone() };
            }
        }
    }

    /// The stages that take submissions; none once the run is over.
    fn open_stages(&mut self) -> impl Iterator<Item = &mut StageRun> {
        let running = !self.phase.is_over();
        self.stages.iter_mut().filter(move |stage| running && stage.state == StageState::Collecting)
    }

    /// Gives a participant that came back its open tasks again.
    fn site_returns(&mut self, site: &SiteName, actions: &mut Vec<Action>) {
        for stage in self.open_stages() {
            let lost = |seat: &&mut Seat| matches!(seat.state, SeatState::Lost { .. });
            if let Some(seat) = stage.seats.get_mut(site).filter(lost) {
                seat.state = SeatState::Working;
            }
        }
        let collecting = self.stages.iter().filter(|stage| stage.state == StageState::Collecting);
        let open = collecting.filter_map(|stage| {
            let seat = stage.seats.get(site).filter(|seat| seat.is_open())?;
            Some(Action::Assign(Box::new(self.assignment(stage, site, seat))))
        });
        actions.extend(open);
    }

    /// Gives the seats of those that are gone to participants that are present and have none, in every open stage.
    pub(crate) fn fill_seats(&mut self, actions: &mut Vec<Action>) {
        if self.phase.is_over() {
            return;
        }
        for stage_idx in 0..self.stages.len() {
            for (leaver, joiner) in self.replacements(stage_idx) {
                let left = self.stages.get_mut(stage_idx).and_then(|stage| stage.seats.remove(&leaver));
                if let Some(seat) = left.filter(Seat::is_open) {
                    self.close_task(seat.task, &format!("{joiner} took the place of {leaver}"), actions);
                }
                self.give_seat(stage_idx, &joiner, actions);
            }
            self.remove_vacant_seats(stage_idx);
        }
    }

    /// Who takes whose seat: those that cannot come back first, then those that were lost, each in canonical order.
    fn replacements(&self, stage_idx: usize) -> Vec<(SiteName, SiteName)> {
        let open = self.stages.get(stage_idx).filter(|stage| stage.state == StageState::Collecting);
        let Some(stage) = open.filter(|stage| stage.seats_change_hands()) else { return Vec::new() };
        let mut vacant: Vec<(bool, &SiteName)> = stage
            .seats
            .iter()
            .filter(|(_, seat)| !matches!(seat.state, SeatState::Working | SeatState::Accepted))
            .map(|(site, seat)| (seat.is_open(), site))
            .collect();
        vacant.sort_unstable();
        let attempts = self.attempts();
        let may_try = |site: &SiteName| stage.tries.get(site).is_none_or(|tries| tries.failed < attempts);
        let free = self.present.iter().filter(|site| !stage.seats.contains_key(*site) && may_try(site));
        vacant.into_iter().zip(free).map(|((_, leaver), joiner)| (leaver.clone(), joiner.clone())).collect()
    }

    /// Takes away the seats of revoked participants that nobody took, as far as the cohort may shrink.
    fn remove_vacant_seats(&mut self, stage_idx: usize) {
        let open = self.stages.get_mut(stage_idx).filter(|stage| stage.state == StageState::Collecting);
        let Some(stage) = open else { return };
        let is_vacant = |(site, seat): (&SiteName, &Seat)| {
            matches!(seat.state, SeatState::Vacant { .. }).then(|| site.clone())
        };
        let vacant: Vec<SiteName> = stage.seats.iter().filter_map(is_vacant).collect();
        for site in vacant {
            if stage.cohort() > stage.least_cohort() {
                stage.seats.remove(&site);
            } else if !stage.seats_change_hands()
                && let Some(seat) = stage.seats.get_mut(&site)
                && let SeatState::Vacant { reason } = &seat.state
            {
                seat.state = SeatState::GivenUp { reason: reason.clone() };
            }
        }
    }

    /// Seats `site` with a new attempt and hands it its assignment.
    pub(crate) fn give_seat(&mut self, stage_idx: usize, site: &SiteName, actions: &mut Vec<Action>) {
        let (run, round) = (self.run, self.round);
        let Some(stage) = self.stages.get_mut(stage_idx) else { return };
        let tries = stage.tries.entry(site.clone()).or_default();
        tries.given = tries.given.saturating_add(1);
        let attempt = tries.given;
        let name = stage.spec.name.clone();
        let task = TaskId::derive(run, round, &name, site, attempt);
        let state = if self.present.contains(site) {
            SeatState::Working
        } else {
            SeatState::Lost { reason: "not present when it was given the task".to_owned() }
        };
        stage.seats.insert(site.clone(), Seat { task, attempt, state });
        self.sites.entry(site.clone()).or_default();
        let key = StageKey { round, stage: name };
        if let Some(forgotten) = attempt.checked_sub(TASKS_PER_SEAT_MAX) {
            self.tasks.remove(&TaskId::derive(run, round, &key.stage, site, forgotten));
        }
        self.tasks.insert(task, TaskFacts { site: site.clone(), key, fate: TaskFate::Open });
        let assignment = self.stages.get(stage_idx).and_then(|stage| {
            let seat = stage.seats.get(site)?;
            Some(self.assignment(stage, site, seat))
        });
        actions.extend(assignment.map(|assignment| Action::Assign(Box::new(assignment))));
    }

    /// Ends a task without a result: out of the outbox, its uploads freed.
    pub(crate) fn close_task(&mut self, task: TaskId, reason: &str, actions: &mut Vec<Action>) {
        let Some(facts) = self.tasks.get_mut(&task) else { return };
        facts.fate = TaskFate::Closed(reason.to_owned());
        let site = facts.site.clone();
        actions.push(Action::Withdraw { site, task, reason: reason.to_owned() });
        actions.push(Action::ReleaseTask(task));
    }

    /// How often a participant may try a stage.
    pub(crate) fn attempts(&self) -> u32 {
        self.plan.cohort.attempts.max(1)
    }
}
