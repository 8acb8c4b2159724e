//! The whole system on a simulated network and clock: one coordinator and the real client loops of several sites, disturbed by
//! a schedule that a seed decides.
//!
//! Real: the coordinator with its writer, gate, folds and outboxes; the native front-end over gRPC and HTTPS; the server's
//! connection code with TLS; the client with its transports, retries and its directory on disk. Simulated: the network between
//! hosts (delay, loss, partitions, connections that never answer again), the clock and its skew, the moments at which
//! processes die and come back, and how long the stores take. The stores keep their content in memory across a crash of
//! their process, as a disk would; what was not written when the process died is lost.
//!
//! Known limits: a store call is either done whole or not at all (torn and lost writes are tested on the real stores); work of
//! the compute pool is done on the spot; cryptographic keys come from the operating system, so that TLS bytes differ between two
//! runs of a seed, and moments may by a few milliseconds. What happens to each host, and in which order, is the seed's alone. Never
//! shipped.

#![expect(clippy::unwrap_used, reason = "a simulation that cannot be set up fails where it stands")]

mod clock;
mod drive;
mod judge;
mod model;
mod net;
mod scenario;
mod server;
mod site;
mod slow;
mod world;

pub use drive::{Report, simulate};
pub use scenario::Scenario;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sheaf_domain::Digest;

/// Final models of undisturbed runs, by what decides them.
static UNDISTURBED: Mutex<BTreeMap<(usize, &'static str), Digest>> = Mutex::new(BTreeMap::new());

/// Runs the scenario of `seed` and judges it.
///
/// # Errors
/// Everything that was wrong, one line each; the seed reproduces it.
pub fn check_seed(seed: u64) -> Result<Report, String> {
    let scenario = Scenario::of(seed);
    let report = simulate(&scenario)?;
    if scenario.is_strict() {
        let expected = undisturbed(&scenario)?;
        if report.digest != expected {
            let found = report.digest.short();
            return Err(format!("the final model is {found}, undisturbed it is {}", expected.short()));
        }
    }
    Ok(report)
}

fn undisturbed(scenario: &Scenario) -> Result<Digest, String> {
    let lock = || UNDISTURBED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (scenario.sites.len(), scenario.strategy);
    if let Some(known) = lock().get(&key) {
        return Ok(*known);
    }
    let report = simulate(&scenario.undisturbed()).map_err(|error| format!("undisturbed: {error}"))?;
    lock().insert(key, report.digest);
    Ok(report.digest)
}
