//! Rules about lists that must agree: error codes and their pages, metric names and those who record them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files::TextFile, lexer, report::Report};

/// What a code begins with; three digits follow.
const CODE_PREFIX: &str = concat!("SHE", "AF-");
/// Where the page of a code lies.
const PAGES: &str = "docs/errors/";
/// Where metric names are listed.
const METRIC_LIST: &str = "crates/telemetry/src/names.rs";

/// Checks the lists against the files.
pub(crate) fn check(files: &[TextFile], report: &mut Report) {
    check_codes(files, report);
    check_metrics(files, report);
}

/// Every code that the source can show has a page, and every page a code.
fn check_codes(files: &[TextFile], report: &mut Report) {
    let mut shown: BTreeMap<String, &str> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for code in codes_in(&lexer::layers(&file.text).strings) {
            shown.entry(code).or_insert(&file.path);
        }
    }
    let pages: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.path.strip_prefix(PAGES)?.strip_suffix(".md"))
        .filter(|page| page.starts_with(CODE_PREFIX))
        .collect();
    for (code, path) in shown.iter().filter(|(code, _)| !pages.contains(code.as_str())) {
        report.add(*path, 0, "error-pages", format!("{code} has no page {PAGES}{code}.md"));
    }
    for page in pages.into_iter().filter(|page| !shown.contains_key(*page)) {
        report.add(format!("{PAGES}{page}.md"), 0, "error-pages", "no error carries this code");
    }
}

fn codes_in(strings: &str) -> Vec<String> {
    let after =
        strings.match_indices(CODE_PREFIX).filter_map(|(at, _)| strings.get(at + CODE_PREFIX.len()..));
    let digits = after.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    digits.filter(|digits| digits.len() == 3).map(|digits| format!("{CODE_PREFIX}{digits}")).collect()
}

/// Every listed metric is recorded somewhere.
fn check_metrics(files: &[TextFile], report: &mut Report) {
    let Some(list) = files.iter().find(|file| file.path == METRIC_LIST) else { return };
    let code: Vec<String> = files
        .iter()
        .filter(|file| file.is_rust() && file.path != METRIC_LIST)
        .map(|file| lexer::layers(&file.text).code)
        .collect();
    for (idx, line) in list.text.lines().enumerate() {
        let Some(id) = listed_id(line) else { continue };
        let named = format!("names::{id}");
        if !code.iter().any(|code| mentions(code, &named)) {
            report.add(METRIC_LIST, idx + 1, "metrics", format!("nobody records {id}"));
        }
    }
}

/// The identifier of a list entry such as `RUNS = "sheaf_runs", …`.
fn listed_id(line: &str) -> Option<&str> {
    let (id, rest) = line.trim_start().split_once(" = \"sheaf_")?;
    let is_id = id.chars().all(|char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_');
    (is_id && rest.contains("\", ")).then_some(id)
}

fn mentions(code: &str, named: &str) -> bool {
    code.match_indices(named).any(|(at, _)| {
        let after = code.get(at + named.len()..).and_then(|rest| rest.chars().next());
        after.is_none_or(|char| !char.is_alphanumeric() && char != '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(files: &[(&str, &str)]) -> Report {
        let files: Vec<TextFile> = files
            .iter()
            .map(|(path, text)| TextFile { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        let mut report = Report::new("tidy");
        check(&files, &mut report);
        report
    }

    fn code(number: &str) -> String {
        format!("{CODE_PREFIX}{number}")
    }

    #[test]
    fn a_code_has_a_page_and_a_page_a_code() {
        let source = format!("const A: &str = \"{}\"; // {}", code("101"), code("999"));
        let page = format!("{PAGES}{}.md", code("101"));
        assert!(checked(&[("crates/cli/src/x.rs", &source), (&page, "# page\n")]).is_clean());
        assert_eq!(checked(&[("crates/cli/src/x.rs", &source)]).rules(), ["error-pages"]);
        assert_eq!(checked(&[(&page, "# page\n")]).rules(), ["error-pages"]);
    }

    #[test]
    fn other_text_with_the_same_beginning_is_no_code() {
        let source = format!("const A: &str = \"{} {} {CODE_PREFIX}x\";", code("1"), code("1234"));
        assert!(checked(&[("crates/cli/src/x.rs", &source)]).is_clean());
    }

    #[test]
    fn a_metric_that_nobody_records_is_found() {
        let list = "list! {\n    RUNS = \"sheaf_runs\", Gauge, Count, &[], &[],\n        \"Runs.\";\n}\n";
        let user = "fn f() { metrics::gauge!(names::RUNS).set(1.0); }";
        assert!(checked(&[(METRIC_LIST, list), ("crates/server/src/x.rs", user)]).is_clean());
        let other = "fn f() { metrics::gauge!(names::RUNS_OLD).set(1.0); } // names::RUNS";
        assert_eq!(checked(&[(METRIC_LIST, list), ("crates/server/src/x.rs", other)]).rules(), ["metrics"]);
    }
}
