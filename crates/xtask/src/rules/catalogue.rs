//! Rules about lists that must agree: error codes and their pages, metric names and those who record them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files::TextFile, lexer, report::Report};

/// What a code begins with; three digits follow.
const CODE_PREFIX: &str = concat!("SHE", "AF-");
/// Where the page of a code lies.
const PAGES: &str = "docs/errors/";
/// Where codes are listed, and nowhere else.
const CODE_LIST: &str = "crates/domain/src/code.rs";
/// What a page says, in this order.
const PAGE_PARTS: [&str; 3] = ["## Meaning", "## Likely cause", "## Remedy"];
/// Where metric names are listed.
const METRIC_LIST: &str = "crates/telemetry/src/names.rs";

/// Checks the lists against the files.
pub(crate) fn check(files: &[TextFile], report: &mut Report) {
    check_codes(files, report);
    check_metrics(files, report);
}

/// Every code is listed in one place and used in another, has a page, and every page a code.
fn check_codes(files: &[TextFile], report: &mut Report) {
    let mut listed: BTreeMap<String, &str> = BTreeMap::new();
    // A test may say which code it expects.
    for file in files.iter().filter(|file| file.is_rust() && !file.path.contains("/tests/")) {
        for code in codes_in(&lexer::layers(&file.text).strings) {
            if file.path != CODE_LIST {
                report.add(
                    &file.path,
                    0,
                    "error-codes",
                    format!("{code} is written out; name it from {CODE_LIST}"),
                );
            }
            listed.entry(code).or_insert(&file.path);
        }
    }
    check_use(files, report);
    check_pages(files, &listed, report);
}

/// Every listed code is carried by an error.
fn check_use(files: &[TextFile], report: &mut Report) {
    let Some(list) = files.iter().find(|file| file.path == CODE_LIST) else { return };
    let others = files.iter().filter(|file| file.is_rust() && file.path != CODE_LIST);
    let code: Vec<String> = others.map(|file| lexer::layers(&file.text).code).collect();
    for (idx, line) in list.text.lines().enumerate() {
        let Some(id) = line.strip_prefix("pub const ").and_then(|rest| rest.split(':').next()) else {
            continue;
        };
        let named = format!("code::{id}");
        if !code.iter().any(|code| mentions(code, &named)) {
            report.add(CODE_LIST, idx + 1, "error-codes", format!("no error carries {id}"));
        }
    }
}

fn check_pages(files: &[TextFile], listed: &BTreeMap<String, &str>, report: &mut Report) {
    let page_of = |file: &TextFile| -> Option<String> {
        let page = file.path.strip_prefix(PAGES)?.strip_suffix(".md")?;
        page.starts_with(CODE_PREFIX).then(|| page.to_owned())
    };
    let mut pages: BTreeSet<String> = BTreeSet::new();
    for (file, page) in files.iter().filter_map(|file| Some((file, page_of(file)?))) {
        let parts: Vec<&str> = file.text.lines().filter(|line| line.starts_with("## ")).collect();
        if parts != PAGE_PARTS || !file.text.starts_with(&format!("# {page}: ")) {
            let message = format!("a page is `# {page}: …`, then {}", PAGE_PARTS.join(", "));
            report.add(&file.path, 0, "error-pages", message);
        }
        if !listed.contains_key(&page) {
            report.add(&file.path, 0, "error-pages", "no error carries this code");
        }
        pages.insert(page);
    }
    for (code, path) in listed.iter().filter(|(code, _)| !pages.contains(code.as_str())) {
        report.add(*path, 0, "error-pages", format!("{code} has no page {PAGES}{code}.md"));
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

    /// The list with one code, a user of it, and its page.
    fn one_code() -> [(String, String); 3] {
        let list = format!("pub const A: &str = \"{}\"; // {}\n", code("101"), code("999"));
        let page = format!("# {}: title\n\n{}\n", code("101"), PAGE_PARTS.join("\n\ntext\n\n"));
        [
            (CODE_LIST.to_owned(), list),
            ("crates/cli/src/x.rs".to_owned(), "fn f() -> &str { code::A }".to_owned()),
            (format!("{PAGES}{}.md", code("101")), page),
        ]
    }

    fn checked_owned(files: &[(String, String)]) -> Report {
        checked(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>())
    }

    #[test]
    fn a_code_is_listed_used_and_has_a_page_and_a_page_a_code() {
        let files = one_code();
        assert!(checked_owned(&files).is_clean(), "{}", checked_owned(&files));
        assert_eq!(checked_owned(&files[..2]).rules(), ["error-pages"], "no page");
        assert_eq!(checked_owned(&files[2..]).rules(), ["error-pages"], "no code");
        assert_eq!(checked_owned(&[files[0].clone(), files[2].clone()]).rules(), ["error-codes"], "no user");
        let mut written_out = files.clone();
        written_out[1].1 = format!("fn f() -> &str {{ code::A; \"{}\" }}", code("101"));
        assert_eq!(checked_owned(&written_out).rules(), ["error-codes"]);
        for (part, other) in [("## Remedy", "## Cure"), ("# SHE", "# Page SHE")] {
            let mut short = files.clone();
            short[2].1 = files[2].1.replacen(part, other, 1);
            assert_eq!(checked_owned(&short).rules(), ["error-pages"], "{part}");
        }
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
