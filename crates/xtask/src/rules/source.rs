//! Rules about Rust files: the opening line, what must not stand in code, banned names, where `unsafe` may stand.
//!
//! Words are looked for in code only, never in comments or strings, so that prose may speak of them.

use crate::{
    census,
    files::TextFile,
    lexer::{self, Layers},
    report::Report,
};

/// What must not stand in code, the rule, and why.
const BANNED_CODE: &[(&str, &str, &str)] = &[
    ("#[ignore", "no-ignore", "an ignored test is no test: make it pass or remove it"),
    ("#[should_panic", "no-should-panic", "assert on the error instead"),
    ("todo!(", "no-todo", "finish it or leave it out"),
    ("unimplemented!(", "no-todo", "finish it or leave it out"),
];

/// Words that may be no part of a type's name.
const BANNED_WORDS: &[&str] = &["Manager", "Helper", "Helpers", "Util", "Utils", "Aggregator", "Processor"];
/// Words that may not end a type's name.
const BANNED_ENDINGS: &[&str] = &["Data", "Info"];
/// File and module names that say nothing.
const BANNED_FILES: &[&str] = &["util", "utils", "common", "misc", "helper", "helpers", "manager"];

/// Where `unsafe` may stand: kernels, the hash and direct-I/O modules, and the allocator that counts under attack.
const UNSAFE_CRATES: &[&str] = &["tensor", "aggregate", "blob", "fuzz"];
/// Single files elsewhere: a setting of the C library, and three calls of the sandbox that have no safe form.
const UNSAFE_FILES: &[&str] = &["crates/server/src/arenas.rs", "crates/sandbox/src/kernel.rs"];

/// Checks one Rust file.
pub(crate) fn check(file: &TextFile, report: &mut Report) {
    let layers = lexer::layers(&file.text);
    check_opening(file, report);
    check_name(file, report);
    check_banned_code(file, &layers, report);
    check_types(file, &layers, report);
    check_functions(file, &layers, report);
    check_unsafe(file, &layers, report);
    check_metric_literals(file, &layers, report);
    check_comments(file, &layers, report);
}

fn check_opening(file: &TextFile, report: &mut Report) {
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let says_something = first.strip_prefix("//!").is_some_and(|rest| rest.trim().contains(' '));
    if !says_something {
        report.add(
            &file.path,
            1,
            "opening",
            "a file opens with //! and a sentence: what it is, refuses, keeps",
        );
    }
}

fn check_name(file: &TextFile, report: &mut Report) {
    let stem = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    if BANNED_FILES.contains(&stem) {
        report.add(&file.path, 0, "names", format!("{stem} says nothing: split by noun"));
    }
}

fn check_banned_code(file: &TextFile, layers: &Layers, report: &mut Report) {
    for (line, code) in numbered(&layers.code) {
        let squeezed: String = code.chars().filter(|char| !char.is_whitespace()).collect();
        for (text, rule, why) in BANNED_CODE {
            if squeezed.contains(text) {
                report.add(&file.path, line, rule, *why);
            }
        }
        // Another process has no channel to wait on: between two looks at a condition there is a pause, named as such.
        let between_looks = code.contains("sleep(LOOK_EVERY)");
        if code.contains("thread::sleep") && !between_looks && census::is_test_line(file, line) {
            report.add(&file.path, line, "no-sleep", "a test waits for a condition, not for time");
        }
    }
}

fn check_types(file: &TextFile, layers: &Layers, report: &mut Report) {
    for (line, code) in numbered(&layers.code) {
        for keyword in ["struct", "enum", "trait", "type", "union"] {
            if let Some(name) = word_after(code, keyword).filter(|name| is_banned_type(name)) {
                report.add(&file.path, line, "names", format!("{name} is a banned name: say what it is"));
            }
        }
    }
}

fn is_banned_type(name: &str) -> bool {
    let words = camel_words(name);
    words.iter().any(|word| BANNED_WORDS.contains(&word.as_str()))
        || words.last().is_some_and(|word| BANNED_ENDINGS.contains(&word.as_str()))
}

fn check_functions(file: &TextFile, layers: &Layers, report: &mut Report) {
    for (line, code) in numbered(&layers.code) {
        let Some(name) = word_after(code, "fn") else { continue };
        if name.starts_with("get_") {
            report.add(&file.path, line, "names", format!("{name}: say the noun, without get_"));
        }
        if name.starts_with("test_") {
            report.add(
                &file.path,
                line,
                "names",
                format!("{name}: a test's name states behaviour, without test_"),
            );
        }
    }
}

fn check_unsafe(file: &TextFile, layers: &Layers, report: &mut Report) {
    if file.crate_name().is_some_and(|name| UNSAFE_CRATES.contains(&name))
        || UNSAFE_FILES.contains(&file.path.as_str())
    {
        return;
    }
    for (line, code) in numbered(&layers.code) {
        if words(code).any(|word| word == "unsafe") {
            report.add(
                &file.path,
                line,
                "unsafe",
                "unsafe stands only in the kernels of tensor, aggregate and blob",
            );
        }
    }
}

