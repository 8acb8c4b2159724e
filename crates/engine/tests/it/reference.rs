//! A plain model of a run, written for comparison: one stage at a time, names and numbers in maps, no versions' bytes.
//!
//! It knows the plans of today only (a first model, training, evaluation, one after another) and predicts for every event
//! whether it is taken, and afterwards who has work, what is in, what is kept, and whether the run is over.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_domain::plan::{Keep, Plan};
use sheaf_domain::rng::SeededRng;
use sheaf_domain::{SiteName, TaskId};

use crate::plans::{run_id, stage};

/// A share as the fraction tests give it: numerator and denominator.
pub(crate) type Share = (u32, u32);

/// Where a participant of a cohort stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chair {
    Works,
    Away,
    Empty,
    Done,
    Failed,
}

/// The stage going on.
#[derive(Debug, Clone)]
pub(crate) struct Now {
    pub(crate) name: &'static str,
    pub(crate) chairs: BTreeMap<SiteName, (Chair, u32)>,
    pub(crate) given: BTreeMap<SiteName, u32>,
    pub(crate) failed: BTreeMap<SiteName, u32>,
    pub(crate) results: BTreeMap<SiteName, (f64, f64)>,
    pub(crate) late: bool,
    pub(crate) folding: bool,
}

/// The model of a run.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    plan: Plan,
    fraction: Share,
    quorum: Share,
    pub(crate) over: Option<&'static str>,
    pub(crate) rounds: u32,
    pub(crate) round: u32,
    todo: Vec<&'static str>,
    pub(crate) now: Option<Now>,
    pub(crate) waits_for_sites: bool,
    pub(crate) present: BTreeSet<SiteName>,
    revoked: BTreeSet<SiteName>,
    trained: BTreeSet<SiteName>,
    pub(crate) history: Vec<(u32, &'static str, Vec<SiteName>)>,
    pub(crate) best: Option<(u32, f64)>,
    measured_from: Option<f64>,
    without_gain: u32,
    /// Whether the run started from a model.
    was_given: bool,
    pub(crate) models: BTreeSet<u32>,
    pub(crate) kept_updates: BTreeMap<u32, Vec<TaskId>>,
    /// Every task that was ever handed out, and whether it was accepted.
    pub(crate) tasks: BTreeMap<TaskId, (SiteName, Option<bool>)>,
}

impl Reference {
    pub(crate) fn new(plan: &Plan, fraction: Share, quorum: Share, from_trainer: bool) -> Reference {
        let round = if from_trainer { 0 } else { 1 };
        let mut reference = Reference {
            plan: plan.clone(),
            fraction,
            quorum,
            over: None,
            rounds: plan.rounds,
            round,
            todo: Vec::new(),
            now: None,
            waits_for_sites: false,
            present: BTreeSet::new(),
            revoked: BTreeSet::new(),
            trained: BTreeSet::new(),
            history: Vec::new(),
            best: None,
            measured_from: None,
            without_gain: 0,
            was_given: !from_trainer,
            models: if from_trainer { BTreeSet::new() } else { BTreeSet::from([0]) },
            kept_updates: BTreeMap::new(),
            tasks: BTreeMap::new(),
        };
        reference.plan_round();
        reference.settle();
        reference
    }

    fn plan_round(&mut self) {
        self.todo = vec![if self.round == 0 { "init" } else { "train" }];
        let every = self.plan.evaluate.as_ref().map(|evaluate| evaluate.every);
        if self.round > 0
            && every.is_some_and(|every| self.round == self.rounds || self.round.is_multiple_of(every))
        {
            self.todo.push("evaluate");
        }
    }

    // What happens.

    pub(crate) fn arrive(&mut self, name: &SiteName) {
        self.appear(name);
        self.reseat();
        self.settle();
    }

    pub(crate) fn snapshot(&mut self, names: &BTreeSet<SiteName>) {
        if self.over.is_none() {
            let gone: Vec<SiteName> = self.present.difference(names).cloned().collect();
            gone.iter().for_each(|name| self.vanish(name));
            names.iter().for_each(|name| self.appear(name));
            self.reseat();
            self.settle();
        }
    }

    pub(crate) fn lose(&mut self, name: &SiteName) {
        self.vanish(name);
        self.reseat();
        self.settle();
    }

