//! What a check found: violations, which fail it, and notes, which do not.

use std::fmt;

/// One rule broken at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// The file or crate, relative to the workspace.
    pub(crate) place: String,
    /// The line, from 1; 0 for the whole.
    pub(crate) line: usize,
    /// The rule's short name.
    pub(crate) rule: &'static str,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

/// Everything one check found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) check: &'static str,
    pub(crate) violations: Vec<Violation>,
    pub(crate) notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(check: &'static str) -> Report {
        Report { check, ..Report::default() }
    }

    pub(crate) fn add(
        &mut self,
        place: impl Into<String>,
        line: usize,
        rule: &'static str,
        message: impl Into<String>,
    ) {
        self.violations.push(Violation { place: place.into(), line, rule, message: message.into() });
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// The rules broken, in order, for tests.
    #[cfg(test)]
    pub(crate) fn rules(&self) -> Vec<&'static str> {
        self.violations.iter().map(|violation| violation.rule).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Violation> = self.violations.iter().collect();
        sorted.sort();
        for violation in sorted {
            let Violation { place, line, rule, message } = violation;
            match line {
                0 => writeln!(f, "{place}: {message} [{rule}]")?,
                line => writeln!(f, "{place}:{line}: {message} [{rule}]")?,
            }
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        match self.violations.len() {
            0 => writeln!(f, "{}: clean", self.check),
            count => writeln!(f, "{}: {count} violations", self.check),
        }
    }
}
