//! What a seed decides: who takes part and how, what the run is, and what goes wrong when.
//!
//! All faults lie in the first two minutes of simulated time; afterwards everything is whole again, and the run has to end.

use sheaf_client::participant::{Auth, TransportKind};
use sheaf_domain::rng::SeededRng;

/// Faults begin in this span, in milliseconds of simulated time.
const FAULTS_BEGIN_MS: u64 = 30_000;
/// The longest a fault lasts, in milliseconds.
const FAULT_LEN_MS_MAX: u64 = 60_000;

/// A simulation to be.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed of everything random.
    pub seed: u64,
    pub(crate) sites: Vec<Site>,
    pub(crate) strategy: &'static str,
    pub(crate) rounds: u32,
    /// Whether every site's update is needed, so that the final model is the same whatever happens.
    pub(crate) strict: bool,
    pub(crate) init_by_trainer: bool,
    /// Whether updates and models of all rounds are kept, so that a replay rebuilds every one.
    pub(crate) keep_all: bool,
    /// How long certificates last, in seconds.
    pub(crate) certificate_s: u64,
    pub(crate) work_ms_max: u64,
    /// The longest a store takes before or after it has done something, in milliseconds.
    pub(crate) store_ms_max: u64,
    /// The longest a message takes, in milliseconds.
    pub(crate) latency_ms_max: u64,
    pub(crate) faults: Vec<Fault>,
}

/// A site to be.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) transport: TransportKind,
    pub(crate) auth: Auth,
    pub(crate) skew_ms: i64,
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
    pub(crate) what: What,
}

/// What goes wrong; sites by their index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// Nothing passes between a site and the server.
    Cut(usize),
    /// Nothing passes from a site to the server.
    CutThere(usize),
    /// Nothing passes from the server to a site.
    CutBack(usize),
    /// What is sent waits until this is over.
    Held(usize),
    /// Some messages are lost, which breaks the connections they are of: per mille.
    Lossy(usize, u32),
    /// The server dies at the beginning and comes back at the end.
    ServerDies,
    /// A site dies at the beginning and comes back at the end.
    SiteDies(usize),
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Scenario {
        let mut rng = SeededRng::new(seed, "scenario");
        let sites: Vec<Site> = (0..2 + rng.below(3)).map(|idx| site(idx, &mut rng)).collect();
        let strategy = match rng.below(3) {
            0 => "fedavg",
            1 => "fedyogi",
            _ => "median",
        };
        let mut scenario = Scenario {
            seed,
            strategy,
            rounds: ROUNDS,
            strict: rng.below(4) > 0,
            init_by_trainer: rng.below(2) == 0,
            keep_all: rng.below(2) == 0,
            certificate_s: if rng.below(3) == 0 { 60 } else { 24 * 3600 },
            work_ms_max: 50 * tenfold(&mut rng),
            store_ms_max: tenfold(&mut rng),
            latency_ms_max: 4 * tenfold(&mut rng),
            faults: Vec::new(),
            sites,
        };
        let num_faults = 1 + rng.below(6);
        scenario.faults = (0..num_faults).map(|_| fault(scenario.sites.len(), &mut rng)).collect();
        scenario
    }

    /// The same run on a network and with processes that nothing happens to.
    pub fn undisturbed(&self) -> Scenario {
        Scenario { faults: Vec::new(), strict: true, ..self.clone() }
    }

    /// Whether every site's update is needed, so that the final model is the same whatever happens.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// The plan of the run.
    pub(crate) fn plan(&self) -> String {
        let (rounds, strategy, sites) = (self.rounds, self.strategy, self.sites.len());
        let keep = if self.keep_all { "run" } else { "round" };
        let init = if self.init_by_trainer { "trainer" } else { "first.safetensors" };
        let cohort = match self.strict {
            true => format!("min = {sites}"),
            false => format!("min = {}\nquorum = 0.6\ndeadline = \"15s\"", sites - 1),
        };
        format!(
            "[run]\nname = \"sim\"\nrounds = {rounds}\nkeep_updates = \"{keep}\"\nkeep_models = \"{keep}\"\n\
             [model]\ninit = \"{init}\"\n[strategy]\nkind = \"{strategy}\"\n[cohort]\n{cohort}\n\
             [task.evaluate]\nevery = 1\n"
        )
    }
}

/// 1, 10 or 100.
fn tenfold(rng: &mut SeededRng) -> u64 {
    10_u64.pow(u32::try_from(rng.below(3)).unwrap_or_default())
}

fn site(idx: u64, rng: &mut SeededRng) -> Site {
    let (transport, auth) = match rng.below(3) {
        0 => (TransportKind::Grpc, Auth::Certificate),
        1 => (TransportKind::Https, Auth::Certificate),
        _ => (TransportKind::Https, Auth::Signed),
    };
    let skew_ms = 20_000 - i64::try_from(rng.below(40_000)).unwrap();
    Site { name: format!("site-{idx}"), transport, auth, skew_ms }
}

fn fault(sites: usize, rng: &mut SeededRng) -> Fault {
    let from_ms = rng.below(FAULTS_BEGIN_MS);
    // Short ones are as likely as long ones.
    let len_ms = FAULT_LEN_MS_MAX >> rng.below(12);
    let site = usize::try_from(rng.below(sites as u64)).unwrap();
    let what = match rng.below(9) {
        0 => What::Cut(site),
        1 => What::CutThere(site),
        2 => What::CutBack(site),
        3 => What::Held(site),
        4 => What::Lossy(site, 1 + u32::try_from(rng.below(100)).unwrap()),
        5 | 6 => What::SiteDies(site),
        _ => What::ServerDies,
    };
    Fault { from_ms, until_ms: from_ms + len_ms.max(20), what }
}

const ROUNDS: u32 = 3;
