//! YAML as upstream's loader reads it: a tree that knows its lines, and which containers are one and the same.
//!
//! The scanner is YAML 1.2's; what a plain scalar means is decided here by YAML 1.1's rules, as upstream's loader does. An alias is
//! the anchored value once more, with its identity, because upstream's dump shows it; `<<` merges one mapping. Of a key given twice the last
//! counts. Refused by line: tags, dates, more than one document, merges of lists, containers as keys, whatever is beyond the bounds.
//!
//! Source: YAML 1.1; PyYAML 6.0.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::scalar;

/// The longest file, in bytes.
pub const FILE_LEN_MAX: usize = 1_024 * 1_024;
/// The deepest nesting.
pub const DEPTH_MAX: usize = 32;
/// The most keys of a mapping.
pub const KEYS_MAX: usize = 1_024;
/// The most values, aliases counted as what they stand for; and the most that anchors keep.
pub const NODES_MAX: usize = 100_000;
/// The most bytes of texts, counted the same way.
pub const TEXT_LEN_MAX: usize = FILE_LEN_MAX;

/// A value, and the line it stands on.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Counted from 1; 0 for what stands in no file.
    pub line: usize,
    /// The same for every alias of a container, and no other; 0 for scalars.
    pub identity: u32,
    /// What it is.
    pub value: Value,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// A mapping, in the order of the first mention of each key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Map(Vec<(Node, Node)>);

impl Map {
    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Node, &Node)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key that is a text.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(known, _)| known.text() == Some(key)).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn value_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.0.iter_mut().find(|(known, _)| known.text() == Some(key)).map(|(_, value)| value)
    }

    /// Sets a key, at its place when it is known.
    pub fn set(&mut self, key: Node, value: Node) {
        match self.0.iter_mut().find(|(known, _)| known.value == key.value) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let at = self.0.iter().position(|(known, _)| known.text() == Some(key))?;
        Some(self.0.remove(at).1)
    }
}

impl Node {
    /// A text that stands in no file.
    pub fn of_text(text: &str) -> Node {
        Node { line: 0, identity: 0, value: Value::Text(text.to_owned()) }
    }

    /// The text, when it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The mapping, when it is one.
    pub fn map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// What sort of value it is, for people.
    pub fn sort(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a truth value",
            Value::Int(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn size(&self) -> Size {
        let parts = match &self.value {
            Value::Text(text) => Size { nodes: 0, text_len: text.len() },
            Value::List(items) => items.iter().map(Node::size).fold(Size::default(), Size::plus),
            Value::Map(map) => map
                .0
                .iter()
                .map(|(key, value)| key.size().plus(value.size()))
                .fold(Size::default(), Size::plus),
            _ => Size::default(),
        };
        parts.plus(Size { nodes: 1, text_len: 0 })
    }
}

/// What values take up.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text_len: usize,
}

impl Size {
    fn plus(self, other: Size) -> Size {
        Size {
            nodes: self.nodes.saturating_add(other.nodes),
            text_len: self.text_len.saturating_add(other.text_len),
        }
    }

    fn minus(self, other: Size) -> Size {
        Size {
            nodes: self.nodes.saturating_sub(other.nodes),
            text_len: self.text_len.saturating_sub(other.text_len),
        }
    }

    fn check(self, line: usize) -> Result<(), YamlError> {
        if self.nodes > NODES_MAX {
            return Err(refused(line, format!("there are more than {NODES_MAX} values")));
        }
        if self.text_len > TEXT_LEN_MAX {
            let reason =
                format!("texts are longer than {TEXT_LEN_MAX} bytes, aliases counted as what they stand for");
            return Err(refused(line, reason));
        }
        Ok(())
    }
}

/// Why a file is no YAML that is read here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct YamlError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

fn refused(line: usize, reason: impl Into<String>) -> YamlError {
    YamlError { line, reason: reason.into() }
}

/// Reads a file of one document; an empty one is [`Value::Null`].
///
/// # Errors
/// [`YamlError`].
pub fn parse(text: &str) -> Result<Node, YamlError> {
    if text.len() > FILE_LEN_MAX {
        return Err(refused(0, format!("the file is longer than {FILE_LEN_MAX} bytes")));
    }
    let mut builder = Builder::default();
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| refused(error.marker().line(), error.info()))?;
        builder.take(event, span)?;
    }
    Ok(builder.root.unwrap_or(Node { line: 1, identity: 0, value: Value::Null }))
}

