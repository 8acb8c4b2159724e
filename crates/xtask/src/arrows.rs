//! Which crate of ours may use which: the table of `ARCHITECTURE.md`, and the check that no arrow is missing from it.
//!
//! An arrow that is not drawn here is a design change: draw it in both places, with its reason, in a commit of its own.

use crate::{
    graph::{Graph, Package},
    report::Report,
};

/// Rank 0: pure. No runtime, no clock, no files, no sockets.
pub(crate) const RANK_0: &[&str] =
    &["domain", "tensor", "messages", "aggregate", "privacy", "strategy", "engine", "relay"];
/// Rank 1: one capability each.
const RANK_1: &[&str] = &["runtime", "telemetry", "store", "blob", "pki", "sandbox"];
/// Rank 3: front-ends.
const FRONT_ENDS: &[&str] = &["wire-flower", "wire-openfl", "wire-nvflare", "wire-native", "admin-api"];
/// What every front-end may use.
const OF_FRONT_ENDS: &[&str] = &["coordinator", "domain", "tensor", "pki", "runtime", "telemetry"];

/// Outside crates that would let rank 0 know of time, files or sockets.
const IMPURE: &[&str] =
    &["tokio", "tokio-util", "hyper", "hyper-util", "axum", "sqlx", "rustix", "libc", "tracing", "metrics"];

/// Who has decoders that see bytes of a peer or of a file: what the attacks on them use.
const OF_FUZZ: &[&str] = &[
    "domain",
    "tensor",
    "messages",
    "runtime",
    "pki",
    "wire-native",
    "wire-flower",
    "wire-openfl",
    "admin-api",
    "server",
    "client",
];

/// Whether `from` may use `to` in what it ships.
fn is_drawn(from: &str, to: &str) -> bool {
    match from {
        "tensor" => false,
        "domain" | "aggregate" | "privacy" => to == "tensor",
        "messages" => ["domain", "tensor"].contains(&to),
        "strategy" => ["domain", "tensor", "aggregate", "privacy"].contains(&to),
        "engine" => ["domain", "strategy"].contains(&to),
        "relay" => to == "domain",
        "runtime" | "telemetry" => to == "domain",
        "store" | "blob" | "pki" | "sandbox" => ["domain", "runtime", "telemetry"].contains(&to),
        "coordinator" => RANK_0.contains(&to) || RANK_1.contains(&to),
        "wire-native" => to == "messages" || OF_FRONT_ENDS.contains(&to),
        // It starts the applications of its stack.
        "wire-flower" => ["relay", "sandbox"].contains(&to) || OF_FRONT_ENDS.contains(&to),
        front_end if FRONT_ENDS.contains(&front_end) => OF_FRONT_ENDS.contains(&to),
        "dashboard" => ["coordinator", "telemetry"].contains(&to),
        "server" => {
            let service = ["coordinator", "dashboard"].contains(&to);
            service || RANK_0.contains(&to) || RANK_1.contains(&to) || FRONT_ENDS.contains(&to)
        }
        "client" => ["messages", "domain", "tensor", "privacy", "pki", "runtime"].contains(&to),
        "bench" => {
            let pure = ["domain", "tensor", "messages", "aggregate"].contains(&to);
            let capability = ["runtime", "store", "blob", "pki"].contains(&to);
            pure || capability || to == "client"
        }
        "simulate" => ["server", "client"].contains(&to),
        "cli" => !["testkit", "simtest", "xtask", "fuzz"].contains(&to),
        "python" => ["client", "strategy", "tensor"].contains(&to),
        "fuzz" => OF_FUZZ.contains(&to),
        "testkit" => RANK_0.contains(&to) || RANK_1.contains(&to),
        // Never shipped: the whole system on a simulated network.
        "simtest" => !["cli", "xtask"].contains(&to),
        _ => false,
    }
}

/// Whether the tests of `from` may use `to`: what it ships, the pure crates, and the test kit. A front-end's suite runs a
/// whole coordinator on real stores against the client of its wire.
fn is_drawn_for_tests(from: &str, to: &str) -> bool {
    let front_end = from.starts_with("wire-") || from == "admin-api";
    let whole_service = front_end && ["store", "blob", "client"].contains(&to);
    to == "testkit" || RANK_0.contains(&to) || whole_service || is_drawn(from, to)
}

/// Our name for a package of the workspace: the folder under `crates/`.
pub(crate) fn short_name(package: &str) -> &str {
    match package {
        "sheaf" => "cli",
        other => other.strip_prefix("sheaf-").unwrap_or(other),
    }
}

