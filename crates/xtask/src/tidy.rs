//! `cargo xtask tidy`: every house rule over every file and every arrow.

use std::path::Path;

use crate::{
    arrows, census,
    files::{self, TextFile},
    graph::Graph,
    report::Report,
    rules::{catalogue, manifest, source, text},
};

/// Checks the workspace at `root`.
pub(crate) fn run(root: &Path) -> anyhow::Result<Report> {
    let graph = Graph::load(root)?;
    let files = files::read_all(root)?;
    let mut report = check_files(&files)?;
    arrows::check(&graph, &mut report);
    Ok(report)
}

fn check_files(files: &[TextFile]) -> anyhow::Result<Report> {
    let mut report = Report::new("tidy");
    for file in files {
        text::check(file, &mut report);
        if file.is_rust() {
            source::check(file, &mut report);
        }
        if manifest::is_crate_manifest(file) {
            manifest::check(file, &mut report)?;
        }
    }
    catalogue::check(files, &mut report);
    census::check(files, &mut report);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_meets_every_sort_of_file() {
        let file = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file("crates/x/src/lib.rs", "fn a() { todo!() }\n"),
            file("crates/x/Cargo.toml", "[package]\nname = \"x\" \n"),
            file("docs/a.md", "no line break"),
        ];
        let report = check_files(&files).unwrap();
        for rule in ["opening", "no-todo", "lints", "manifest", "white-space"] {
            assert!(report.rules().contains(&rule), "{rule} is not among {:?}", report.rules());
        }
        assert!(report.to_string().ends_with(&format!("tidy: {} violations\n", report.violations.len())));
    }
}
