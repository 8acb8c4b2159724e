//! Rules about every text file: no path of one machine, no private registry, no stray white space.
//!
//! What is looked for is put together from parts, so that this file does not find itself.

use crate::{files::TextFile, report::Report};

/// Directories of one machine. They count where a path begins, not inside a longer one.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Settings that point a build at another registry or index.
const REGISTRY_SETTINGS: &[&str] = &[
    concat!("replace-", "with"),
    concat!("[sour", "ce."),
    concat!("[registr", "ies"),
    concat!("--index-", "url"),
    concat!("--extra-index-", "url"),
    concat!("--find-", "links"),
    concat!("--trusted-", "host"),
];

/// The one registry crates come from, as the lock file spells it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Files whose bytes are fixed by others: data and recorded messages.
const RECORDED: &[&str] = &[
    "testdata/",
    "data/",
    "fuzz/corpus/",
    "fuzz/crashes/",
    "LICENSE",
    "Cargo.lock",
    ".snap",
    ".svg",
    ".csv",
    ".patch",
];

/// Checks one text file.
pub(crate) fn check(file: &TextFile, report: &mut Report) {
    for (idx, line) in file.text.lines().enumerate() {
        let line_no = idx + 1;
        for path in MACHINE_PATHS.iter().filter(|path| begins_a_path(line, path)) {
            report.add(&file.path, line_no, "machine-path", format!("{path} is a directory of one machine"));
        }
        check_registry(file, line_no, line, report);
        if line.ends_with([' ', '\t']) && !is_recorded(&file.path) {
            report.add(&file.path, line_no, "white-space", "white space at the end of the line");
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') && !is_recorded(&file.path) {
        report.add(&file.path, 0, "white-space", "the file does not end with a line break");
    }
}

fn check_registry(file: &TextFile, line_no: usize, line: &str, report: &mut Report) {
    if file.path.ends_with("Cargo.lock") {
        let source = line.strip_prefix("source = \"").map(|rest| rest.trim_end_matches('"'));
        if let Some(source) = source.filter(|source| *source != REGISTRY) {
            report.add(&file.path, line_no, "registry", format!("{source} is not the public registry"));
        }
    } else if is_setting_file(&file.path) && REGISTRY_SETTINGS.iter().any(|text| line.contains(text)) {
        report.add(
            &file.path,
            line_no,
            "registry",
            "a build here uses the public registries and names no other",
        );
    }
}

fn is_setting_file(path: &str) -> bool {
    let ending = path.rsplit(['/', '.']).next().unwrap_or_default();
    ["toml", "txt", "cfg", "ini", "sh", "test", "run", "Containerfile", "yml", "yaml"].contains(&ending)
}

fn is_recorded(path: &str) -> bool {
    RECORDED.iter().any(|part| path.contains(part))
}

fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|head| head.chars().next_back());
        before.is_none_or(|char| !(char.is_alphanumeric() || "_-.~}/)>$".contains(char)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(path: &str, text: &str) -> Report {
        let mut report = Report::new("tidy");
        check(&TextFile { path: path.to_owned(), text: text.to_owned() }, &mut report);
        report
    }

    #[test]
    fn a_directory_of_one_machine_is_found_where_a_path_begins() {
        for path in MACHINE_PATHS {
            assert_eq!(checked("docs/a.md", &format!("see {path}x\n")).rules(), ["machine-path"]);
            assert_eq!(checked("docs/a.md", &format!("\"{path}x\"\n")).rules(), ["machine-path"]);
            assert!(checked("docs/a.md", &format!("sheaf://example{path}x and $DIR{path}y\n")).is_clean());
        }
    }

    #[test]
    fn another_registry_is_found_in_settings_and_in_the_lock_file() {
        for setting in REGISTRY_SETTINGS {
            assert_eq!(checked(".cargo/config.toml", &format!("{setting}\n")).rules(), ["registry"]);
            assert!(checked("docs/a.md", &format!("{setting}\n")).is_clean());
        }
        let lock = |source: &str| checked("Cargo.lock", &format!("source = \"{source}\"\n"));
        assert!(lock(REGISTRY).is_clean());
        assert_eq!(lock("git+https://example.org/x").rules(), ["registry"]);
    }

    #[test]
    fn stray_white_space_is_found_outside_recorded_bytes() {
        assert_eq!(checked("docs/a.md", "a \nb").rules(), ["white-space", "white-space"]);
        assert!(checked("crates/x/testdata/a.txt", "a \nb").is_clean());
        assert!(checked("docs/empty.md", "").is_clean());
    }
}