/// Reports every undrawn arrow, every impure dependency of rank 0 and every folder that does not bear its crate's name.
pub(crate) fn check(graph: &Graph, report: &mut Report) {
    let members: Vec<&str> = graph.members().map(|package| package.name.as_str()).collect();
    for package in graph.members() {
        let from = short_name(&package.name);
        check_folder(package, from, report);
        for edge in &package.dependencies {
            let to = short_name(&edge.name);
            if members.contains(&edge.name.as_str()) {
                check_arrow(from, to, edge.is_dev(), report);
            } else if !edge.is_dev() {
                check_purity(from, &edge.name, report);
            }
        }
    }
}

fn check_folder(package: &Package, short: &str, report: &mut Report) {
    let folder = package.manifest_path.parent().and_then(|folder| folder.file_name());
    if folder.is_none_or(|folder| folder != short) {
        report.add(
            &package.name,
            0,
            "folder",
            format!("the crate lies in a folder that is not called {short}"),
        );
    }
}

fn check_arrow(from: &str, to: &str, is_dev: bool, report: &mut Report) {
    let drawn = if is_dev { is_drawn_for_tests(from, to) } else { is_drawn(from, to) };
    if !drawn {
        let kind = if is_dev { "test arrow" } else { "arrow" };
        report.add(place_of(from), 0, "arrow", format!("the {kind} {from} → {to} is not drawn"));
    }
}

fn check_purity(from: &str, to: &str, report: &mut Report) {
    if RANK_0.contains(&from) && IMPURE.contains(&to) {
        report.add(place_of(from), 0, "pure", format!("{from} is rank 0 and may not use {to}"));
    }
    if to == "anyhow" && !["cli", "xtask"].contains(&from) {
        report.add(place_of(from), 0, "errors", "anyhow is for cli, xtask and tests; name the error instead");
    }
}

fn place_of(short: &str) -> String {
    format!("crates/{short}/Cargo.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Dependency;

    fn package(name: &str, edges: &[(&str, Option<&str>)]) -> Package {
        let dependencies = edges
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
            .collect();
        let manifest_path = format!("/somewhere/crates/{}/Cargo.toml", short_name(name)).into();
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            manifest_path,
            dependencies,
            ..Package::default()
        }
    }

    fn checked(packages: Vec<Package>) -> Report {
        let workspace_members = packages.iter().map(|package| package.id.clone()).collect();
        let mut report = Report::new("tidy");
        check(&Graph { packages, workspace_members }, &mut report);
        report
    }

    #[test]
    fn drawn_arrows_pass() {
        let report = checked(vec![
            package("sheaf-tensor", &[]),
            package("sheaf-domain", &[("sheaf-tensor", None), ("serde", None)]),
            package(
                "sheaf-store",
                &[("sheaf-domain", None), ("sheaf-testkit", Some("dev")), ("tokio", None)],
            ),
            package("sheaf-testkit", &[("sheaf-domain", None)]),
            package("sheaf", &[("sheaf-store", None), ("anyhow", None)]),
        ]);
        assert!(report.is_clean(), "{report}");
    }

    #[test]
    fn an_undrawn_arrow_is_reported_by_its_ends() {
        let report = checked(vec![
            package("sheaf-tensor", &[("sheaf-domain", None)]),
            package("sheaf-domain", &[]),
            package("sheaf-wire-native", &[("sheaf-store", None)]),
            package("sheaf-store", &[]),
        ]);
        let text = report.to_string();
        assert_eq!(report.rules(), ["arrow", "arrow"]);
        assert!(text.contains("tensor → domain") && text.contains("wire-native → store"), "{text}");
    }

    #[test]
    fn nobody_ships_the_test_kit_and_tests_do_not_reach_upwards() {
        let report = checked(vec![
            package("sheaf", &[("sheaf-testkit", None)]),
            package("sheaf-testkit", &[]),
            package("sheaf-engine", &[("sheaf-coordinator", Some("dev"))]),
            package("sheaf-coordinator", &[]),
        ]);
        assert_eq!(report.rules(), ["arrow", "arrow"]);
    }

    #[test]
    fn a_crate_that_nobody_has_drawn_may_use_nothing_of_ours() {
        let report =
            checked(vec![package("sheaf-novel", &[("sheaf-domain", None)]), package("sheaf-domain", &[])]);
        assert_eq!(report.rules(), ["arrow"]);
    }

    #[test]
    fn rank_0_knows_no_runtime_and_libraries_name_their_errors() {
        let report = checked(vec![
            package("sheaf-engine", &[("tokio", None), ("tokio", Some("dev"))]),
            package("sheaf-blob", &[("anyhow", None), ("anyhow", Some("dev"))]),
        ]);
        assert_eq!(report.rules(), ["pure", "errors"]);
    }

    #[test]
    fn a_folder_bears_the_name_of_its_crate() {
        let mut stray = package("sheaf-blob", &[]);
        stray.manifest_path = "/somewhere/crates/blobs/Cargo.toml".into();
        assert_eq!(checked(vec![stray]).rules(), ["folder"]);
    }
}
