//! A plan file as text, tables and lines: typed look-ups whose every refusal names the line it stands on.
//!
//! Knows TOML and nothing of plans. A section remembers which keys it was asked for; what is left over when it is
//! finished is refused.

use toml::de::{DeTable, DeValue};

use crate::{ConfigValue, Error, Span};

/// Where the values of a file stand; for a plan that came from no file, nowhere.
#[derive(Debug, Default)]
pub(super) struct Lines<'d, 't> {
    table: Option<&'d DeTable<'t>>,
    starts: Vec<usize>,
}

impl<'d, 't> Lines<'d, 't> {
    /// The lines of every key of `table`.
    pub(super) fn of(text: &str, table: &'d DeTable<'t>) -> Lines<'d, 't> {
        Lines { table: Some(table), starts: line_starts(text) }
    }

    /// The line a path stands on. Looked for when it is asked for: a path is as long as all the keys it leads through, and
    /// keeping one for every key could take many times the memory of the file.
    pub(super) fn at(&self, path: &str) -> Option<usize> {
        find(self.table?, path).map(|offset| line_at(&self.starts, offset))
    }

    /// A refusal of what stands at `path`.
    pub(super) fn refuse(&self, path: &str, message: impl Into<String>) -> Error {
        // A default is laid at the door of its section.
        let line = self.at(path).or_else(|| self.at(path.rsplit_once('.')?.0));
        Error::BadPlan { line, message: message.into() }
    }
}

/// Where the key of a path begins. Only the last part of a path may have dots of its own.
fn find(table: &DeTable<'_>, path: &str) -> Option<usize> {
    let deeper = path.split_once('.').and_then(|(first, rest)| match table.get(first)?.get_ref() {
        DeValue::Table(inner) => find(inner, rest),
        _ => None,
    });
    deeper.or_else(|| table.get_key_value(path).map(|(key, _)| key.span().start))
}

/// One table of the file, or the absence of it.
pub(super) struct Section<'d, 't> {
    path: String,
    table: Option<&'d DeTable<'t>>,
    lines: &'d Lines<'d, 't>,
    asked: Vec<&'static str>,
}

impl<'d, 't> Section<'d, 't> {
    /// The whole file.
    pub(super) fn root(table: &'d DeTable<'t>, lines: &'d Lines<'d, 't>) -> Section<'d, 't> {
        Section { path: String::new(), table: Some(table), lines, asked: Vec::new() }
    }

    /// Whether the file has it.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The table under `key`; an absent one has no keys.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Section<'d, 't>, Error> {
        let table = match self.value(key) {
            None => None,
            Some(DeValue::Table(table)) => Some(table),
            Some(other) => return Err(self.mismatch(key, other, "a table")),
        };
        Ok(Section { path: join(&self.path, key), table, lines: self.lines, asked: Vec::new() })
    }

    /// The value under `key`, of whatever type.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'d DeValue<'t>> {
        self.asked.push(key);
        self.table?.get(key).map(toml::Spanned::get_ref)
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.to_string())),
            Some(other) => Err(self.mismatch(key, other, "a text in quotes")),
        }
    }

    /// A whole number, not negative.
    pub(super) fn whole(&mut self, key: &'static str) -> Result<Option<u64>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let DeValue::Integer(number) = value else {
            return Err(self.mismatch(key, value, "a whole number"));
        };
        u64::from_str_radix(number.as_str(), number.radix())
            .map(Some)
            .map_err(|_| self.refuse(key, format!("`{key}` is {number}; it must be from 0 to {}", u64::MAX)))
    }

    /// A whole number that fits in 32 bits.
    pub(super) fn count(&mut self, key: &'static str) -> Result<Option<u32>, Error> {
        let Some(number) = self.whole(key)? else { return Ok(None) };
        u32::try_from(number)
            .map(Some)
            .map_err(|_| self.refuse(key, format!("`{key}` is {number}; it must be at most {}", u32::MAX)))
    }

    /// A real number; whole ones count.
    pub(super) fn real(&mut self, key: &'static str) -> Result<Option<f64>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match number(value) {
            None => Err(self.mismatch(key, value, "a number")),
            Some(number) if number.is_finite() => Ok(Some(number)),
            Some(_) => Err(self.refuse(key, format!("`{key}` must be a finite number"))),
        }
    }

    /// A duration.
    pub(super) fn span(&mut self, key: &'static str) -> Result<Option<Span>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(DeValue::String(text)) => {
                text.parse().map(Some).map_err(|error: Error| self.refuse(key, format!("`{key}`: {error}")))
            }
            Some(other) => {
                let given = shown(other);
                let message =
                    format!("`{key}` = {given} has no unit; a duration is written like \"30s\" or \"10m\"");
                Err(self.refuse(key, message))
            }
        }
    }

    /// The keys nobody asked for, as free configuration.
    pub(super) fn rest(&self) -> impl Iterator<Item = (&'d str, &'d DeValue<'t>)> {
        let asked = self.asked.clone();
        self.table
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.get_ref().as_ref(), value.get_ref()))
            .filter(move |(key, _)| !asked.contains(key))
    }

    /// Refuses the keys nobody asked for.
    pub(super) fn finish(self) -> Result<(), Error> {
        let Some((key, _)) = self.rest().next() else { return Ok(()) };
        let place = if self.path.is_empty() { "a plan".to_owned() } else { format!("[{}]", self.path) };
        let remedy = match nearest(key, &self.asked) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("it has {}", list(&self.asked)),
        };
        Err(self.refuse(key, format!("{place} has no key `{}`; {remedy}", clipped(key))))
    }

    /// A refusal of the value under `key`.
    pub(super) fn refuse(&self, key: &str, message: impl Into<String>) -> Error {
        self.lines.refuse(&join(&self.path, key), message)
    }

    /// A refusal of a section that lacks `key`.
    pub(super) fn lacks(&self, key: &str, example: &str) -> Error {
        let message = format!("[{}] lacks `{key}`; write for example {example}", self.path);
        Error::BadPlan { line: self.lines.at(&self.path), message }
    }

    pub(super) fn mismatch(&self, key: &str, value: &DeValue<'_>, expected: &str) -> Error {
        self.refuse(
            key,
            format!("`{key}` = {} is a {}; it must be {expected}", shown(value), value.type_str()),
        )
    }
}

