//! Simulations of the whole system: some fixed seeds, every seed that failed once, and that a seed decides everything.

#![expect(clippy::print_stdout, reason = "the seed is printed on failure")]

use std::collections::BTreeMap;
use std::path::Path;

use sheaf_simtest::{Scenario, check_seed, simulate};

/// Seeds of every run of the suite.
const FIXED: std::ops::Range<u64> = 0..12;

fn check(seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        match check_seed(seed) {
            Ok(report) => {
                println!("seed {seed}: over after {} ms, {} lines", report.took_ms, report.trace.len())
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

#[test]
fn runs_end_as_if_nothing_had_happened() {
    check(FIXED);
}

#[test]
fn seeds_that_failed_once_hold() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sim/seeds.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    check(lines.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()));
}

/// What happened to each host, in its order, without the times.
fn by_host(trace: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in trace {
        let what = line.trim_start().trim_start_matches(|char: char| char.is_ascii_digit()).trim_start();
        let host = what.split_whitespace().next().unwrap_or_default();
        hosts.entry(host).or_default().push(what);
    }
    hosts
}

#[test]
fn a_seed_decides_what_happens_to_every_host() {
    for seed in [1, 5, 8] {
        let traces = [(); 2].map(|()| simulate(&Scenario::of(seed)).unwrap().trace);
        assert_eq!(by_host(&traces[0]), by_host(&traces[1]), "seed {seed}");
        assert!(traces[0].len() > 20, "nothing happened: {:?}", traces[0]);
    }
}

#[test]
fn seeds_differ() {
    let traces = [2, 3].map(|seed| simulate(&Scenario::of(seed)).unwrap().trace);
    assert_ne!(traces[0], traces[1]);
}