/// A container that is not complete.
struct Open {
    line: usize,
    identity: u32,
    anchor: usize,
    items: Vec<Node>,
    map: Option<MapParts>,
}

#[derive(Default)]
struct MapParts {
    merged: Map,
    own: Map,
    key: Option<Node>,
    is_merge: bool,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    identities: u32,
    /// Of all that was placed.
    placed: Size,
    /// Of all that anchors keep beside it.
    kept: Size,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(refused(line, "there is a second document"));
                }
                Ok(())
            }
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Err(refused(line, "tags are not read")),
            Event::Scalar(text, style, anchor, None) => {
                let is_plain = style == ScalarStyle::Plain;
                let is_key =
                    self.open.last().and_then(|open| open.map.as_ref()).is_some_and(|map| map.key.is_none());
                if is_plain && text == "<<" && is_key && anchor == 0 {
                    return self.merge_key(line);
                }
                let value =
                    if is_plain { scalar::resolve(&text) } else { Ok(Value::Text(text.into_owned())) };
                let value = value.map_err(|reason| refused(line, reason))?;
                self.place(line, Node { line, identity: 0, value }, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                // Not there: the anchor is that of a container around it.
                self.place(line, node.ok_or_else(|| refused(line, "the value contains itself"))?, 0)
            }
            Event::SequenceStart(anchor, None) => self.begin(line, anchor, None),
            Event::MappingStart(anchor, None) => self.begin(line, anchor, Some(MapParts::default())),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, map: Option<MapParts>) -> Result<(), YamlError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(refused(line, format!("values are nested deeper than {DEPTH_MAX}")));
        }
        self.identities += 1;
        self.open.push(Open { line, identity: self.identities, anchor, items: Vec::new(), map });
        Ok(())
    }

    fn end(&mut self) -> Result<(), YamlError> {
        let Some(Open { line, identity, anchor, items, map }) = self.open.pop() else { return Ok(()) };
        let value = match map {
            None => Value::List(items),
            Some(MapParts { mut merged, own, .. }) => {
                for (key, value) in own.0 {
                    merged.set(key, value);
                }
                check_keys(&merged, line)?;
                Value::Map(merged)
            }
        };
        // Its parts were counted when they were placed.
        let node = Node { line, identity, value };
        let parts = node.size().minus(Size { nodes: 1, text_len: 0 });
        self.placed = self.placed.minus(parts);
        self.place(line, node, anchor)
    }

    fn merge_key(&mut self, line: usize) -> Result<(), YamlError> {
        self.place(line, Node { line, identity: 0, value: Value::Text("<<".to_owned()) }, 0)?;
        if let Some(map) = self.open.last_mut().and_then(|open| open.map.as_mut()) {
            map.is_merge = true;
        }
        Ok(())
    }

    /// Puts a complete value where it belongs; it may have been read on another line before.
    fn place(&mut self, line: usize, node: Node, anchor: usize) -> Result<(), YamlError> {
        let size = node.size();
        self.placed = self.placed.plus(size);
        self.placed.check(line)?;
        if anchor != 0 {
            self.kept = self.kept.plus(size);
            self.kept.check(line)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let Some(map) = &mut open.map else {
            open.items.push(node);
            return Ok(());
        };
        match map.key.take() {
            None if map.own.0.len() >= KEYS_MAX => {
                Err(refused(line, format!("a mapping has more than {KEYS_MAX} keys")))
            }
            None if node.identity != 0 => Err(refused(line, "a key is no scalar")),
            None => {
                map.key = Some(node);
                Ok(())
            }
            Some(_) if std::mem::take(&mut map.is_merge) => match node.value {
                Value::Map(other) => {
                    for (key, value) in other.0 {
                        map.merged.set(key, value);
                    }
                    check_keys(&map.merged, line)
                }
                _ => Err(refused(line, "what is merged is no mapping")),
            },
            Some(key) => {
                map.own.set(key, node);
                Ok(())
            }
        }
    }
}

