//! `cargo xtask soak`: builds the program and the crash soak of `testkit`, and runs one with the other.
//!
//! A program of its own, so that the checks of this one stay quick to build. Parts of a long soak are runs with different seeds.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

/// Runs the soak with what the command line says; its exit code is this program's.
pub(crate) fn run(root: &Path, words: &[&str]) -> anyhow::Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The program's own features hold for both, so that nothing is built twice.
    let packages = ["--package", "sheaf", "--package", "sheaf-testkit"];
    let built = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--release", "--locked", "--quiet", "--bins"])
        .args(packages)
        .status()
        .context("cargo cannot be started")?;
    if !built.success() {
        bail!("the program or the soak does not build");
    }
    // Both lie where this program lies.
    let own = std::env::current_exe().context("this program's own path")?;
    let beside = |name: &str| own.with_file_name(name);
    let status = Command::new(beside("sheaf-soak"))
        .arg("--program")
        .arg(beside("sheaf"))
        .args(words)
        .status()
        .context("the soak cannot be started")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
