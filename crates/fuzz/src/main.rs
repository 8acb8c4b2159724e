//! `sheaf-fuzz`: attacks one decoder for a while; started by `cargo xtask fuzz`.
//!
//! Exit codes: 0 clean, 1 a fault was found (its input is in `fuzz/crashes`), 2 it could not be done.

#![expect(clippy::print_stdout, reason = "a command line that reports")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sheaf_fuzz::{Crash, Driver, Target, Trace, corpus, targets};
use sheaf_runtime::SystemClock;

const USAGE: &str = "usage: sheaf-fuzz --list
       sheaf-fuzz TARGET [--minutes N | --seconds N] [--seed S] [--keep N]
       sheaf-fuzz TARGET --crashed    keeps the input that ended the run before

  --keep N   afterwards, keep N of the short inputs that showed something new in fuzz/corpus";

/// What the words of the command say.
#[derive(Debug)]
struct Order {
    target: &'static Target,
    time: Duration,
    seed: u64,
    keep: usize,
    crashed: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words == ["--list"] {
        for target in &targets::ALL {
            println!("{:<12} {}", target.name, target.about);
        }
        return ExitCode::SUCCESS;
    }
    let Some(order) = read(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let done = if order.crashed { keep_trace(order.target) } else { attack(&order) };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

fn read(words: &[String]) -> Option<Order> {
    let (name, mut rest) = words.split_first()?;
    let seed = SystemClock::shared().now().as_millis();
    let time = Duration::from_secs(60);
    let mut order = Order { target: targets::named(name)?, time, seed, keep: 0, crashed: false };
    while let Some((word, tail)) = rest.split_first() {
        if word == "--crashed" {
            order.crashed = true;
            rest = tail;
            continue;
        }
        let (value, tail) = tail.split_first()?;
        match word.as_str() {
            "--minutes" => {
                order.time = Duration::try_from_secs_f64(60.0 * value.parse::<f64>().ok()?).ok()?
            }
            "--seconds" => order.time = Duration::try_from_secs_f64(value.parse().ok()?).ok()?,
            "--seed" => order.seed = value.parse().ok()?,
            "--keep" => order.keep = value.parse().ok()?,
            _ => return None,
        }
        rest = tail;
    }
    Some(order)
}

fn attack(order: &Order) -> std::io::Result<ExitCode> {
    let Order { target, time, seed, .. } = order;
    println!("{}: {} for {time:?}, seed {seed}", target.name, target.about);
    let clock = SystemClock::shared();
    let folder = traces();
    std::fs::create_dir_all(&folder)?;
    let trace = Trace::create(&Trace::path(&folder, target.name))?;
    let inputs = corpus::load(&corpus::home(), target.name)?;
    let mut driver = Driver::new(target, inputs, *seed, clock.as_ref(), Some(trace));
    let done = driver.replay().and_then(|()| driver.run(*time));
    let tally = driver.tally();
    println!(
        "{}: {} inputs, {} accepted, {} behaviours, slowest {:?}, at most {:.0} % of its memory",
        target.name,
        tally.inputs,
        tally.accepted,
        tally.behaviours,
        tally.slowest,
        100.0 * tally.heap_share
    );
    match done {
        Ok(()) => {
            let kept = corpus::keep_found(&corpus::home(), target.name, driver.found(), order.keep)?;
            if kept > 0 {
                println!("{}: {kept} inputs kept in fuzz/corpus", target.name);
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(crash) => tell(target, &crash),
    }
}

fn tell(target: &Target, crash: &Crash) -> std::io::Result<ExitCode> {
    let path = corpus::keep_crash(&corpus::home(), target.name, &crash.input)?;
    println!("{}: FAULT: {}", target.name, crash.finding);
    println!("{}: {} bytes in {}", target.name, crash.input.len(), path.display());
    Ok(ExitCode::from(1))
}

fn keep_trace(target: &Target) -> std::io::Result<ExitCode> {
    let input = Trace::read(&Trace::path(&traces(), target.name))?;
    let path = corpus::keep_crash(&corpus::home(), target.name, &input)?;
    println!("{}: {} bytes that ended the process in {}", target.name, input.len(), path.display());
    Ok(ExitCode::from(1))
}

fn traces() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")).join("fuzz")
}
