//! Patterns over paths, as `.gitignore` files and an app's `fab-include` and `fab-exclude` have them.
//!
//! Pure. A pattern without a slash, but for one at its end, fits at any depth; one that fits a directory fits everything in it; of several the
//! last that fits decides. Source: gitignore(5).

/// A list of patterns.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    parts: Vec<Vec<char>>,
    only_directories: bool,
    is_negated: bool,
}

impl Patterns {
    /// The patterns of lines; empty lines and comments are none.
    pub(super) fn of<'l>(lines: impl IntoIterator<Item = &'l str>) -> Patterns {
        Patterns(lines.into_iter().filter_map(Pattern::of).collect())
    }

    /// Whether a file's path is among what they name.
    pub(super) fn fit(&self, path: &str) -> bool {
        let parts: Vec<Vec<char>> = path.split('/').map(|part| part.chars().collect()).collect();
        let decisive = self.0.iter().rev().find(|pattern| pattern.fits(&parts));
        decisive.is_some_and(|pattern| !pattern.is_negated)
    }
}

impl Pattern {
    fn of(line: &str) -> Option<Pattern> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (is_negated, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let (only_directories, line) = line.strip_suffix('/').map_or((false, line), |rest| (true, rest));
        let anchored = line.contains('/');
        let mut parts: Vec<Vec<char>> =
            line.trim_start_matches('/').split('/').map(|part| part.chars().collect()).collect();
        if !anchored {
            parts.insert(0, vec!['*', '*']);
        }
        Some(Pattern { parts, only_directories, is_negated })
    }

    /// Whether it fits the path, or a directory above it.
    fn fits(&self, path: &[Vec<char>]) -> bool {
        (1..=path.len()).any(|depth| {
            let is_directory = depth < path.len();
            let fits = path.get(..depth).is_some_and(|path| fit_parts(&self.parts, path));
            fits && (is_directory || !self.only_directories)
        })
    }
}

fn fit_parts(pattern: &[Vec<char>], path: &[Vec<char>]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return path.is_empty() };
    if first.as_slice() == ['*', '*'] {
        // At its end it means what is inside.
        let least = usize::from(rest.is_empty());
        return (least..=path.len())
            .any(|skipped| path.get(skipped..).is_some_and(|left| fit_parts(rest, left)));
    }
    path.split_first().is_some_and(|(name, below)| fit_name(first, name) && fit_parts(rest, below))
}

/// Whether a part of a pattern fits a name: the last star is tried again at ever later places.
fn fit_name(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(from) {
        let step = match pattern.get(at) {
            Some('*') => {
                star = Some((at + 1, from));
                at += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(pattern.get(at..).unwrap_or_default(), *c),
            Some('\\') => (pattern.get(at + 1) == Some(c)).then_some(2),
            Some(other) => (other == c).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(step), _) => (at, from) = (at + step, from + 1),
            (None, Some((after, tried))) => {
                star = Some((after, tried + 1));
                (at, from) = (after, tried + 1);
            }
            (None, None) => return false,
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|c| *c == '*')
}

/// How long a class in brackets is, if it has the character; a bracket that is never closed is itself.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let begin = 1 + usize::from(negated);
    let end = pattern.iter().skip(begin + 1).position(|other| *other == ']').map(|place| begin + 1 + place);
    let Some(end) = end else { return (c == '[').then_some(1) };
    let mut members = pattern.get(begin..end).unwrap_or_default();
    let mut found = false;
    while let Some((first, rest)) = members.split_first() {
        match rest {
            ['-', last, rest @ ..] => {
                found |= (*first..=*last).contains(&c);
                members = rest;
            }
            _ => {
                found |= *first == c;
                members = rest;
            }
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, fits: &[&str], others: &[&str]) {
        let patterns = Patterns::of(pattern.lines());
        for path in fits {
            assert!(patterns.fit(path), "{pattern:?} does not fit {path:?}");
        }
        for path in others {
            assert!(!patterns.fit(path), "{pattern:?} fits {path:?}");
        }
    }

    #[test]
    fn patterns_fit_what_git_says() {
        check("**/*.py", &["a.py", "a/b.py"], &["a.pyc", "a.py.md"]);
        check("/LICENSE", &["LICENSE"], &["a/LICENSE"]);
        check("build/**", &["build/a", "build/a/b"], &["build", "a/build/b"]);
        check("**/__pycache__/**", &["__pycache__/a", "a/__pycache__/b"], &["__pycache__"]);
        check("build/", &["build/a", "a/build/b"], &["build"]);
        check("*.py[cod]", &["a.pyc", "b/a.pyo"], &["a.py", "a.pyx"]);
        check("data", &["data", "a/data", "data/x"], &["data2"]);
        check("a/*.json\n!a/keep.json\n# comment\n", &["a/x.json"], &["a/keep.json", "a/b/x.json"]);
        check("[!a]?*.md", &["bcd.md"], &["abc.md", "b.md"]);
        check("a\\*b", &["a*b"], &["axb"]);
        check("*a*b*c", &["xaxbxc", "aabbc"], &["acb"]);
        check("x[", &["x["], &["x"]);
        check("a/**/b", &["a/b", "a/x/y/b"], &["a/x"]);
    }
}