    pub(crate) fn revoke(&mut self, name: &SiteName) {
        self.present.remove(name);
        self.revoked.insert(name.clone());
        if self.over.is_none() {
            if let Some(now) = self.now.as_mut().filter(|now| !now.folding)
                && let Some((chair, attempt)) =
                    now.chairs.get_mut(name).filter(|chair| chair.0 != Chair::Done)
            {
                *chair = Chair::Empty;
                let task = task_of(self.round, now.name, name, *attempt);
                self.tasks.insert(task, (name.clone(), Some(false)));
            }
            self.reseat();
            self.settle();
        }
    }

    /// A result for an open task; returns whether it counts.
    pub(crate) fn hand_in(&mut self, task: TaskId, name: &SiteName, examples: f64, value: f64) -> bool {
        if self.fate(task, name) != Some(None) {
            return false;
        }
        let Some(now) = self.now.as_mut() else { return false };
        now.results.insert(name.clone(), (examples, value));
        now.chairs.get_mut(name).unwrap().0 = Chair::Done;
        self.tasks.insert(task, (name.clone(), Some(true)));
        self.settle();
        true
    }

    /// A failure or refusal of an open task; returns whether it is taken.
    pub(crate) fn fail(&mut self, task: TaskId, name: &SiteName) -> bool {
        if self.fate(task, name) != Some(None) {
            return false;
        }
        self.tasks.insert(task, (name.clone(), Some(false)));
        let now = self.now.as_mut().unwrap();
        let failed = now.failed.entry(name.clone()).or_default();
        *failed += 1;
        if *failed < self.plan.cohort.attempts {
            self.seat(name.clone());
        } else {
            now.chairs.get_mut(name).unwrap().0 = Chair::Failed;
        }
        self.reseat();
        self.settle();
        true
    }

    pub(crate) fn deadline(&mut self, round: u32, name: &str) -> bool {
        let has_one = self.plan.cohort.deadline.is_some() && self.over.is_none() && round == self.round;
        match &mut self.now {
            Some(now) if has_one && now.name == name && !now.folding && !now.late => now.late = true,
            _ => return false,
        }
        self.settle();
        true
    }

    pub(crate) fn folded(&mut self, round: u32, name: &str) -> bool {
        if !self.is_folding(round, name) {
            return false;
        }
        let now = self.now.take().unwrap();
        self.models.insert(round);
        let tasks =
            now.results.keys().map(|site| task_of(round, now.name, site, now.chairs[site].1)).collect();
        self.kept_updates.insert(round, tasks);
        self.kept_updates.retain(|of, _| match self.plan.keep_updates {
            Keep::Round => false,
            Keep::Rounds(count) => of + count > round,
            Keep::Run => true,
        });
        self.trained = now.results.keys().cloned().collect();
        self.history.push((round, now.name, now.results.into_keys().collect()));
        self.forget_models();
        self.settle();
        true
    }

    pub(crate) fn fold_failed(&mut self, round: u32, name: &str, permanent: bool) -> bool {
        let fits = self.is_folding(round, name);
        if fits && permanent {
            self.end("failed");
        }
        fits
    }

    pub(crate) fn stop(&mut self) -> bool {
        let running = self.over.is_none();
        if running {
            self.end("stopped");
        }
        running
    }

    pub(crate) fn extend(&mut self, rounds: u32) -> bool {
        match self.over {
            None => self.rounds += rounds,
            Some("finished") => {
                self.rounds = self.round + rounds;
                self.over = None;
                self.without_gain = 0;
                self.present.clear();
            }
            Some(_) => return false,
        }
        self.settle();
        true
    }

    // What follows from it.

    fn fate(&self, task: TaskId, name: &SiteName) -> Option<Option<bool>> {
        self.tasks.get(&task).filter(|(owner, _)| owner == name).map(|(_, fate)| *fate)
    }

    fn is_folding(&self, round: u32, name: &str) -> bool {
        let now = self.now.as_ref().is_some_and(|now| now.folding && now.name == name);
        now && round == self.round && self.over.is_none()
    }

    fn appear(&mut self, name: &SiteName) {
        if self.over.is_some() || self.revoked.contains(name) {
            return;
        }
        self.present.insert(name.clone());
        self.set_chair(name, Chair::Away, Chair::Works);
    }

