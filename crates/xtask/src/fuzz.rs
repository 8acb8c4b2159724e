//! `cargo xtask fuzz`: builds and runs the attacks on decoders, and keeps the input of one that ended the process.
//!
//! It is built together with the program, so that both use the same features of everything and nothing is built twice.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

/// Runs the attack that `words` name; `all` is each target in turn, up to the first fault.
pub(crate) fn run(root: &Path, words: &[&str]) -> anyhow::Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--release", "--quiet", "-p", "sheaf", "-p", "sheaf-fuzz"]);
    let built = build.args(["--bin", "sheaf-fuzz"]).status().context("cargo cannot be run")?;
    anyhow::ensure!(built.success(), "the attacks cannot be built");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    let program = target.join("release/sheaf-fuzz");
    match words {
        ["all", rest @ ..] => {
            let listed =
                Command::new(&program).arg("--list").output().context("the attacks cannot be run")?;
            let listed = String::from_utf8(listed.stdout).context("the list is not text")?;
            for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
                let code = attack(&program, &[&[name], rest].concat())?;
                if code != 0 {
                    return Ok(ExitCode::from(code));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        words => Ok(ExitCode::from(attack(&program, words)?)),
    }
}

fn attack(program: &Path, words: &[&str]) -> anyhow::Result<u8> {
    let status = Command::new(program).args(words).status().context("the attack cannot be run")?;
    match (status.code(), words) {
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(2)),
        // No code: a signal ended it, such as that of an exhausted stack or of memory that was not granted.
        (None, [target, ..]) => {
            eprintln!("{target}: FAULT: the process ended by {status}");
            let kept = Command::new(program).args([target, "--crashed"]).status();
            kept.context("the input cannot be kept")?;
            Ok(1)
        }
        (None, []) => Ok(1),
    }
}
