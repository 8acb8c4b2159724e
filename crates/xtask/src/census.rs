//! How long files are: production lines, with tests not counted.

use crate::{files::TextFile, report::Report};

/// Above this a file holds more than one noun.
const LINES_MAX: usize = 600;
/// Above this a file is worth a second look.
const LINES_NOTED: usize = 400;

/// Reports files that are too long, and notes those that may become so.
pub(crate) fn check(files: &[TextFile], report: &mut Report) {
    let mut lengths = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && !is_test_file(file) && !is_generated(file)) {
        let lines = production_lines(file);
        lengths.push(lines);
        if lines > LINES_MAX {
            let message = format!("{lines} production lines; at {LINES_MAX} split by noun");
            report.add(&file.path, 0, "length", message);
        } else if lines > LINES_NOTED {
            report.notes.push(format!("{} has {lines} production lines", file.path));
        }
    }
    lengths.sort_unstable();
    let at = |share: usize| lengths.get(lengths.len() * share / 100).copied().unwrap_or(0);
    let (median, p90) = (at(50), at(90));
    report.notes.push(format!("{} production files; lines: median {median}, p90 {p90}", lengths.len()));
}

/// Whether the whole file is test code.
pub(crate) fn is_test_file(file: &TextFile) -> bool {
    file.path.ends_with("/tests.rs")
        || file.path.split('/').any(|part| part == "tests" || part == "benches")
        || file.crate_name() == Some("testkit")
}

/// Whether a line (from 1) is test code.
pub(crate) fn is_test_line(file: &TextFile, line: usize) -> bool {
    is_test_file(file) || line > production_lines(file)
}

/// Lines before the trailing test module.
fn production_lines(file: &TextFile) -> usize {
    let lines: Vec<&str> = file.text.lines().collect();
    let opens_tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(opens_tests).unwrap_or(lines.len())
}

/// Whether a program wrote the file; such a file says so near its top.
fn is_generated(file: &TextFile) -> bool {
    file.text.lines().take(5).any(|line| line.starts_with("//") && line.contains("@generated"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: String) -> TextFile {
        TextFile { path: path.to_owned(), text }
    }

    fn checked(path: &str, text: String) -> Report {
        let mut report = Report::new("tidy");
        check(&[file(path, text)], &mut report);
        report
    }

    #[test]
    fn a_long_file_is_reported_and_a_longish_one_noted() {
        let long = |lines: usize| "line\n".repeat(lines);
        assert_eq!(checked("crates/x/src/a.rs", long(601)).rules(), ["length"]);
        assert!(checked("crates/x/src/a.rs", long(600)).is_clean());
        assert_eq!(checked("crates/x/src/a.rs", long(401)).notes.len(), 2);
        assert_eq!(checked("crates/x/src/a.rs", long(400)).notes.len(), 1);
    }

    #[test]
    fn tests_and_generated_files_do_not_count() {
        let tested =
            format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "line\n".repeat(300), "line\n".repeat(900));
        assert!(checked("crates/x/src/a.rs", tested).is_clean());
        assert!(checked("crates/x/src/a/tests.rs", "line\n".repeat(900)).is_clean());
        assert!(checked("crates/x/tests/it/main.rs", "line\n".repeat(900)).is_clean());
        assert!(checked("crates/x/src/a.rs", format!("// @generated\n{}", "line\n".repeat(900))).is_clean());
    }

    #[test]
    fn a_declared_test_file_does_not_end_production_lines() {
        let text = format!("#[cfg(test)]\nmod tests;\n{}", "line\n".repeat(601));
        assert_eq!(checked("crates/x/src/a.rs", text).rules(), ["length"]);
    }
}