    fn vanish(&mut self, name: &SiteName) {
        self.present.remove(name);
        self.set_chair(name, Chair::Works, Chair::Away);
    }

    fn set_chair(&mut self, name: &SiteName, from: Chair, to: Chair) {
        let now = self.now.as_mut().filter(|now| !now.folding);
        if let Some(chair) = now.and_then(|now| now.chairs.get_mut(name)).filter(|chair| chair.0 == from) {
            chair.0 = to;
        }
    }

    /// Puts a participant on a chair with its next attempt.
    fn seat(&mut self, name: SiteName) {
        let Some(now) = self.now.as_mut() else { return };
        let attempt = now.given.get(&name).copied().unwrap_or(0) + 1;
        now.given.insert(name.clone(), attempt);
        let chair = if self.present.contains(&name) { Chair::Works } else { Chair::Away };
        self.tasks.insert(task_of(self.round, now.name, &name, attempt), (name.clone(), None));
        now.chairs.insert(name, (chair, attempt));
    }

    fn reseat(&mut self) {
        let Some(now) = self.now.clone().filter(|now| !now.folding && self.over.is_none()) else { return };
        if now.name != "evaluate" {
            let of = |wanted: &[Chair]| -> Vec<SiteName> {
                now.chairs
                    .iter()
                    .filter(|(_, c)| wanted.contains(&c.0))
                    .map(|(name, _)| name.clone())
                    .collect()
            };
            let leavers = [of(&[Chair::Empty, Chair::Failed]), of(&[Chair::Away])].concat();
            let spent =
                |name: &SiteName| now.failed.get(name).is_some_and(|n| *n >= self.plan.cohort.attempts);
            let joiners: Vec<SiteName> = self
                .present
                .iter()
                .filter(|name| !now.chairs.contains_key(*name) && !spent(name))
                .cloned()
                .collect();
            for (leaver, joiner) in leavers.into_iter().zip(joiners) {
                let (chair, attempt) = self.now.as_mut().unwrap().chairs.remove(&leaver).unwrap();
                if chair == Chair::Away {
                    self.tasks.insert(task_of(self.round, now.name, &leaver, attempt), (leaver, Some(false)));
                }
                self.seat(joiner);
            }
        }
        let least = if now.name == "train" { self.plan.cohort.min as usize } else { 1 };
        let now = self.now.as_mut().unwrap();
        let empty: Vec<SiteName> =
            now.chairs.iter().filter(|(_, c)| c.0 == Chair::Empty).map(|(name, _)| name.clone()).collect();
        for name in empty {
            if now.chairs.len() > least {
                now.chairs.remove(&name);
            } else if now.name == "evaluate" {
                now.chairs.get_mut(&name).unwrap().0 = Chair::Failed;
            }
        }
    }

    fn settle(&mut self) {
        while self.over.is_none() {
            self.waits_for_sites = false;
            let moved = match self.now.clone() {
                Some(now) if now.folding => false,
                Some(now) => self.try_close(&now),
                None if self.todo.is_empty() => {
                    self.finish_round();
                    true
                }
                None => self.try_start(),
            };
            if !moved {
                return;
            }
        }
    }

    fn try_close(&mut self, now: &Now) -> bool {
        let among = |wanted: &[Chair]| count(now.chairs.values().filter(|c| wanted.contains(&c.0)).count());
        let (done, may) = (among(&[Chair::Done]), among(&[Chair::Works, Chair::Away, Chair::Empty]));
        let (share, min) = if now.name == "init" { ((1, 1), 1) } else { (self.quorum, self.plan.cohort.min) };
        let need_late = min.min(count(now.chairs.len())).max(1);
        let need = ceil(share, count(now.chairs.len())).max(need_late);
        let enough = done >= need || (now.late && done >= need_late);
        let timed = self.plan.cohort.deadline.is_some();
        if !enough && (done + may >= need || (timed && done + may >= need_late && may > 0)) {
            return false;
        }
        let enough = enough || (timed && done >= need_late);
        if !enough {
            self.end("failed");
            return false;
        }
        for (name, (chair, attempt)) in &now.chairs {
            if matches!(chair, Chair::Works | Chair::Away) {
                self.tasks.insert(task_of(self.round, now.name, name, *attempt), (name.clone(), Some(false)));
            }
        }
        if now.name == "evaluate" {
            self.now = None;
            self.judge(now);
            self.history.push((self.round, now.name, now.results.keys().cloned().collect()));
            true
        } else {
            self.now.as_mut().unwrap().folding = true;
            false
        }
    }

