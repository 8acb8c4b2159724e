//! `cargo xtask deny`: the rules of `deny.toml` that need no network.
//!
//! Reads the same file as cargo-deny and holds, over what is compiled for this machine: licences, banned crates,
//! crates that may be there in one version only, and sources. Advisories need a database from the network and are
//! left to cargo-deny. A key of the sections read here that is not understood is an error, never ignored.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context;
use serde::Deserialize;

use crate::{
    graph::{self, Graph, Package},
    report::Report,
    spdx,
};

/// The sections of `deny.toml` that are held here; the others are cargo-deny's.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Licences {
    #[serde(rename = "version")]
    _version: Option<u32>,
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
    #[serde(rename = "confidence-threshold")]
    _confidence_threshold: Option<f64>,
    #[serde(rename = "unused-allowed-license")]
    _unused_allowed_license: Option<String>,
}

/// Licences allowed to one crate only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Bans {
    #[serde(rename = "multiple-versions")]
    _multiple_versions: String,
    #[serde(rename = "multiple-versions-include-dev")]
    _multiple_versions_include_dev: Option<bool>,
    #[serde(rename = "wildcards")]
    _wildcards: String,
    #[serde(rename = "allow-wildcard-paths")]
    _allow_wildcard_paths: Option<bool>,
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    deny_multiple_versions: bool,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Sources {
    #[serde(rename = "unknown-registry")]
    _unknown_registry: String,
    #[serde(rename = "unknown-git")]
    _unknown_git: String,
    allow_registry: Vec<String>,
    #[serde(rename = "allow-git", default)]
    _allow_git: Vec<String>,
}

/// Checks the workspace at `root`.
pub(crate) fn run(root: &Path) -> anyhow::Result<Report> {
    let text = fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let policy = parse(&text)?;
    let graph = Graph::load(root)?.restrict_to(&graph::built(root)?);
    let mut report = Report::new("deny");
    report.notes.push(format!("{} packages are compiled for this machine", graph.packages.len()));
    check(&policy, &graph, &mut report);
    Ok(report)
}

fn parse(text: &str) -> anyhow::Result<Policy> {
    toml::from_str(text).context("deny.toml is not understood")
}

fn check(policy: &Policy, graph: &Graph, report: &mut Report) {
    for package in &graph.packages {
        check_licence(&policy.licenses, package, report);
        check_source(&policy.sources, package, report);
    }
    for ban in &policy.bans.deny {
        check_ban(ban, graph, report);
    }
}

fn check_licence(licences: &Licences, package: &Package, report: &mut Report) {
    let excepted = licences.exceptions.iter().filter(|exception| exception.name == package.name);
    let allowed: BTreeSet<&str> = licences
        .allow
        .iter()
        .chain(excepted.flat_map(|exception| &exception.allow))
        .map(String::as_str)
        .collect();
    let expression = package.license.as_deref().unwrap_or_default();
    if !spdx::is_met(expression, &|licence| allowed.contains(licence)) {
        report.add(place(package), 0, "licence", format!("the licence {expression:?} is not allowed"));
    }
}

fn check_source(sources: &Sources, package: &Package, report: &mut Report) {
    let Some(source) = package.source.as_deref() else { return };
    let registry = source.strip_prefix("registry+").or_else(|| source.strip_prefix("sparse+"));
    if !registry.is_some_and(|registry| sources.allow_registry.iter().any(|allowed| allowed == registry)) {
        report.add(place(package), 0, "source", format!("{source} is not an allowed registry"));
    }
}

fn check_ban(ban: &Ban, graph: &Graph, report: &mut Report) {
    let found: Vec<&Package> = graph.packages.iter().filter(|package| package.name == ban.name).collect();
    if ban.deny_multiple_versions && found.len() > 1 {
        let versions: Vec<&str> = found.iter().map(|package| package.version.as_str()).collect();
        let message = format!("compiled in versions {}: {}", versions.join(" and "), ban.reason);
        report.add(&ban.name, 0, "one-version", message);
    } else if !ban.deny_multiple_versions {
        for package in found {
            report.add(place(package), 0, "banned", ban.reason.clone());
        }
    }
}

