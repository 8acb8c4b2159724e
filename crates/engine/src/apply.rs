//! Events become state: one function an event, each either applied whole or refused.
//!
//! Every function here and in `seat`, `submit` and `fold` finds everything that may be missing before it changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sheaf_domain::plan::{Plan, ROUNDS_MAX};
use sheaf_domain::{LineageName, Program, RunPhase, StageName, Timestamp};

use crate::action::Action;
use crate::event::{Event, Rejected, Start, StartVersion};
use crate::program;
use crate::stage::{SeatState, StageState};
use crate::state::{RunState, Version};

/// The longest reason kept, in characters.
const REASON_LEN_MAX: usize = 500;

impl RunState {
    /// Makes a run from its first event.
    ///
    /// # Errors
    /// [`Rejected::Creation`] for any other event, [`Rejected::Plan`] for stages that do not go together or a start
    /// without a model.
    pub fn create(at: Timestamp, event: &Event) -> Result<(RunState, Vec<Action>), Rejected> {
        let Event::Created { run, plan, program, start } = event else {
            return Err(Rejected::Creation);
        };
        if !(1..=ROUNDS_MAX).contains(&plan.rounds) {
            return Err(Rejected::Plan(format!("{} rounds are not from 1 to {ROUNDS_MAX}", plan.rounds)));
        }
        program::check(program)?;
        let (round, versions) = match start {
            Start::Trainer if program.init.is_none() => {
                return Err(Rejected::Plan("no stage makes its first model".to_owned()));
            }
            Start::Trainer => (0, BTreeMap::new()),
            Start::Versions { versions, .. } => (1, start_versions(versions)?),
        };
        let mut state = RunState {
            run: *run,
            plan: Plan::clone(plan),
            due: program::due(program, round, round >= plan.rounds),
            program: Program::clone(program),
            phase: RunPhase::Running,
            created_at: at,
            ended_at: None,
            rounds: plan.rounds,
            round,
            stages: Vec::new(),
            awaiting: None,
            versions,
            present: BTreeSet::new(),
            sites: BTreeMap::new(),
            tasks: BTreeMap::new(),
            history: Vec::new(),
            best: None,
            gain_from: None,
            evaluations_without_gain: 0,
            kept: BTreeMap::new(),
        };
        let mut actions = Vec::new();
        state.advance(at, &mut actions);
        Ok((state, actions))
    }

    /// Applies the next event of the journal and derives what is to be done.
    ///
    /// # Errors
    /// [`Rejected`] when the event does not fit; the state is then unchanged.
    pub fn apply(&mut self, at: Timestamp, event: &Event) -> Result<Vec<Action>, Rejected> {
        let mut actions = Vec::new();
        match event {
            Event::Created { .. } => return Err(Rejected::Creation),
            Event::SitePresent { site } => self.site_present(site, &mut actions),
            Event::SitesPresent { sites } => self.sites_present(sites, &mut actions),
            Event::SiteLost { site, reason } => self.site_lost(site, reason, &mut actions),
            Event::SiteRevoked { site, reason } => self.site_revoked(site, reason, &mut actions),
            Event::Submitted { task, site, slots, num_examples, metrics } => {
                self.submitted(*task, site, slots, *num_examples, metrics, &mut actions)?;
            }
            Event::Refused { task, site, refusal } => self.refused(*task, site, refusal, &mut actions)?,
            Event::Failed { task, site, reason } => self.attempt_over(*task, site, reason, &mut actions)?,
            Event::DeadlinePassed { round, stage } => self.deadline_passed(*round, stage)?,
            Event::Folded { round, stage, versions } => {
                self.folded(at, *round, stage, versions, &mut actions)?
            }
            Event::FoldFailed { round, stage, reason, permanent } => {
                self.fold_failed(at, *round, stage, reason, *permanent, &mut actions)?;
            }
            Event::StopRequested { reason } => {
                self.check_running()?;
                self.end(at, RunPhase::Stopped { reason: bounded(reason) }, &mut actions);
            }
            Event::Extended { rounds } => self.extended(*rounds)?,
        }
        self.advance(at, &mut actions);
        Ok(actions)
    }

