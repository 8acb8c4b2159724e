//! The text that upstream's dump makes of a tree, byte for byte: what a plan's hash is taken over.
//!
//! Block style, keys sorted, two spaces, lines broken after column 80, ASCII only, and `&id001` where a container occurs again.
//! Keys are sorted as Python sorts them; when it could not (a number beside a text), they stay in their order.
//! Refused: keys that would not fit on a line.
//!
//! Source: PyYAML 6.0, its emitter, serializer and representer.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::yaml::{Map, Node, Value};

mod text;

use text::Style;

/// The longest key, in characters; longer ones are written in another way, which no plan has.
const KEY_LEN_MAX: usize = 120;

/// Why there is no dump.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: the key is empty, of several lines or longer than {KEY_LEN_MAX} characters")]
pub struct KeyError {
    /// Where the key stands.
    pub line: usize,
}

/// Dumps a mapping.
///
/// # Errors
/// [`KeyError`].
pub fn dump(root: &Node) -> Result<String, KeyError> {
    let mut anchors = Anchors::default();
    anchors.find(root);
    let mut writer = Writer { out: String::new(), column: 0, is_blank: true, anchors };
    writer.node(root, None)?;
    if writer.column > 0 {
        writer.line_break();
    }
    Ok(writer.out)
}

/// The containers that occur, numbered in the order in which they occur for the second time.
#[derive(Default)]
struct Anchors {
    numbers: BTreeMap<u32, Option<usize>>,
    count: usize,
    written: BTreeSet<u32>,
}

impl Anchors {
    fn find(&mut self, node: &Node) {
        match self.numbers.get_mut(&node.identity) {
            Some(Some(_)) => return,
            Some(number) => {
                self.count += 1;
                *number = Some(self.count);
                return;
            }
            None if node.identity != 0 => {
                self.numbers.insert(node.identity, None);
            }
            None => {}
        }
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| self.find(item)),
            Value::Map(map) => ordered(map).into_iter().for_each(|(_, value)| self.find(value)),
            _ => {}
        }
    }
}

/// The pairs as upstream writes them: sorted, when their keys compare with each other.
fn ordered(map: &Map) -> Vec<(&Node, &Node)> {
    let mut pairs: Vec<(&Node, &Node)> = map.iter().collect();
    if pairs.iter().all(|(key, _)| rank(key).is_some()) && same_kind(&pairs) {
        pairs.sort_by(|(a, _), (b, _)| compare(a, b));
    }
    pairs
}

/// Where a value is written.
#[derive(Clone, Copy)]
struct Place {
    indent: usize,
    /// After `key:`, where a list needs no deeper indent.
    is_of_key: bool,
}

struct Writer {
    out: String,
    /// In characters.
    column: usize,
    /// Whether nothing but indentation and `-` stands on the line.
    is_blank: bool,
    anchors: Anchors,
}

impl Writer {
    fn node(&mut self, node: &Node, place: Option<Place>) -> Result<(), KeyError> {
        if let Some(Some(number)) = self.anchors.numbers.get(&node.identity).copied() {
            if !self.anchors.written.insert(node.identity) {
                self.word(&format!("*id{number:03}"));
                return Ok(());
            }
            self.word(&format!("&id{number:03}"));
        }
        match &node.value {
            Value::List(items) if items.is_empty() => self.word("[]"),
            Value::Map(map) if map.is_empty() => self.word("{}"),
            Value::List(items) => self.list(items, place)?,
            Value::Map(map) => self.map(map, place)?,
            scalar => self.scalar(scalar, place.map_or(0, |place| place.indent) + 2),
        }
        Ok(())
    }

    fn list(&mut self, items: &[Node], place: Option<Place>) -> Result<(), KeyError> {
        let indent = match place {
            Some(Place { indent, is_of_key: true }) => indent,
            Some(Place { indent, .. }) => indent + 2,
            None => 0,
        };
        for item in items {
            self.indent(indent);
            self.mark("-");
            self.node(item, Some(Place { indent, is_of_key: false }))?;
        }
        Ok(())
    }

    fn map(&mut self, map: &Map, place: Option<Place>) -> Result<(), KeyError> {
        let indent = place.map_or(0, |place| place.indent + 2);
        for (key, value) in ordered(map) {
            let text = plain(&key.value);
            // Beyond a thousand escaped characters no YAML reader takes it for a key.
            let escaped: usize = text.chars().map(|c| if (' '..='~').contains(&c) { 1 } else { 10 }).sum();
            let is_short = text.chars().count() <= KEY_LEN_MAX && escaped <= 1_000;
            if !is_short || text.is_empty() || text.contains(['\n', '\u{85}', '\u{2028}', '\u{2029}']) {
                return Err(KeyError { line: key.line });
            }
            self.indent(indent);
            self.scalar_of(&key.value, &text, usize::MAX);
            self.out.push(':');
            self.column += 1;
            self.is_blank = false;
            self.node(value, Some(Place { indent, is_of_key: true }))?;
        }
        Ok(())
    }

    fn scalar(&mut self, value: &Value, indent: usize) {
        self.scalar_of(value, &plain(value), indent);
    }

    /// A scalar; continuation lines at `indent`, none when it is the largest number.
    fn scalar_of(&mut self, value: &Value, text: &str, indent: usize) {
        let style = match value {
            Value::Text(_) => Style::of(text),
            _ => Style::Plain,
        };
        if text.is_empty() && style == Style::Plain {
            return;
        }
        self.gap();
        let (written, column) = text::write(text, style, self.column, indent);
        self.out.push_str(&written);
        self.column = column;
        self.is_blank = false;
    }

    fn gap(&mut self) {
        if self.column > 0 && !self.out.ends_with([' ', '\n']) {
            self.out.push(' ');
            self.column += 1;
        }
    }

    fn word(&mut self, word: &str) {
        self.gap();
        self.out.push_str(word);
        self.column += word.len();
        self.is_blank = false;
    }

    /// An item's dash: what follows may stand on the same line.
    fn mark(&mut self, mark: &str) {
        self.gap();
        self.out.push_str(mark);
        self.column += mark.len();
    }

    /// Goes to where a key or an item begins: on this line, when only dashes stand on it.
    fn indent(&mut self, indent: usize) {
        let is_at = self.column == indent && (self.column == 0 || self.out.ends_with(' '));
        if !self.is_blank || self.column > indent || (self.column == indent && !is_at) {
            self.line_break();
        }
        while self.column < indent {
            self.out.push(' ');
            self.column += 1;
        }
    }

    fn line_break(&mut self) {
        self.out.push('\n');
        self.column = 0;
        self.is_blank = true;
    }
}

/// The text of a scalar, before it is quoted.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => text::float(*value),
        Value::Text(text) => text.clone(),
        Value::List(_) | Value::Map(_) => String::new(),
    }
}

/// Numbers and truth values compare with each other, texts with texts, nothing with anything else.
fn rank(key: &Node) -> Option<u8> {
    match &key.value {
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => Some(0),
        Value::Text(_) => Some(1),
        _ => None,
    }
}

fn same_kind(pairs: &[(&Node, &Node)]) -> bool {
    pairs.windows(2).all(|two| matches!(two, [(a, _), (b, _)] if rank(a) == rank(b)))
}

fn compare(a: &Node, b: &Node) -> Ordering {
    match (&a.value, &b.value) {
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (a, b) => number(a).total_cmp(&number(b)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "only the order counts")]
fn number(value: &Value) -> f64 {
    match value {
        Value::Bool(value) => f64::from(*value),
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        _ => 0.0,
    }
}
