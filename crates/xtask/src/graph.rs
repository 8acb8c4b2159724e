//! The crates of the build and the edges between them, as cargo resolves them for this machine.
//!
//! `cargo metadata` gives names, licences, sources and declared edges. It also names crates that only a weak feature
//! mentions and that are never compiled, so what is really built is taken from `cargo tree`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use serde::Deserialize;

/// The part of `cargo metadata` that the checks read.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Graph {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
}

/// One package at one version.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One declared edge.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Absent for a normal edge, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Dependency {
    pub(crate) fn is_dev(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

impl Graph {
    /// Reads the graph of the workspace at `root` from cargo.
    pub(crate) fn load(root: &Path) -> anyhow::Result<Graph> {
        let host = host()?;
        let text =
            cargo(root, &["metadata", "--format-version", "1", "--locked", "--filter-platform", &host])?;
        serde_json::from_str(&text).context("cargo metadata was not understood")
    }

    /// The packages of the workspace itself.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Keeps only the packages named.
    pub(crate) fn restrict_to(mut self, built: &BTreeSet<(String, String)>) -> Graph {
        self.packages.retain(|package| built.contains(&(package.name.clone(), package.version.clone())));
        self
    }
}

/// Name and version of every package that is compiled for this machine, tests and build scripts included.
pub(crate) fn built(root: &Path) -> anyhow::Result<BTreeSet<(String, String)>> {
    let tree = [
        "tree",
        "--workspace",
        "--locked",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let text = cargo(root, &tree)?;
    Ok(text.lines().filter_map(name_and_version).collect())
}

fn name_and_version(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let version = words.next()?.strip_prefix('v')?;
    Some((name.to_owned(), version.to_owned()))
}

fn host() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("rustc does not start")?;
    let text = String::from_utf8(output.stdout).context("rustc -vV is not text")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn cargo(root: &Path, words: &[&str]) -> anyhow::Result<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(program).args(words).current_dir(root).output().context("cargo does not start")?;
    if !output.status.success() {
        bail!("cargo {} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("cargo's output is not text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_tree_names_one_package() {
        let pair = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(name_and_version("tokio v1.54.1 (*)"), pair("tokio", "1.54.1"));
        assert_eq!(name_and_version("sheaf-domain v0.1.0 (crates/domain)"), pair("sheaf-domain", "0.1.0"));
        assert_eq!(name_and_version(""), None);
    }

    #[test]
    fn what_is_not_built_is_left_out() {
        let package =
            |name: &str| Package { name: name.into(), version: "1.0.0".into(), ..Package::default() };
        let graph = Graph { packages: vec![package("ring"), package("rustls")], workspace_members: vec![] };
        let built = BTreeSet::from([("rustls".to_owned(), "1.0.0".to_owned())]);
        let names: Vec<String> =
            graph.restrict_to(&built).packages.into_iter().map(|package| package.name).collect();
        assert_eq!(names, ["rustls"]);
    }
}