    fn judge(&mut self, now: &Now) {
        let examples: f64 = now.results.values().map(|(examples, _)| examples).sum();
        let value = now.results.values().map(|(examples, value)| value * examples).sum::<f64>() / examples;
        let min_delta = self.plan.stop.as_ref().map_or(0.0, |stop| stop.min_delta);
        if self.measured_from.is_none_or(|from| value > from + min_delta) {
            self.measured_from = Some(value);
            self.without_gain = 0;
        } else {
            self.without_gain += 1;
        }
        if self.best.is_none_or(|(_, best)| value > best) {
            self.best = Some((self.round, value));
        }
    }

    fn try_start(&mut self) -> bool {
        let name = self.todo[0];
        let cohort: Vec<SiteName> = match name {
            "init" => self.present.iter().take(1).cloned().collect(),
            "train" => self.draw(),
            _ => self.trained.difference(&self.revoked).cloned().collect(),
        };
        if cohort.is_empty() && name != "evaluate" {
            self.waits_for_sites = true;
            return false;
        }
        self.todo.remove(0);
        self.now = Some(Now {
            name,
            chairs: BTreeMap::new(),
            given: BTreeMap::new(),
            failed: BTreeMap::new(),
            results: BTreeMap::new(),
            late: false,
            folding: false,
        });
        cohort.into_iter().for_each(|name| self.seat(name));
        true
    }

    fn draw(&self) -> Vec<SiteName> {
        let count = count(self.present.len());
        if count < self.plan.cohort.min {
            return Vec::new();
        }
        let mut names: Vec<SiteName> = self.present.iter().cloned().collect();
        let wanted = ceil(self.fraction, count).max(self.plan.cohort.min);
        if wanted < count {
            SeededRng::new(self.plan.seed, &format!("cohort/{}/train", self.round)).shuffle(&mut names);
            names.truncate(wanted as usize);
        }
        names.sort();
        names
    }

    fn finish_round(&mut self) {
        self.forget_models();
        let impatient = self.plan.stop.as_ref().is_some_and(|stop| self.without_gain >= stop.patience);
        if impatient || self.round >= self.rounds {
            return self.end("finished");
        }
        self.round += 1;
        self.plan_round();
    }

    fn forget_models(&mut self) {
        let keep = match self.plan.keep_models {
            Keep::Round => 1,
            Keep::Rounds(count) => count as usize,
            Keep::Run => usize::MAX,
        };
        let newest: BTreeSet<u32> = self.models.iter().rev().take(keep).copied().collect();
        let best = self.best.map(|(round, _)| round);
        // A replay begins with the model that was given.
        let given = (self.was_given && self.plan.keep_updates == Keep::Run).then_some(0);
        let kept = |model: &u32| newest.contains(model) || [best, given].contains(&Some(*model));
        self.models.retain(kept);
    }

    fn end(&mut self, how: &'static str) {
        self.over = Some(how);
        self.waits_for_sites = false;
        for (_, fate) in self.tasks.values_mut() {
            *fate = fate.or(Some(false));
        }
        self.now = None;
    }

    /// The tasks that are open now.
    pub(crate) fn open(&self) -> BTreeSet<TaskId> {
        self.tasks.iter().filter(|(_, (_, fate))| fate.is_none()).map(|(task, _)| *task).collect()
    }

    /// The tasks whose bytes are still needed.
    pub(crate) fn live(&self) -> BTreeSet<TaskId> {
        let mut live: BTreeSet<TaskId> = self.kept_updates.values().flatten().copied().collect();
        live.extend(self.open());
        if let Some(now) = &self.now {
            live.extend(
                now.results.keys().map(|name| task_of(self.round, now.name, name, now.chairs[name].1)),
            );
        }
        live
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap()
}

fn ceil((num, den): Share, of: u32) -> u32 {
    (num * of).div_ceil(den).clamp(1, of.max(1))
}

fn task_of(round: u32, name: &str, site: &SiteName, attempt: u32) -> TaskId {
    TaskId::derive(run_id(), round, &stage(name), site, attempt)
}
