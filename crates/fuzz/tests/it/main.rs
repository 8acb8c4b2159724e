//! Every decoder under attack for a while, after everything committed was tried again.
//!
//! `SHEAF_FUZZ_SECONDS` says for how long each (default 15, at most 150: a test may not take three minutes),
//! `SHEAF_FUZZ_SEED` from which seed (default 1).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its seed"
)]

use std::path::Path;
use std::time::Duration;

use sheaf_fuzz::{Driver, Trace, corpus, targets};
use sheaf_runtime::SystemClock;

const SECONDS_DEFAULT: u64 = 15;
const SECONDS_MAX: u64 = 150;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value:?}")))
}

fn attack(name: &str) {
    let target = targets::named(name).expect("it is listed");
    let seed = from_env("SHEAF_FUZZ_SEED", 1);
    let seconds = from_env("SHEAF_FUZZ_SECONDS", SECONDS_DEFAULT).min(SECONDS_MAX);
    let clock = SystemClock::shared();
    let inputs = corpus::load(&corpus::home(), name).unwrap();
    let path = Trace::path(Path::new(env!("CARGO_TARGET_TMPDIR")), name);
    println!("{name}: seed {seed}; the input under trial is in {}", path.display());
    let trace = Trace::create(&path).unwrap();
    let mut driver = Driver::new(target, inputs, seed, clock.as_ref(), Some(trace));
    let done = driver.replay().and_then(|()| driver.run(Duration::from_secs(seconds)));
    println!("{name}: {:?}", driver.tally());
    if let Err(crash) = done {
        let kept = corpus::keep_crash(Path::new(env!("CARGO_TARGET_TMPDIR")), name, &crash.input).unwrap();
        panic!("seed {seed}: {}; the input is in {}", crash.finding, kept.display());
    }
}

macro_rules! attacks {
    ($($test:ident: $name:literal;)*) => {
        $(#[test]
        fn $test() {
            attack($name);
        })*

        const ATTACKED: &[&str] = &[$($name),*];
    };
}

attacks! {
    native_protobuf_messages_are_decoded_within_bounds: "protobuf";
    native_json_messages_are_decoded_within_bounds: "json";
    operators_json_bodies_are_decoded_within_bounds: "admin";
    npy_arrays_are_decoded_within_bounds: "npy";
    npz_archives_are_decoded_within_bounds: "npz";
    safetensors_files_are_decoded_within_bounds: "safetensors";
    plans_are_decoded_within_bounds: "plan";
    kits_are_decoded_within_bounds: "kit";
    certificate_requests_are_decoded_within_bounds: "csr";
    certificates_are_decoded_within_bounds: "certificate";
    signed_requests_are_decoded_within_bounds: "signed";
    range_headers_are_decoded_within_bounds: "range";
    exported_journals_are_decoded_within_bounds: "journal";
    results_of_trainers_are_decoded_within_bounds: "result";
    tables_of_examples_are_decoded_within_bounds: "csv";
    configurations_are_decoded_within_bounds: "settings";
    pushed_objects_are_read_within_bounds: "push";
    headers_of_objects_are_read_within_bounds: "object";
    messages_of_flower_are_decoded_within_bounds: "flower";
    bundles_are_read_within_bounds: "fab";
    proofs_of_flowers_peers_are_read_within_bounds: "flower-headers";
    answers_of_the_oldest_flower_clients_are_decoded_within_bounds: "join";
    frames_of_openfl_are_read_within_bounds: "openfl-frames";
    results_of_openfl_are_decoded_within_bounds: "openfl-results";
    plans_of_openfl_are_decoded_within_bounds: "openfl-plan";
}

#[test]
fn every_target_is_attacked_and_takes_its_own_samples() {
    assert_eq!(targets::ALL.map(|target| target.name), ATTACKED);
    for target in &targets::ALL {
        let samples = (target.samples)();
        assert!(!samples.is_empty(), "{} has no samples", target.name);
        let refused = samples
            .iter()
            .map(|sample| (sample, sheaf_fuzz::attempt(target, sample).outcome))
            .find(|(_, outcome)| !outcome.as_ref().is_ok_and(|verdict| verdict.is_accepted()));
        assert!(refused.is_none(), "{}: {refused:?}", target.name);
    }
}
