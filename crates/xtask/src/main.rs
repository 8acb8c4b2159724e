//! The checks a machine makes of this workspace, run as `cargo xtask NAME`.
//!
//! `tidy` holds the house rules that the compiler and clippy cannot see; `deny` holds the rules of `deny.toml` that
//! need no network. Both only read: nothing is changed, downloaded or fixed. `soak` kills the real program for as long as
//! wanted; `fuzz` attacks a decoder. Exit codes: 0 clean, 1 violations or a fault, 2 the check could not be made.

mod arrows;
mod census;
mod deny;
mod files;
mod fuzz;
mod graph;
mod lexer;
mod report;
mod rules;
mod soak;
mod spdx;
mod tidy;

use std::{path::Path, process::ExitCode};

use anyhow::Context;

use crate::report::Report;

const USAGE: &str = "usage: cargo xtask tidy    check the house rules
       cargo xtask deny    check deny.toml, as far as it needs no network
       cargo xtask soak [--kills N] [--seed S] [--points all|random|both]
                           kill the real program again and again; nothing acknowledged may be lost
       cargo xtask fuzz TARGET [--minutes N | --seconds N] [--seed S] [--keep N]
                           attack a decoder; --list names them, all attacks each in turn";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => root().and_then(|root| tidy::run(&root)).map(|report| finish(&report)),
        ["deny"] => root().and_then(|root| deny::run(&root)).map(|report| finish(&report)),
        ["soak", words @ ..] => root().and_then(|root| soak::run(&root, words)),
        ["fuzz", words @ ..] if !words.is_empty() => root().and_then(|root| fuzz::run(&root, words)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn finish(report: &Report) -> ExitCode {
    eprint!("{report}");
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// The directory of the workspace this program was built from.
fn root() -> anyhow::Result<std::path::PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .context("the crate does not lie in crates/xtask")
}
