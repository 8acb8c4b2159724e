//! The crash soak: small federations of the real program, killed again and again, that must end as if nothing had happened.
//!
//! A soak is a row of lives. Each life is a fresh federation (one server, three sites, one run) that is killed in every phase:
//! at a named place the program is armed for, or at a random moment, the server or a site. After each kill the dead server's
//! journals are read from a copy and held against what was acknowledged and what was durable before; at its end a life is held
//! against one that nobody disturbed. Everything derives from one seed but the moments themselves.

mod calm;
mod federation;
mod ledger;
mod life;
mod schedule;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sheaf_domain::rng::SeededRng;
use sheaf_runtime::SystemClock;

use calm::Calm;
use life::Life;
use schedule::Schedule;

/// Where kills strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// At the named places, each in its turn.
    Named,
    /// At random moments.
    Random,
    /// Now here, now there.
    Both,
}

/// What to do, and with which program.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program.
    pub program: PathBuf,
    /// How many kills there must be.
    pub kills: u64,
    /// What everything is drawn from.
    pub seed: u64,
    /// Where kills strike.
    pub places: Places,
    /// Says how it goes on standard error.
    pub talk: bool,
}

/// How many rounds a run has.
const ROUNDS: u32 = 8;

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// Federations that were driven to their end.
    pub lives: u64,
    /// Kills by what was killed and where.
    pub kills: BTreeMap<String, u64>,
    /// Acknowledgements that were held against journals.
    pub acknowledged: u64,
    /// Places that were armed and not reached before the life went on.
    pub not_reached: BTreeMap<String, u64>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Kills of any sort.
    pub fn num_kills(&self) -> u64 {
        self.kills.values().sum()
    }

    fn killed(&mut self, what: &str) {
        *self.kills.entry(what.to_owned()).or_default() += 1;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (what, times) in &self.kills {
            writeln!(f, "{times:>6}  {what}")?;
        }
        for (what, times) in &self.not_reached {
            writeln!(f, "{times:>6}  {what} (armed, not reached)")?;
        }
        let (kills, lives, answers) = (self.num_kills(), self.lives, self.acknowledged);
        let seconds = self.took.as_secs();
        write!(
            f,
            "{kills} kills in {lives} lives, {answers} acknowledged results found in journals, {seconds} s"
        )
    }
}

/// Lives until there were as many kills as asked for; panics at the first thing that is not as it must be.
pub fn run(options: &Options) -> Report {
    let clock = SystemClock::shared();
    let started = clock.monotonic();
    let mut report = Report::default();
    let mut schedule = Schedule::new(options.seed, options.places);
    // Every other life keeps all updates, so that every round is rebuilt in the end; the others free them.
    let calm = ["run", "round"].map(|keep| Calm::of(&options.program, keep));
    while report.num_kills() < options.kills {
        let life_seed = options.seed.wrapping_mul(1_000_003).wrapping_add(report.lives);
        let which = usize::from(report.lives % 2 == 1);
        let at_start = report.num_kills();
        let mut life = Life::new(options, SeededRng::new(life_seed, "moments"), &mut schedule, &mut report);
        life.live(&calm[which]);
        drop(life);
        report.lives += 1;
        let new = report.num_kills() - at_start;
        assert!(new > 0, "seed {}: a whole life went by without a kill", options.seed);
        if options.talk {
            eprintln!("life {}: {new} kills, {} of {}", report.lives, report.num_kills(), options.kills);
        }
    }
    report.took = clock.monotonic().saturating_sub(started);
    report
}
