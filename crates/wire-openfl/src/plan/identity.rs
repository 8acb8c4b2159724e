//! Who the federation is: the plan with its defaults laid down, dumped as upstream dumps it, hashed.
//!
//! Every peer computes the same from its own copy of the plan and sends it in every header; one that computed another is not
//! of this federation. The dump is that of the plan before an address or a port is filled in for `auto`.
//!
//! Source: observed with openfl 1.9, its plan's `hash`, `resolve` and `_load_defaults`.

use sha2::{Digest as _, Sha384};

use super::yaml::{self, Map, Node, Value};
use super::{PlanError, dump};

const DEFAULTS: &str = include_str!("defaults.yaml");
/// The ports that upstream chooses from for `auto`: the first, and how many.
const PORTS: (u16, u32) = (49_152, 11_847);

/// The names that peers put into every header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// SHA-384 of the dump, in hex.
    pub plan_hash: String,
    /// The federation: the plan's file name and eight digits of the hash.
    pub federation_uuid: String,
    /// The aggregator: the federation with a prefix.
    pub aggregator_uuid: String,
}

impl Identity {
    /// The identity of a plan with its defaults, whose file has this name.
    ///
    /// # Errors
    /// [`PlanError::Yaml`] for a key that cannot be dumped.
    pub fn of(plan: &Node, file_name: &str) -> Result<Identity, PlanError> {
        let plan_hash = hash(plan)?;
        let federation_uuid = format!("{file_name}_{}", plan_hash.get(..8).unwrap_or_default());
        let aggregator_uuid = format!("aggregator_{federation_uuid}");
        Ok(Identity { plan_hash, federation_uuid, aggregator_uuid })
    }
}

/// SHA-384 of the dump, in hex.
pub(super) fn hash(plan: &Node) -> Result<String, PlanError> {
    let dump = dump::dump(plan).map_err(|error| {
        PlanError::Yaml(yaml::YamlError {
            line: error.line,
            reason: "the key is empty, too long or of several lines".to_owned(),
        })
    })?;
    Ok(hex::encode(Sha384::digest(dump.as_bytes())))
}

/// The port that upstream chooses for `auto`.
pub(super) fn port(plan_hash: &str) -> u16 {
    let number =
        plan_hash.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
    let (first, count) = PORTS;
    first + u16::try_from(number % count).unwrap_or_default()
}

/// Lays the defaults down: each section gets settings, and what the file it names has, where it says nothing itself.
///
/// # Errors
/// [`PlanError`] for a section that is no mapping and a file that upstream does not have.
pub(super) fn with_defaults(plan: Node) -> Result<Node, PlanError> {
    let line = plan.line;
    let Value::Map(mut sections) = plan.value else {
        return Err(PlanError::value("plan", "sections", line, "a mapping"));
    };
    let names: Vec<Node> = sections.iter().map(|(name, _)| name.clone()).collect();
    let known = yaml::parse(DEFAULTS).map_err(PlanError::Yaml)?;
    // Above every identity of the file.
    let mut identities = u32::MAX / 2;
    for name in names {
        let key = name.text().unwrap_or_default();
        let Some(section) = sections.value_mut(key) else {
            return Err(PlanError::value("plan", "section", name.line, "a text as its name"));
        };
        let Value::Map(map) = &mut section.value else {
            return Err(PlanError::value(key, "section", section.line, "a mapping"));
        };
        if map.get("settings").is_none_or(|settings| settings.value == Value::Null) {
            identities += 1;
            let empty = Node { line: section.line, identity: identities, value: Value::Map(Map::default()) };
            map.set(Node::of_text("settings"), empty);
        }
        if let Some(file) = map.remove("defaults").filter(|file| file.value != Value::Null) {
            *map = laid_down(std::mem::take(map), key, &file, &known, &mut identities)?;
        }
    }
    Ok(Node { value: Value::Map(sections), ..plan })
}

fn laid_down(
    section: Map,
    name: &str,
    file: &Node,
    known: &Node,
    identities: &mut u32,
) -> Result<Map, PlanError> {
    let found = file.text().and_then(|path| known.map()?.get(path)).and_then(Node::map);
    let Some(found) = found else {
        return Err(PlanError::value(name, "defaults", file.line, "a file of upstream's plan/defaults"));
    };
    let Value::Map(mut defaults) = renamed(Value::Map(found.clone()), identities) else {
        return Ok(section);
    };
    for (key, value) in section.iter() {
        // Settings are laid over those of the file one by one; when it has none, they stay.
        let below = defaults.value_mut("settings").filter(|_| key.text() == Some("settings"));
        match (below.map(|below| &mut below.value), value.map()) {
            (Some(Value::Map(below)), Some(settings)) => {
                for (key, value) in settings.iter() {
                    below.set(key.clone(), value.clone());
                }
            }
            (Some(_), _) => return Err(PlanError::value(name, "settings", value.line, "a mapping")),
            (None, _) => defaults.set(key.clone(), value.clone()),
        }
    }
    Ok(defaults)
}

/// The value without lines, and with containers of its own: each section reads the file anew.
fn renamed(value: Value, identities: &mut u32) -> Value {
    let mut node = |node: Node| {
        *identities += 1;
        let identity = if node.identity == 0 { 0 } else { *identities };
        let value = renamed(node.value, identities);
        Node { line: 0, identity, value }
    };
    match value {
        Value::List(items) => Value::List(items.into_iter().map(node).collect()),
        Value::Map(map) => {
            let mut renamed = Map::default();
            for (key, value) in map.iter() {
                renamed.set(Node { line: 0, ..key.clone() }, node(value.clone()));
            }
            Value::Map(renamed)
        }
        scalar => scalar,
    }
}
