//! One life: a federation from its first start to its restored backup, killed in every phase of it.

use std::time::Duration;

use sheaf_domain::rng::SeededRng;
use sheaf_runtime::crash::Point;

use super::calm::{Calm, RUN, over, takes_part, write_plan};
use super::federation::{Federation, KILLED, SITES};
use super::ledger::{Ledger, journals_of, submissions};
use super::schedule::{Kill, Phase, Schedule};
use super::{Options, Report};
use crate::process::{Process, eventually, look_for};

/// Kills of a server, by phase.
const KILLS: [(Phase, usize); 4] =
    [(Phase::Start, 2), (Phase::Enrolment, 2), (Phase::Creation, 2), (Phase::Backup, 2)];
const KILLS_IN_ROUNDS: u64 = 10;
/// One kill in so many during rounds is a site's.
const SITE_EVERY: u64 = 4;
/// The latest random moment after a server has begun to listen.
const MOMENT_MS_MAX: u64 = 600;
/// How long a place may take to be reached before something else is done.
const REACHED_WITHIN: Duration = Duration::from_secs(10);
/// How long a place may be on its way after the phase's work was done.
const SOON: Duration = Duration::from_secs(1);
/// How long is waited between two tries, unless the server dies.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a look at the server lasts before the run is asked after.
const GLANCE: Duration = Duration::from_millis(250);

pub(super) struct Life<'a> {
    federation: Federation,
    ledger: Ledger,
    rng: SeededRng,
    schedule: &'a mut Schedule,
    report: &'a mut Report,
    seed: u64,
}