/// Metric names stand in one list; a macro called with a literal goes around it.
fn check_metric_literals(file: &TextFile, layers: &Layers, report: &mut Report) {
    if file.crate_name() == Some("telemetry") {
        return;
    }
    for (line, code) in numbered(&layers.code) {
        let literal = ["counter!(\"", "gauge!(\"", "histogram!(\""].iter().any(|text| code.contains(text));
        if literal {
            report.add(&file.path, line, "metrics", "name the metric through telemetry::names");
        }
    }
}

fn check_comments(file: &TextFile, layers: &Layers, report: &mut Report) {
    for (line, comment) in numbered(&layers.comments) {
        let lower = comment.to_lowercase();
        let cites = ["issue ", "issue #", "issues/"].iter().any(|text| {
            let rest = lower.split(text).nth(1).unwrap_or_default();
            rest.starts_with(|char: char| char.is_ascii_digit())
        });
        if cites {
            report.add(&file.path, line, "comments", "give the reason instead of a number to look up");
        }
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(idx, line)| (idx + 1, line))
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty())
}

/// The word that follows a keyword on a line, if the keyword stands there.
fn word_after<'a>(code: &'a str, keyword: &str) -> Option<&'a str> {
    let mut words = words(code);
    words.find(|word| *word == keyword)?;
    words.next()
}

/// `SiteManager` → `Site`, `Manager`.
fn camel_words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for char in name.chars() {
        match words.last_mut() {
            Some(word) if !char.is_uppercase() => word.push(char),
            _ => words.push(char.to_string()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(path: &str, body: &str) -> Report {
        let mut report = Report::new("tidy");
        let file = TextFile { path: path.to_owned(), text: format!("//! A sample file.\n{body}") };
        check(&file, &mut report);
        report
    }

    #[test]
    fn an_honest_file_passes() {
        let body =
            "/// Says todo!() and unsafe in prose.\npub struct Budget;\nconst WORD: &str = \"#[ignore]\";\n";
        let report = checked("crates/engine/src/budget.rs", body);
        assert!(report.is_clean(), "{report}");
    }

    #[test]
    fn a_file_opens_with_a_sentence() {
        for text in ["use std::fs;\n", "//!\nuse std::fs;\n", "//! engine\n", "/// Not the file.\n"] {
            let mut report = Report::new("tidy");
            check(&TextFile { path: "crates/engine/src/x.rs".into(), text: text.into() }, &mut report);
            assert_eq!(report.rules(), ["opening"], "{text:?}");
        }
    }

    #[test]
    fn unfinished_and_switched_off_code_is_found_with_its_line() {
        let body =
            "fn a() { todo!() }\n#[ignore = \"slow\"]\n#[ should_panic ]\nfn b() { unimplemented!(\"x\") }\n";
        let report = checked("crates/engine/src/x.rs", body);
        assert_eq!(report.rules(), ["no-todo", "no-ignore", "no-should-panic", "no-todo"]);
        assert_eq!(report.violations.iter().map(|found| found.line).collect::<Vec<_>>(), [2, 3, 4, 5]);
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for body in [
            "struct SiteManager;",
            "pub(crate) enum Aggregator {}",
            "trait HashHelper {}",
            "type RunInfo = ();",
        ] {
            assert_eq!(checked("crates/engine/src/x.rs", body).rules(), ["names"], "{body}");
        }
        for body in [
            "struct Database;",
            "struct Informed;",
            "struct Metadata;",
            "enum Managed {}",
            "struct DataPath;",
        ] {
            assert!(checked("crates/engine/src/x.rs", body).is_clean(), "{body}");
        }
        assert_eq!(checked("crates/engine/src/utils.rs", "").rules(), ["names"]);
    }

    #[test]
    fn functions_are_nouns_or_verbs_without_prefix() {
        let body = "fn get_round() {}\nfn test_round() {}\nfn getter() {}\n";
        assert_eq!(checked("crates/engine/src/x.rs", body).rules(), ["names", "names"]);
    }

    #[test]
    fn unsafe_stands_only_in_kernels() {
        assert_eq!(checked("crates/pki/src/x.rs", "unsafe { go() }").rules(), ["unsafe"]);
        assert!(checked("crates/aggregate/src/x.rs", "unsafe { go() }").is_clean());
    }

    #[test]
    fn metrics_are_named_through_the_list() {
        let body = "metrics::counter!(\"sheaf_x_total\").increment(1);";
        assert_eq!(checked("crates/server/src/x.rs", body).rules(), ["metrics"]);
        assert!(checked("crates/server/src/x.rs", "metrics::counter!(names::X).increment(1);").is_clean());
    }

    #[test]
    fn tests_do_not_sleep() {
        let body = "std::thread::sleep(pause);";
        assert_eq!(checked("crates/server/tests/it/main.rs", body).rules(), ["no-sleep"]);
        let body = "std::thread::sleep(LOOK_EVERY);";
        assert!(checked("crates/server/tests/it/main.rs", body).is_clean());
        assert!(checked("crates/server/src/x.rs", body).is_clean());
    }

    #[test]
    fn a_number_to_look_up_is_no_reason() {
        assert_eq!(checked("crates/server/src/x.rs", "// see issue #12").rules(), ["comments"]);
        assert!(checked("crates/server/src/x.rs", "// certificates we issue to sites").is_clean());
    }
}
