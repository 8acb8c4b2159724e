//! The crash soak as a program: `sheaf-soak --program SHEAF --kills N [--seed S] [--points all|random|both]`.
//!
//! Ends with 0 when every kill left what it must; a check that fails is a panic that names the seed.

use std::process::ExitCode;

use sheaf_testkit::soak::{self, Options, Places};

const USAGE: &str = "usage: sheaf-soak --program SHEAF [--kills N] [--seed S] [--points all|random|both]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match options(&words) {
        Some(options) => {
            eprintln!("{}", soak::run(&options));
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn options(words: &[String]) -> Option<Options> {
    let mut options =
        Options { program: Default::default(), kills: 100, seed: 0, places: Places::Both, talk: true };
    let mut pairs = words.chunks_exact(2);
    for pair in &mut pairs {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--program" => options.program = std::path::absolute(value).ok()?,
            "--kills" => options.kills = value.parse().ok()?,
            "--seed" => options.seed = value.parse().ok()?,
            "--points" => {
                options.places = match value.as_str() {
                    "all" => Places::Named,
                    "random" => Places::Random,
                    "both" => Places::Both,
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    (pairs.remainder().is_empty() && options.program.is_file()).then_some(options)
}