    pub(crate) fn check_running(&self) -> Result<(), Rejected> {
        match self.phase.reason() {
            Some(reason) => Err(Rejected::Over(reason.to_owned())),
            None => Ok(()),
        }
    }

    fn deadline_passed(&mut self, round: u32, name: &StageName) -> Result<(), Rejected> {
        self.check_running()?;
        let stage = self.stage_mut(round, name).filter(|stage| {
            stage.state == StageState::Collecting && stage.deadline.is_some() && !stage.deadline_passed
        });
        let stage = stage.ok_or_else(|| Rejected::NotExpected { round, stage: name.clone() })?;
        stage.deadline_passed = true;
        Ok(())
    }

    fn extended(&mut self, rounds: u32) -> Result<(), Rejected> {
        if rounds == 0 {
            return Err(Rejected::NotExtendable("no rounds were asked for".to_owned()));
        }
        // A run that stopped early is extended from where it is, not from where it might have come to.
        let (from, finished) = match &self.phase {
            RunPhase::Running => (self.rounds, false),
            RunPhase::Finished { .. } => (self.round, true),
            phase => {
                let message = format!("it is {}; start another run from its model instead", phase.name());
                return Err(Rejected::NotExtendable(message));
            }
        };
        let total = from.checked_add(rounds).filter(|total| *total <= ROUNDS_MAX);
        let message = || format!("{from} and {rounds} rounds are more than the {ROUNDS_MAX} a run may have");
        self.rounds = total.ok_or_else(|| Rejected::NotExtendable(message()))?;
        if finished {
            self.phase = RunPhase::Running;
            self.ended_at = None;
            self.evaluations_without_gain = 0;
            // Who is there was not followed while the run was over; it is told anew.
            self.present.clear();
        }
        Ok(())
    }

    /// Ends the run: open tasks are withdrawn, uploads that nobody will fold are freed.
    pub(crate) fn end(&mut self, at: Timestamp, phase: RunPhase, actions: &mut Vec<Action>) {
        let reason = format!("the run is {}", phase.name());
        let mut open = Vec::new();
        for stage in self.stages.iter().filter(|stage| stage.state != StageState::Closed) {
            for seat in stage.seats.values() {
                match seat.state {
                    SeatState::Working | SeatState::Lost { .. } => open.push(seat.task),
                    SeatState::Accepted => actions.push(Action::ReleaseTask(seat.task)),
                    SeatState::Vacant { .. } | SeatState::GivenUp { .. } | SeatState::TooLate => {}
                }
            }
        }
        for task in open {
            self.close_task(task, &reason, actions);
        }
        self.phase = phase;
        self.ended_at = Some(at);
        self.awaiting = None;
        actions.push(Action::Ended);
    }
}

fn start_versions(start: &[StartVersion]) -> Result<BTreeMap<LineageName, BTreeMap<u32, Version>>, Rejected> {
    let mut versions: BTreeMap<LineageName, BTreeMap<u32, Version>> = BTreeMap::new();
    for StartVersion { lineage, manifest, digest } in start {
        let version = Version { manifest: Arc::new(manifest.clone()), digest: *digest };
        let twice = versions.insert(lineage.clone(), BTreeMap::from([(0, version)])).is_some();
        if twice || *lineage == LineageName::best() {
            return Err(Rejected::Plan(format!(
                "a run cannot start from {lineage} given twice or as `best`"
            )));
        }
    }
    match versions.contains_key(&LineageName::global()) {
        true => Ok(versions),
        false => Err(Rejected::Plan("there is no model to start from".to_owned())),
    }
}

pub(crate) fn bounded(reason: &str) -> String {
    reason.chars().take(REASON_LEN_MAX).collect()
}
