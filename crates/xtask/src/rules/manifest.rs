//! Rules about `Cargo.toml` files: every crate opts into the shared lints, and every version is declared once.

use anyhow::Context;
use toml::Table;

use crate::{files::TextFile, report::Report};

const DEPENDENCY_TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// Whether the file is the manifest of a crate (not the workspace's own).
pub(crate) fn is_crate_manifest(file: &TextFile) -> bool {
    file.path.ends_with("/Cargo.toml") && !file.path.contains("/testdata/")
}

/// Checks one manifest.
///
/// # Errors
/// If the file is not TOML.
pub(crate) fn check(file: &TextFile, report: &mut Report) -> anyhow::Result<()> {
    let manifest: Table = file.text.parse().with_context(|| format!("{} is not TOML", file.path))?;
    if !says_workspace(manifest.get("lints")) {
        report.add(&file.path, 0, "lints", "the crate does not opt into the lints: [lints] workspace = true");
    }
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        if !says_workspace(manifest.get("package").and_then(|package| package.get(key))) {
            report.add(&file.path, 0, "manifest", format!("{key} is declared once, in the workspace"));
        }
    }
    for table in DEPENDENCY_TABLES {
        check_dependencies(file, manifest.get(*table).and_then(toml::Value::as_table), report);
    }
    Ok(())
}

fn check_dependencies(file: &TextFile, dependencies: Option<&Table>, report: &mut Report) {
    for (name, value) in dependencies.into_iter().flatten() {
        if !says_workspace(Some(value)) {
            let message = format!("{name}: versions and features are declared once, in the workspace");
            report.add(&file.path, 0, "manifest", message);
        }
    }
}

fn says_workspace(value: Option<&toml::Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[package]\nname = \"x\"\nversion.workspace = true\nedition.workspace = true\n\
         rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n";

    fn checked(text: &str) -> Report {
        let mut report = Report::new("tidy");
        let file = TextFile { path: "crates/x/Cargo.toml".to_owned(), text: text.to_owned() };
        check(&file, &mut report).unwrap();
        report
    }

    #[test]
    fn a_manifest_that_takes_all_from_the_workspace_passes() {
        let text = format!("{HEAD}[lints]\nworkspace = true\n[dependencies]\nserde.workspace = true\n");
        assert!(checked(&text).is_clean());
    }

    #[test]
    fn a_crate_without_the_shared_lints_is_found() {
        assert_eq!(checked(HEAD).rules(), ["lints"]);
        assert_eq!(checked(&format!("{HEAD}[lints]\nworkspace = false\n")).rules(), ["lints"]);
    }

    #[test]
    fn a_version_of_its_own_is_found() {
        let text = format!("{HEAD}[lints]\nworkspace = true\n[dev-dependencies]\nserde = \"1\"\n");
        let report = checked(&text);
        assert_eq!(report.rules(), ["manifest"]);
        assert!(report.to_string().contains("serde"), "{report}");
        let text =
            HEAD.replace("edition.workspace = true", "edition = \"2021\"") + "[lints]\nworkspace = true\n";
        assert_eq!(checked(&text).rules(), ["manifest"]);
    }

    #[test]
    fn a_broken_manifest_is_an_error_that_names_the_file() {
        let file = TextFile { path: "crates/x/Cargo.toml".to_owned(), text: "[".to_owned() };
        let error = check(&file, &mut Report::new("tidy")).unwrap_err();
        assert!(error.to_string().contains("crates/x/Cargo.toml"));
    }
}