impl<'a> Life<'a> {
    pub(super) fn new(
        options: &Options,
        rng: SeededRng,
        schedule: &'a mut Schedule,
        report: &'a mut Report,
    ) -> Life<'a> {
        let federation = Federation::new(&options.program);
        Life { federation, ledger: Ledger::default(), rng, schedule, report, seed: options.seed }
    }

    pub(super) fn live(&mut self, calm: &Calm) {
        self.through(calm, Phase::Start, |_| Some(()));
        self.through(calm, Phase::Enrolment, Life::enrol);
        write_plan(&self.federation, calm.keep);
        let run = self.through(calm, Phase::Creation, Life::create);
        self.rounds(calm);
        let status = over(&self.federation).unwrap();
        assert_eq!(status["run"].as_str(), Some(run.as_str()), "{}", self.context());
        assert_eq!(status["model"], calm.model, "{}: the final model differs", self.context());
        self.check_replay(calm);
        let mut backups = 0;
        let backup = self.through(calm, Phase::Backup, |life| life.back_up(&mut backups, calm));
        self.end(calm);
        self.restore(&backup, calm);
    }

    /// Says where a failure happened.
    fn context(&self) -> String {
        let (seed, life, kills) = (self.seed, self.report.lives, self.report.num_kills());
        format!("seed {seed}, life {life}, after {kills} kills")
    }

    // --- kills ---

    /// Does `act` under kills, until it yields something; every kill of the phase strikes, if only after that. At the end a
    /// server is up and not armed.
    fn through<T>(&mut self, calm: &Calm, phase: Phase, mut act: impl FnMut(&mut Self) -> Option<T>) -> T {
        let mut done = None;
        let kills = KILLS.iter().find(|(of, _)| *of == phase).map_or(1, |(_, kills)| *kills);
        for _ in 0..kills {
            let kill = self.schedule.next(phase);
            if !self.start(calm, kill) {
                continue;
            }
            let mut overtaken = false;
            while !self.federation.server_died() {
                match &done {
                    None => {
                        done = act(self);
                        let _ = look_for(PAUSE, || self.federation.has_server_ended().then_some(()));
                    }
                    // What was answered is to outlive a crash just after; a place may yet be on its way.
                    Some(_) => {
                        if look_for(SOON, || self.federation.has_server_ended().then_some(())).is_none() {
                            overtaken = true;
                            self.federation.kill_server();
                        }
                    }
                }
            }
            self.struck(kill, overtaken);
        }
        self.start_plainly(calm);
        done.unwrap_or_else(|| eventually("it is done at last", || act(self)))
    }

    /// Starts a server that is to be killed; false when that has happened.
    fn start(&mut self, calm: &Calm, kill: Kill) -> bool {
        self.federation.kill_server();
        if !self.federation.start_server(kill.place().as_deref()) {
            self.struck(kill, false);
            return false;
        }
        calm.check_files(&self.federation.data(), &self.context());
        if kill == Kill::Random {
            let after = Duration::from_millis(self.rng.below(MOMENT_MS_MAX));
            self.federation.kill_server_in(after);
        }
        true
    }

    fn start_plainly(&mut self, calm: &Calm) {
        self.federation.kill_server();
        assert!(self.federation.start_server(None), "{}: the server starts", self.context());
        calm.check_files(&self.federation.data(), &self.context());
    }

    /// Counts a kill and holds what it left against what is known.
    fn struck(&mut self, kill: Kill, overtaken: bool) {
        match kill {
            Kill::At(point, _) if overtaken => {
                *self.report.not_reached.entry(format!("server at {}", point.name())).or_default() += 1;
                self.report.killed("server after an answer");
            }
            Kill::At(point, _) => self.report.killed(&format!("server at {}", point.name())),
            Kill::Random => self.report.killed("server at a random moment"),
        }
        self.look_back();
    }

    fn look_back(&mut self) {
        for (site, process) in SITES.iter().zip(&self.federation.sites) {
            self.ledger.hear(site, &process.as_ref().map(Process::log).unwrap_or_default());
        }
        if self.federation.data().join("state.sqlite").exists() {
            let context = self.context();
            self.ledger.check(&journals_of(&self.federation.data()), &context);
        }
    }

    // --- what is done meanwhile ---

    fn enrol(&mut self) -> Option<()> {
        for (idx, site) in SITES.iter().enumerate() {
            if !self.federation.path(&format!("{site}.kit")).exists() {
                self.federation.ask(&format!("invite {site}")).ok()?;
            }
            if self.federation.sites[idx].is_none() {
                self.federation.start_site(idx, None);
            }
        }
        takes_part(&self.federation).then_some(())
    }

    fn create(&mut self) -> Option<String> {
        // An answer that was lost may have been about a run that is there.
        let runs = self.federation.ask("ls").ok()?;
        let run = match runs.as_array()?.as_slice() {
            [] => self.federation.ask("run plan.toml").ok()?["run"].clone(),
            [one] => one["run"].clone(),
            several => panic!("{}: one run became several: {several:?}", self.context()),
        };
        Some(run.as_str().unwrap().to_owned())
    }

    fn rounds(&mut self, calm: &Calm) {
        let mut restart = None;
        for turn in 1..=KILLS_IN_ROUNDS {
            if turn % SITE_EVERY == 0 {
                self.kill_site();
                continue;
            }
            let kill = restart.take().unwrap_or_else(|| self.schedule.next(Phase::Rounds));
            if self.start(calm, kill) {
                let (mut is_over, mut overtaken) = (false, false);
                while !self.federation.server_died() {
                    if is_over {
                        overtaken = true;
                        self.federation.kill_server();
                    } else if look_for(GLANCE, || self.federation.has_server_ended().then_some(())).is_none()
                    {
                        is_over = over(&self.federation).is_some();
                    }
                }
                self.struck(kill, overtaken);
                if is_over {
                    break;
                }
            }
            restart = match kill {
                // Its version is there and no journal speaks of it: the next start sweeps, and may die of that too.
                Kill::At(Point::VersionWritten | Point::VersionPieceWritten, _) => {
                    Some(Kill::At(Point::HoldSwept, 1))
                }
                _ => None,
            };
            if turn % SITE_EVERY == SITE_EVERY - 1 {
                let kill = self.schedule.next(Phase::Restart);
                if self.start(calm, kill) {
                    self.federation.kill_server();
                    self.struck(kill, true);
                }
                self.start_plainly(calm);
            }
        }
        self.start_plainly(calm);
        eventually("the run is over", || over(&self.federation));
    }

    /// Kills a site at once and starts it again, perhaps to be killed at a place.
    fn kill_site(&mut self) {
        let idx = usize::try_from(self.rng.below(SITES.len() as u64)).unwrap();
        self.hear_and_kill(idx);
        self.report.killed("site at a random moment");
        if let Kill::At(point, times) = self.schedule.next(Phase::Site) {
            self.federation.start_site(idx, Kill::At(point, times).place().as_deref());
            let died = || {
                let site = self.federation.sites[idx].as_ref();
                (site.is_none_or(Process::has_ended) || over(&self.federation).is_some()).then_some(())
            };
            let _ = look_for(REACHED_WITHIN, died);
            let reached = self.federation.sites[idx].as_ref().is_some_and(Process::has_ended);
            self.hear_and_kill(idx);
            let what = format!("site at {}", point.name());
            match reached {
                true => self.report.killed(&what),
                false => *self.report.not_reached.entry(what).or_default() += 1,
            }
        }
        self.federation.start_site(idx, None);
    }

    fn hear_and_kill(&mut self, idx: usize) {
        if let Some(mut site) = self.federation.sites[idx].take() {
            site.signal(rustix::process::Signal::KILL);
            assert_eq!(site.ended(), KILLED, "{}: a site ended by itself:\n{}", self.context(), site.log());
            self.ledger.hear(SITES[idx], &site.log());
        }
    }

    /// Makes a backup under a new name; those that a crash cut short are refused when they are to be used.
    fn back_up(&mut self, backups: &mut u32, calm: &Calm) -> Option<String> {
        let name = |number: u32| format!("backup-{number}");
        if *backups > 0 {
            let last = name(*backups);
            let dir = self.federation.path(&last);
            if dir.exists() && !dir.join("BACKUP_COMPLETE").exists() {
                self.federation.refused(&format!("restore {last} --data-dir never"), 2);
            }
            std::fs::remove_dir_all(dir).ok();
        }
        *backups += 1;
        let report = self.federation.ask(&format!("backup {}", name(*backups))).ok()?;
        // What is free is freed by and by: as soon as it is, there is as much as without disturbance.
        let stored = (report["objects"].clone(), report["bytes"].clone());
        (stored == calm.stored).then(|| name(*backups))
    }

    // --- the end ---

    fn check_replay(&mut self, calm: &Calm) {
        let report = self.federation.ask(&format!("replay {RUN}")).unwrap();
        let rounds = report["rounds"].as_array().unwrap();
        let same = rounds.iter().filter(|round| round["verdict"] == "same").count();
        assert!(!rounds.is_empty(), "{}: {report}", self.context());
        if calm.keep == "run" {
            assert_eq!(same, rounds.len(), "{}: {report}", self.context());
        }
        self.federation.ask(&format!("journal export {RUN} -o journal.jsonl")).unwrap();
        self.federation.ask("journal check journal.jsonl").unwrap();
    }

    fn end(&mut self, calm: &Calm) {
        let tasks = |site: &str| std::fs::read_dir(self.federation.path(&format!("sites/{site}/tasks")));
        eventually("every site has handed in what it had", || {
            let left = SITES.iter().map(|site| tasks(site).map_or(0, Iterator::count)).sum::<usize>();
            (left == 0).then_some(())
        });
        for (site, process) in SITES.iter().zip(&self.federation.sites) {
            self.ledger.hear(site, &process.as_ref().map(Process::log).unwrap_or_default());
        }
        self.federation.drain();
        let (journals, context) = (journals_of(&self.federation.data()), self.context());
        self.ledger.check(&journals, &context);
        assert_eq!(submissions(&journals, &context).len(), calm.submissions, "{context}");
        self.report.acknowledged += self.ledger.num_acknowledged();
    }

    /// Puts the backup in the place of the data: it is a server of its own that knows as much.
    fn restore(&mut self, backup: &str, calm: &Calm) {
        std::fs::remove_dir_all(self.federation.data()).unwrap();
        self.federation.ask(&format!("restore {backup} --data-dir data")).unwrap();
        assert!(self.federation.start_server(None), "{}: a restored server starts", self.context());
        let status = over(&self.federation).unwrap();
        assert_eq!(status["model"], calm.model, "{}: the restored model differs", self.context());
        self.check_replay(calm);
        self.federation.drain();
    }
}
