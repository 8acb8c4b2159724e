//! Drives a simulation: steps its time, lets things go wrong and be whole again, ends it, and has it judged.

use std::cell::Cell;
use std::sync::{Arc, Once};
use std::time::Duration;

use sheaf_domain::Digest;
use turmoil::Sim;

use crate::clock::millis;
use crate::net::SERVER;
use crate::scenario::{Scenario, What};
use crate::world::World;
use crate::{judge, server, site};

/// How finely time passes between looks at the network.
const TICK: Duration = Duration::from_millis(5);
/// A run that has not ended by then never will.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// What may still go on when the run is over: answers on the way, bytes being freed.
const SETTLE: Duration = Duration::from_secs(120);

/// What a simulation came to.
#[derive(Debug)]
pub struct Report {
    /// The digest of the final model.
    pub digest: Digest,
    /// What happened, in order.
    pub trace: Vec<String>,
    /// Simulated time until the run was over, in milliseconds.
    pub took_ms: u64,
}

/// Simulates a scenario and judges what came of it.
///
/// # Errors
/// Everything that was wrong, one line each.
pub fn simulate(scenario: &Scenario) -> Result<Report, String> {
    let panics = panics_so_far();
    let world = World::new(scenario);
    let mut sim = hosts(&world);
    let took_ms = drive(&mut sim, &world);
    // Everything that runs is dropped before it is judged, as at the end of a process.
    drop(sim);
    let panicked = panics_so_far() - panics;
    if panicked > 0 {
        world.complain(format!("{panicked} tasks panicked"));
    }
    let verdict = took_ms.and_then(|took_ms| judge::judge(&world).map(|digest| (took_ms, digest)));
    let mut notes = world.notes();
    let trace = std::mem::take(&mut notes.trace);
    match verdict {
        Ok((took_ms, digest)) if notes.complaints.is_empty() => Ok(Report { digest, trace, took_ms }),
        verdict => {
            let mut lines = std::mem::take(&mut notes.complaints);
            lines.extend(verdict.err());
            lines.push(format!("{scenario:#?}"));
            lines.push("what happened:".to_owned());
            lines.extend(trace);
            Err(lines.join("\n"))
        }
    }
}

fn hosts(world: &Arc<World>) -> Sim<'static> {
    let scenario = &world.scenario;
    let mut sim = turmoil::Builder::new()
        .rng_seed(scenario.seed)
        .simulation_duration(LIMIT * 2)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(scenario.latency_ms_max))
        .tcp_capacity(1024)
        .build();
    let shared = Arc::clone(world);
    sim.host(SERVER, move || {
        let world = Arc::clone(&shared);
        async move {
            server::serve(world).await;
            Ok(())
        }
    });
    for (site_idx, site) in scenario.sites.iter().enumerate() {
        let shared = Arc::clone(world);
        sim.host(site.name.as_str(), move || {
            let world = Arc::clone(&shared);
            async move {
                site::participate(world, site_idx).await;
                Ok(())
            }
        });
    }
    sim
}

/// Steps until the run is over and everything has settled; returns when it was over.
fn drive(sim: &mut Sim<'_>, world: &World) -> Result<u64, String> {
    let mut due: Vec<(u64, usize, bool)> = Vec::new();
    for (idx, fault) in world.scenario.faults.iter().enumerate() {
        due.push((fault.from_ms, idx, true));
        due.push((fault.until_ms, idx, false));
    }
    due.sort_unstable();
    due.reverse();
    let mut over: Option<Duration> = None;
    loop {
        let now = sim.elapsed();
        while let Some((_, idx, begins)) = due.pop_if(|(at_ms, ..)| *at_ms <= millis(now)) {
            let what = &world.scenario.faults[idx].what;
            let line = format!("{:>7} {} {what:?}", millis(now), if begins { "begins" } else { "ends" });
            world.notes().trace.push(line);
            apply(sim, world, what, begins);
        }
        sim.step().map_err(|error| format!("the simulation broke: {error}"))?;
        if over.is_none() && world.notes().ended.is_some() {
            over = Some(now);
        }
        match over {
            Some(over) if due.is_empty() && now > over + SETTLE => return Ok(millis(over)),
            None if now > LIMIT => return Err(format!("the run has not ended: {}", judge::waits(world))),
            _ if !world.notes().complaints.is_empty() => return Err("it was cut short".to_owned()),
            _ => {}
        }
    }
}

fn apply(sim: &mut Sim<'_>, world: &World, what: &What, begins: bool) {
    let name = |idx: &usize| world.scenario.sites[*idx].name.clone();
    match (what, begins) {
        (What::Cut(idx), true) => sim.partition(name(idx), SERVER),
        (What::Cut(idx), false) => sim.repair(name(idx), SERVER),
        (What::CutThere(idx), true) => sim.partition_oneway(name(idx), SERVER),
        (What::CutThere(idx), false) => sim.repair_oneway(name(idx), SERVER),
        (What::CutBack(idx), true) => sim.partition_oneway(SERVER, name(idx)),
        (What::CutBack(idx), false) => sim.repair_oneway(SERVER, name(idx)),
        (What::Held(idx), true) => sim.hold(name(idx), SERVER),
        (What::Held(idx), false) => sim.release(name(idx), SERVER),
        (What::Lossy(idx, per_mille), true) => {
            sim.set_link_fail_rate(name(idx), SERVER, f64::from(*per_mille) / 1000.0);
        }
        (What::Lossy(idx, _), false) => sim.set_link_fail_rate(name(idx), SERVER, 0.0),
        (What::ServerDies, true) => sim.crash(SERVER),
        (What::ServerDies, false) => sim.bounce(SERVER),
        (What::SiteDies(idx), true) => sim.crash(name(idx)),
        (What::SiteDies(idx), false) => sim.bounce(name(idx)),
    }
}

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Panics on this thread, on which every host runs; a task that panics ends silently otherwise.
fn panics_so_far() -> u64 {
    static COUNTING: Once = Once::new();
    COUNTING.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            before(panic);
        }));
    });
    PANICS.with(Cell::get)
}
