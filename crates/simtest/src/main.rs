//! `cargo run --release -p sheaf-simtest -- FROM..TO [--keep-going]`: simulates seeds one after another and says which of them
//! fail.
//!
//! Parts may run beside each other. A seed that fails belongs into `tests/sim/seeds.txt`, whose seeds the suite runs from then on.
//! Exit codes: 0 all hold, 1 some do not, 2 not understood.

use std::process::ExitCode;

use sheaf_simtest::check_seed;

const USAGE: &str = "usage: cargo run --release -p sheaf-simtest -- FROM..TO [--keep-going]

  FROM..TO        the seeds, without TO itself
  --keep-going    on after a seed that fails; without it the first failure is told in full and ends it";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (range, keep_going) = match words.as_slice() {
        [range] => (range, false),
        [range, "--keep-going"] => (range, true),
        _ => return usage(),
    };
    let bounds = range.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let Some((from, to)) = bounds else { return usage() };
    soak(from, to, keep_going)
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn soak(from: u64, to: u64, keep_going: bool) -> ExitCode {
    let (mut simulated_ms, mut failed) = (0, Vec::new());
    for seed in from..to {
        match check_seed(seed) {
            Ok(report) => simulated_ms += report.took_ms,
            Err(error) if keep_going => {
                eprintln!("seed {seed}: {}", error.lines().next().unwrap_or_default());
                failed.push(seed);
            }
            Err(error) => {
                eprintln!("seed {seed}: {error}");
                return ExitCode::from(1);
            }
        }
    }
    let seeds = to.saturating_sub(from);
    eprintln!(
        "{seeds} seeds, {} failed: {failed:?}; {} s of simulated time until the runs were over",
        failed.len(),
        simulated_ms / 1000
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