fn place(package: &Package) -> String {
    format!("{} {}", package.name, package.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0"]
        exceptions = [{ crate = "special", allow = ["BSD-3-Clause"] }]
        [bans]
        multiple-versions = "allow"
        wildcards = "deny"
        deny = [
          { crate = "openssl", reason = "one TLS stack" },
          { crate = "tokio", deny-multiple-versions = true, reason = "one runtime" },
        ]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
        allow-registry = ["https://example.org/index"]
    "#;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some("MIT OR GPL-3.0".to_owned()),
            source: Some("registry+https://example.org/index".to_owned()),
            ..Package::default()
        }
    }

    fn checked(packages: Vec<Package>) -> Report {
        let mut report = Report::new("deny");
        check(&parse(POLICY).unwrap(), &Graph { packages, workspace_members: vec![] }, &mut report);
        report
    }

    #[test]
    fn an_allowed_graph_passes() {
        let ours = Package { source: None, license: Some("Apache-2.0".into()), ..package("sheaf", "0.1.0") };
        let report = checked(vec![
            ours,
            package("tokio", "1.2.3"),
            package("serde", "1.0.0"),
            package("serde", "2.0.0"),
        ]);
        assert!(report.is_clean(), "{report}");
    }

    #[test]
    fn a_banned_crate_is_reported_with_the_reason() {
        let report = checked(vec![package("openssl", "0.10.1")]);
        assert_eq!(report.rules(), ["banned"]);
        assert!(report.to_string().contains("openssl 0.10.1: one TLS stack"), "{report}");
    }

    #[test]
    fn a_second_version_of_a_chosen_crate_is_reported() {
        let report = checked(vec![package("tokio", "1.2.3"), package("tokio", "2.0.0")]);
        assert_eq!(report.rules(), ["one-version"]);
    }

    #[test]
    fn a_licence_outside_the_list_is_reported_unless_excepted() {
        let licensed = |name: &str, licence: Option<&str>| Package {
            license: licence.map(str::to_owned),
            ..package(name, "1.0.0")
        };
        assert_eq!(checked(vec![licensed("x", Some("BSD-3-Clause"))]).rules(), ["licence"]);
        assert_eq!(checked(vec![licensed("x", None)]).rules(), ["licence"]);
        assert!(checked(vec![licensed("special", Some("BSD-3-Clause"))]).is_clean());
    }

    #[test]
    fn another_registry_and_git_are_reported() {
        let from = |source: &str| Package { source: Some(source.to_owned()), ..package("x", "1.0.0") };
        assert_eq!(checked(vec![from("registry+https://elsewhere.example/index")]).rules(), ["source"]);
        assert_eq!(checked(vec![from("git+https://example.org/x?rev=1")]).rules(), ["source"]);
        assert!(checked(vec![from("sparse+https://example.org/index")]).is_clean());
    }

    #[test]
    fn a_key_that_is_not_understood_is_an_error() {
        let error = parse(&POLICY.replace("wildcards", "wildcats")).unwrap_err();
        assert!(format!("{error:#}").contains("wildcats"), "{error:#}");
    }

    #[test]
    fn the_policy_of_this_workspace_is_understood() {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deny.toml")).unwrap();
        let policy = parse(&text).unwrap();
        for name in ["openssl", "native-tls", "ring", "serde_yaml", "serde-pickle"] {
            assert!(policy.bans.deny.iter().any(|ban| ban.name == name), "{name} is not banned");
        }
        for name in ["tonic", "prost", "rustls", "tokio", "hyper"] {
            let held = policy.bans.deny.iter().any(|ban| ban.name == name && ban.deny_multiple_versions);
            assert!(held, "{name} may be there twice");
        }
    }
}
