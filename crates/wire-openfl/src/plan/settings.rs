//! The settings of one section, taken one by one; what is left over is unknown.
//!
//! Invariant: a setting is either taken, or reported by name and line.

use std::cell::RefCell;

use super::yaml::{Map, Node, Value};
use super::{Place, PlanError, shortened};

/// A mapping of which settings are taken.
#[derive(Debug)]
pub(super) struct Settings<'p> {
    section: &'p str,
    map: Option<&'p Map>,
    taken: RefCell<Vec<&'static str>>,
}

/// What becomes of settings nobody took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Refused,
    Warned,
}

impl<'p> Settings<'p> {
    /// The settings of a section; none when it has none.
    pub(super) fn of(section: &'p str, node: Option<&'p Node>) -> Result<Settings<'p>, PlanError> {
        let map = match node {
            None => None,
            Some(Node { value: Value::Null, .. }) => None,
            Some(Node { value: Value::Map(map), .. }) => Some(map),
            Some(other) => return Err(PlanError::value(section, "settings", other.line, "a mapping")),
        };
        Ok(Settings { section, map, taken: RefCell::default() })
    }

    /// The value of a setting; none when it is not there or says nothing.
    pub(super) fn node(&self, key: &'static str) -> Option<&'p Node> {
        self.taken.borrow_mut().push(key);
        self.map?.get(key).filter(|node| node.value != Value::Null)
    }

    fn wrong(&self, key: &str, node: &Node, wanted: &'static str) -> PlanError {
        PlanError::value(self.section, key, node.line, wanted)
    }

    pub(super) fn missing(&self, key: &str) -> PlanError {
        PlanError::Missing { section: shortened(self.section), key: key.to_owned() }
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<&'p str>, PlanError> {
        let Some(node) = self.node(key) else { return Ok(None) };
        node.text().map(Some).ok_or_else(|| self.wrong(key, node, "a text"))
    }

    pub(super) fn needed_text(&self, key: &'static str) -> Result<&'p str, PlanError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn truth(&self, key: &'static str, default: bool) -> Result<bool, PlanError> {
        match self.node(key) {
            None => Ok(default),
            Some(Node { value: Value::Bool(value), .. }) => Ok(*value),
            Some(node) => Err(self.wrong(key, node, "true or false")),
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn whole(
        &self,
        key: &'static str,
        default: u32,
        least: u32,
        most: u32,
    ) -> Result<u32, PlanError> {
        let Some(node) = self.node(key) else { return Ok(default) };
        let number = match node.value {
            Value::Int(number) => u32::try_from(number).ok(),
            _ => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.wrong(key, node, "a whole number within its bounds"))
    }

    /// A number that `is_good`.
    pub(super) fn number(
        &self,
        key: &'static str,
        default: f64,
        wanted: &'static str,
        is_good: impl Fn(f64) -> bool,
    ) -> Result<f64, PlanError> {
        let Some(node) = self.node(key) else { return Ok(default) };
        let number = match node.value {
            #[expect(clippy::cast_precision_loss, reason = "settings are small numbers")]
            Value::Int(number) => Some(number as f64),
            Value::Float(number) => Some(number),
            _ => None,
        };
        number.filter(|number| is_good(*number)).ok_or_else(|| self.wrong(key, node, wanted))
    }

    /// A list of texts, not empty.
    pub(super) fn texts(&self, key: &'static str) -> Result<Option<Vec<String>>, PlanError> {
        let Some(node) = self.node(key) else { return Ok(None) };
        let wrong = || self.wrong(key, node, "a list of texts");
        let Value::List(items) = &node.value else { return Err(wrong()) };
        let texts: Option<Vec<String>> = items.iter().map(|item| item.text().map(str::to_owned)).collect();
        texts.map(Some).ok_or_else(wrong)
    }

    /// Takes settings that make no difference here.
    pub(super) fn ignore(&self, keys: &[&'static str]) {
        self.taken.borrow_mut().extend(keys);
    }

    /// What nobody took.
    pub(super) fn finish(self, rest: Rest, warnings: &mut Vec<String>) -> Result<(), PlanError> {
        let taken = self.taken.into_inner();
        let map = self.map.into_iter().flat_map(Map::iter);
        for (key, value) in map {
            if key.text().is_some_and(|key| taken.contains(&key)) {
                continue;
            }
            let name = key.text().map_or_else(|| key.sort().to_owned(), shortened);
            let place = Place(if key.line == 0 { value.line } else { key.line });
            if rest == Rest::Refused {
                return Err(PlanError::Unknown { section: shortened(self.section), key: name, place });
            }
            warnings.push(format!("{place}: the setting {name:?} of {} is ignored", shortened(self.section)));
        }
        Ok(())
    }
}
