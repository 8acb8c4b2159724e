//! A Flower App Bundle: what is believed of the archive a run brings, before its bytes are kept.
//!
//! Pure. [`check`] opens the archive under the bounds of the module `archive` and reads only its `pyproject.toml` and,
//! when there is one, `.info/CONTENT`, whose digests must be those of all other files. Refused by name: whatever the
//! archive refuses, a missing or unreadable project file, names that could leave an app's directory, settings that are no
//! scalars, components without `module:attribute`, formats above 1. Python's version specifiers are not judged here.
//! Layout and rules observed with flwr 1.42.0.

use std::collections::BTreeMap;

use sheaf_domain::Digest;
use toml::{Table, Value};

use crate::proto;

mod archive;
mod build;
mod directory;
mod patterns;

pub use build::build;

/// The longest bundle, in bytes.
pub const FAB_LEN_MAX: usize = 10 * 1_024 * 1_024;
/// The most dots and opening brackets and braces in a `pyproject.toml`; what tools are configured with and versions of packages have many.
pub const PROJECT_MARKS_MAX: usize = 16 * 1_024;
/// The longest publisher, project name or version, in bytes.
pub const NAME_LEN_MAX: usize = 128;

/// A bundle that was checked.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Fab {
    /// `publisher/name`.
    pub id: String,
    pub version: String,
    /// The digest of the bundle's bytes: the name it is kept under.
    pub hash: Digest,
    /// The defaults of `[tool.flwr.app.config]`, nested keys joined with dots.
    pub config: BTreeMap<String, ConfigScalar>,
    /// `module:attribute`; absent only from bundles with an agent app.
    pub server_app: Option<String>,
    /// `module:attribute`; absent only from bundles with an agent app.
    pub client_app: Option<String>,
}

/// A setting.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum ConfigScalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