fn check_keys(map: &Map, line: usize) -> Result<(), YamlError> {
    if map.0.len() > KEYS_MAX {
        return Err(refused(line, format!("a mapping has more than {KEYS_MAX} keys")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_and_aliases_are_the_same() {
        let root = parse("a: &x [1, yes]\nb:\n  c: *x\n  d: [1, yes]\n").unwrap();
        let map = root.map().unwrap();
        let (a, b) = (map.get("a").unwrap(), map.get("b").unwrap());
        let (c, d) = (b.map().unwrap().get("c").unwrap(), b.map().unwrap().get("d").unwrap());
        assert_eq!((a.line, b.line, c.line, d.line), (1, 3, 1, 4));
        assert_eq!((a, a.identity == d.identity), (c, false));
        let values = |node: &Node| match &node.value {
            Value::List(items) => items.iter().map(|item| item.value.clone()).collect::<Vec<_>>(),
            other => panic!("no list: {other:?}"),
        };
        assert_eq!((values(a), values(d)), (vec![Value::Int(1), Value::Bool(true)], values(a)));
    }

    #[test]
    fn a_merge_gives_way_to_what_the_mapping_says() {
        let root = parse("base: &b {x: 1, y: 2}\nmore: {y: 3, <<: *b, z: 4}\n").unwrap();
        let more = root.map().unwrap().get("more").unwrap().map().unwrap();
        let read: Vec<_> =
            more.iter().map(|(key, value)| (key.text().unwrap(), value.value.clone())).collect();
        assert_eq!(read, [("x", Value::Int(1)), ("y", Value::Int(3)), ("z", Value::Int(4))]);
    }

    #[test]
    fn what_is_not_read_is_refused_by_line() {
        for (text, line) in [
            ("a: 1\nb: !!str 2\n", 2),
            ("a: 1\n---\nb: 2\n", 2),
            ("a: 1\n\nb: 2001-12-14\n", 3),
            ("a: &x\n  b: *x\n", 2),
            ("? [a]\n: 1\n", 1),
            ("<<: [{a: 1}]\n", 1),
            ("a: [1, 2\n", 2),
            ("a: =\n", 1),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.line == line || error.line == line + 1, "{text:?}: {error}");
        }
    }

    #[test]
    fn aliases_of_aliases_do_not_grow_without_bound() {
        let mut text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(parse(&text).expect_err("a bomb").reason.contains("values"));
        assert!(parse(&"[".repeat(100)).expect_err("too deep").reason.contains("nested"));
        let keys: String = (0..2_000).map(|at| format!("k{at}: 1\n")).collect();
        assert_eq!(parse(&keys).expect_err("too many").line, KEYS_MAX + 1);
    }

    #[test]
    fn texts_behind_aliases_count_as_often_as_they_are_named() {
        let long = "x".repeat(1_000);
        let few = format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(1_000));
        assert!(parse(&few).is_ok());
        let many = format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(1_100));
        let refused = parse(&many).expect_err("a mebibyte of one text");
        assert!(refused.line == 2 && refused.reason.contains("texts"), "{refused}");
        // A key is a text as well, wherever its mapping stands once more.
        let keys = format!("a: &a {{{long}: 1}}\nb: [{}]\n", "*a, ".repeat(1_100));
        assert!(parse(&keys).expect_err("keys").reason.contains("texts"));
        let merged: String = (0..1_100).map(|at| format!("m{}:\n  - <<: *a\n", at)).collect();
        assert!(parse(&format!("a: &a {{{long}: 1}}\n{merged}")).is_err());
    }

    #[test]
    fn what_anchors_keep_is_bounded_too() {
        let anchors: String = (0..30).map(|at| format!("&a{at} [")).collect();
        let text = format!("a: {anchors}{}{}\n", "1, ".repeat(5_000), "]".repeat(30));
        assert!(parse(&text).expect_err("thirty of them").reason.contains("values"));
        assert!(parse(&text.replace("&a0 [", "[").replace("1, ", "")).is_ok());
    }

    #[test]
    fn a_merged_mapping_has_no_more_keys_than_another() {
        let keys = |name: &str, num: usize| (0..num).map(|at| format!("{name}{at}: 1, ")).collect::<String>();
        let text =
            |own: usize| format!("a: &a {{{}}}\nb: {{<<: *a, {}}}\n", keys("a", 1_000), keys("b", own));
        assert!(parse(&text(24)).is_ok());
        let refused = parse(&text(25)).expect_err("1025 keys");
        assert!(refused.line == 2 && refused.reason.contains("1024 keys"), "{refused}");
        let twice = format!(
            "a: &a {{{}}}\nb: &b {{{}}}\nc: {{<<: *a, <<: *b}}\n",
            keys("a", 1_000),
            keys("b", 1_000)
        );
        assert!(parse(&twice).is_err());
    }
}