/// A value of a task's free configuration.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn config_value(value: &DeValue<'_>, depth: usize) -> Result<ConfigValue, String> {
    match value {
        DeValue::Boolean(value) => Ok(ConfigValue::Bool(*value)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(ConfigValue::Int)
            .map_err(|_| "does not fit in 64 bits".to_owned()),
        DeValue::Float(_) => number(value)
            .filter(|number| number.is_finite())
            .map(ConfigValue::Float)
            .ok_or_else(|| "is not a finite number".to_owned()),
        DeValue::String(text) if text.len() > TEXT_LEN_MAX => {
            Err(format!("is longer than {TEXT_LEN_MAX} bytes"))
        }
        DeValue::String(text) => Ok(ConfigValue::Text(text.to_string())),
        DeValue::Array(_) if depth >= DEPTH_MAX => Err(format!("nests lists deeper than {DEPTH_MAX}")),
        DeValue::Array(values) if values.len() > VALUES_MAX => {
            Err(format!("is a list of more than {VALUES_MAX} values"))
        }
        DeValue::Array(values) => values
            .iter()
            .map(|value| config_value(value.get_ref(), depth + 1))
            .collect::<Result<_, _>>()
            .map(ConfigValue::List),
        DeValue::Datetime(_) => Err("is a date; write it as a text in quotes".to_owned()),
        DeValue::Table(_) => Err("is a table; a task's configuration has no tables".to_owned()),
    }
}

/// The line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    line_at(&line_starts(text), offset)
}

/// The known name that a misspelt one is likely to be.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let bound = (name.chars().count() / 3).max(1) + 1;
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= bound && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Names as people list them.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The first characters of a name somebody gave.
pub(super) fn clipped(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The number of single-character edits that make one name of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    // A name beyond any known length is near to none.
    if one.chars().count() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (idx, from) in one.chars().enumerate() {
        let mut diagonal = idx;
        let mut left = idx + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&other) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = idx + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "a whole number, read as a real one")]
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64)
        }
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", clipped(text)),
        DeValue::Integer(number) => clipped(&number.to_string()),
        DeValue::Float(number) => clipped(&number.to_string()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1))
        .collect()
}

fn line_at(starts: &[usize], offset: usize) -> usize {
    starts.partition_point(|start| *start <= offset)
}

/// The deepest nesting of lists in a task's configuration.
const DEPTH_MAX: usize = 8;
/// The most values of one list.
const VALUES_MAX: usize = 10_000;
/// The longest text value, in bytes.
const TEXT_LEN_MAX: usize = 64 * 1024;