/// Why a bundle is refused. Names of entries and keys are shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FabError {
    #[error("{what} is {len} bytes long, and at most {max} are read")]
    TooLong { what: String, len: u64, max: u64 },
    #[error("the archive lists {count} entries, and at most {max} are read")]
    TooManyEntries { count: u64, max: u64 },
    #[error("the files unfold to more than {max} bytes")]
    TotalTooLong { max: u64 },
    #[error("the entry {entry:?} unfolds to more than {max} bytes a byte")]
    Ratio { entry: String, max: u64 },
    #[error("the archive cannot be read: {reason}")]
    Archive { reason: String },
    #[error("the entry {entry:?} is refused: {reason}")]
    Entry { entry: String, reason: &'static str },
    #[error("the entry {entry:?} cannot be read: {reason}")]
    Unreadable { entry: String, reason: String },
    #[error("the archive has no pyproject.toml")]
    NoProject,
    #[error("pyproject.toml cannot be read: {reason}")]
    Project { reason: String },
    #[error("{field} is missing in pyproject.toml")]
    Missing { field: &'static str },
    #[error("{field} is not accepted: {reason}")]
    Field { field: String, reason: &'static str },
    #[error("line {line} of .info/CONTENT is refused: {reason}")]
    Content { line: usize, reason: &'static str },
    #[error("the entry {entry:?} is not what .info/CONTENT says")]
    ContentDiffers { entry: String },
    #[error("the entry {entry:?} is not listed in .info/CONTENT")]
    Unlisted { entry: String },
    #[error("the app has no setting {key:?}")]
    UnknownKey { key: String },
}

/// Checks a bundle.
///
/// # Errors
/// Every [`FabError`] but [`FabError::UnknownKey`].
pub fn check(bytes: &[u8]) -> Result<Fab, FabError> {
    if bytes.len() > FAB_LEN_MAX {
        return Err(too_long("the bundle", bytes.len() as u64, FAB_LEN_MAX as u64));
    }
    let project = archive::read(bytes)?;
    sheaf_domain::check_toml_marks_to(&project, PROJECT_MARKS_MAX)
        .map_err(|error| FabError::Project { reason: error.to_string() })?;
    let project: Table = project
        .parse()
        .map_err(|error: toml::de::Error| FabError::Project { reason: shortened(error.message()) })?;
    let (about, app) = (table(&project, &["project"])?, table(&project, &["tool", "flwr", "app"])?);
    check_format(app)?;
    let components = table(app, &["components"])?;
    let optional = components.contains_key("agentapp");
    component(components, "agentapp", "tool.flwr.app.components.agentapp", true)?;
    let publisher = name(app, "publisher", "tool.flwr.app.publisher")?;
    Ok(Fab {
        id: format!("{publisher}/{}", name(about, "name", "project.name")?),
        version: name(about, "version", "project.version")?.to_owned(),
        hash: Digest::of(bytes),
        config: config(app)?,
        server_app: component(components, "serverapp", "tool.flwr.app.components.serverapp", optional)?,
        client_app: component(components, "clientapp", "tool.flwr.app.components.clientapp", optional)?,
    })
}

/// Checks that a run overrides only settings the bundle has. Their types may differ, as with the stock server.
///
/// # Errors
/// [`FabError::UnknownKey`].
pub fn check_overrides(fab: &Fab, overrides: &BTreeMap<String, proto::Scalar>) -> Result<(), FabError> {
    match overrides.keys().find(|key| !fab.config.contains_key(*key)) {
        Some(key) => Err(FabError::UnknownKey { key: shortened(key) }),
        None => Ok(()),
    }
}

fn table<'a>(from: &'a Table, path: &[&'static str]) -> Result<&'a Table, FabError> {
    let mut here = from;
    for key in path {
        here = match here.get(*key) {
            Some(Value::Table(table)) => table,
            Some(_) => return Err(refused(key, "it is not a table")),
            None => return Err(FabError::Missing { field: key }),
        };
    }
    Ok(here)
}

fn text<'a>(from: &'a Table, key: &str, field: &'static str) -> Result<Option<&'a str>, FabError> {
    match from.get(key) {
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(refused(field, "it is not a text")),
        None => Ok(None),
    }
}

/// Reads a name that becomes a part of a directory's name wherever the app is installed.
fn name<'a>(from: &'a Table, key: &str, field: &'static str) -> Result<&'a str, FabError> {
    let name = text(from, key, field)?.ok_or(FabError::Missing { field })?;
    if name.trim().is_empty() {
        return Err(refused(field, "it is empty"));
    }
    if name.len() > NAME_LEN_MAX {
        return Err(too_long(field, name.len() as u64, NAME_LEN_MAX as u64));
    }
    if name.chars().any(|c| matches!(c, '/' | '\\') || c.is_control()) {
        return Err(refused(field, "it has slashes or control characters"));
    }
    Ok(name)
}

fn component(
    from: &Table,
    key: &str,
    field: &'static str,
    optional: bool,
) -> Result<Option<String>, FabError> {
    let Some(reference) = text(from, key, field)? else {
        return if optional { Ok(None) } else { Err(FabError::Missing { field }) };
    };
    match reference.split_once(':') {
        Some((module, attribute)) if !module.is_empty() && !attribute.is_empty() => {
            Ok(Some(reference.to_owned()))
        }
        _ => Err(refused(field, "it is not module:attribute")),
    }
}

fn check_format(app: &Table) -> Result<(), FabError> {
    match app.get("fab-format-version") {
        None | Some(Value::Integer(0 | 1)) => Ok(()),
        Some(_) => Err(refused("tool.flwr.app.fab-format-version", "only 0 and 1 are known")),
    }
}

fn config(app: &Table) -> Result<BTreeMap<String, ConfigScalar>, FabError> {
    let mut flat = BTreeMap::new();
    match app.get("config") {
        Some(Value::Table(config)) => flatten(config, "", &mut flat)?,
        Some(_) => return Err(refused("tool.flwr.app.config", "it is not a table")),
        None => {}
    }
    Ok(flat)
}

/// Joins nested keys. The depth is bounded by the parser, at 80 for a header and for a key.
fn flatten(from: &Table, above: &str, flat: &mut BTreeMap<String, ConfigScalar>) -> Result<(), FabError> {
    for (key, value) in from {
        let key = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        let scalar = match value {
            Value::Table(inner) => {
                flatten(inner, &key, flat)?;
                continue;
            }
            Value::Boolean(value) => ConfigScalar::Bool(*value),
            Value::Integer(value) => ConfigScalar::Int(*value),
            Value::Float(value) => ConfigScalar::Float(*value),
            Value::String(value) => ConfigScalar::Text(value.clone()),
            Value::Datetime(_) | Value::Array(_) => {
                return Err(refused(&key, "it is no truth value, number or text"));
            }
        };
        if flat.contains_key(&key) {
            return Err(refused(&key, "two settings have this name"));
        }
        flat.insert(key, scalar);
    }
    Ok(())
}

fn refused(field: &str, reason: &'static str) -> FabError {
    FabError::Field { field: shortened(field), reason }
}

fn too_long(what: &str, len: u64, max: u64) -> FabError {
    FabError::TooLong { what: shortened(what), len, max }
}

fn shortened(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

const SHOWN_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests;
