//! Layers of configuration and where each value came from.
//!
//! Environment variables are `SHEAF_` and the key's path in capitals with `__` between section and key:
//! `SHEAF_LISTEN__ADDRESS`, `SHEAF_DATA_DIR`. A value is read as TOML where it parses as such, as text otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::{Table, Value};

use super::Config;
use crate::Error;

const ENV_PREFIX: &str = "SHEAF_";
/// Variables with our prefix that are not settings of the server.
const ENV_OTHERS: [&str; 5] =
    ["SHEAF_BIN", "SHEAF_TEST_PYTHON", "SHEAF_OPERATOR", "SHEAF_SERVER", sheaf_runtime::crash::VARIABLE];
const FILE_LEN_MAX: u64 = 1 << 20;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Some values from one place.
#[derive(Debug, Clone)]
pub struct Layer(Vec<(Vec<String>, Value, Origin)>);

/// A configuration and where each value came from.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What the server runs by.
    pub config: Config,
    /// Every key's path, its value, and where that came from; ordered by path.
    pub origins: BTreeMap<String, (Value, Origin)>,
}

impl Layer {
    /// The values of a configuration file.
    ///
    /// # Errors
    /// [`Error::File`], or [`Error::Config`] with the line.
    pub fn file(path: &Path) -> Result<Layer, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let len = std::fs::metadata(path).map_err(failed)?.len();
        if len > FILE_LEN_MAX {
            let message = format!("a configuration of {len} bytes exceeds the limit of {FILE_LEN_MAX}");
            return Err(Error::Config { place: path.display().to_string(), message });
        }
        Layer::parse(&std::fs::read_to_string(path).map_err(failed)?, path)
    }

    /// The values of the text of a configuration file; `path` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Config`] with the line.
    pub fn parse(text: &str, path: &Path) -> Result<Layer, Error> {
        // Parsed once with the types, so that an error carries its line; then again as plain values to merge.
        let refused = |error: toml::de::Error| {
            let line =
                error.span().map(|span| 1 + text.get(..span.start).unwrap_or(text).matches('\n').count());
            let place =
                line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()));
            Error::Config { place, message: error.message().to_owned() }
        };
        sheaf_domain::check_toml_marks(text).map_err(|error| Error::Config {
            place: path.display().to_string(),
            message: error.to_string(),
        })?;
        toml::from_str::<Config>(text).map_err(refused)?;
        let table: Table = toml::from_str(text).map_err(refused)?;
        let mut values = Vec::new();
        flatten(&[], Value::Table(table), &Origin::File(path.to_owned()), &mut values);
        Ok(Layer(values))
    }

    /// The values among environment variables.
    pub fn environment(variables: impl IntoIterator<Item = (String, String)>) -> Layer {
        let values = variables
            .into_iter()
            .filter(|(name, _)| !ENV_OTHERS.contains(&name.as_str()))
            .filter_map(|(name, text)| {
                let key = name.strip_prefix(ENV_PREFIX)?;
                let path = key.split("__").map(str::to_lowercase).collect();
                Some((path, value_of(&text), Origin::Environment(name)))
            });
        Layer(values.collect())
    }

    /// The values of flags: the key's path such as `listen.address`, the flag's name, its value.
    pub fn flags(flags: impl IntoIterator<Item = (&'static str, &'static str, Value)>) -> Layer {
        let values = flags.into_iter().map(|(key, flag, value)| {
            (key.split('.').map(str::to_owned).collect(), value, Origin::Flag(flag.to_owned()))
        });
        Layer(values.collect())
    }
}

impl Resolved {
    /// Lays the layers over the defaults, the later over the earlier.
    ///
    /// # Errors
    /// [`Error::Config`] naming the place of the value that is refused.
    pub fn of(layers: Vec<Layer>) -> Result<Resolved, Error> {
        let mut origins = BTreeMap::new();
        let defaults = Table::try_from(Config::default())
            .map_err(|error| Error::Config { place: "defaults".to_owned(), message: error.to_string() })?;
        let mut merged = defaults.clone();
        let mut values = Vec::new();
        flatten(&[], Value::Table(defaults), &Origin::Default, &mut values);
        for (path, value, origin) in values.into_iter().chain(layers.into_iter().flat_map(|layer| layer.0)) {
            let place = origin.to_string();
            set(&mut merged, &path, value.clone());
            // Checked value by value, so that the error can name the place.
            Config::deserialize_from(merged.clone()).map_err(|message| Error::Config { place, message })?;
            origins.insert(path.join("."), (value, origin));
        }
        let config = Config::deserialize_from(merged)
            .map_err(|message| Error::Config { place: "configuration".to_owned(), message })?;
        Ok(Resolved { config, origins })
    }
}

impl Config {
    fn deserialize_from(table: Table) -> Result<Config, String> {
        Value::Table(table).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
    }
}

fn flatten(path: &[String], value: Value, origin: &Origin, into: &mut Vec<(Vec<String>, Value, Origin)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path: Vec<String> = path.iter().cloned().chain([key]).collect();
                flatten(&path, value, origin, into);
            }
        }
        value => into.push((path.to_vec(), value, origin.clone())),
    }
}

fn set(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [section, rest @ ..] => {
            let inner = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

fn value_of(text: &str) -> Value {
    let parsed: Option<Table> = toml::from_str(&format!("value = {text}")).ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win_and_say_where_they_came_from() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sheaf.toml");
        std::fs::write(&file, "[limits]\ninflight = \"64MiB\"\nliveness = \"5s\"\n").unwrap();
        let environment = [("SHEAF_LIMITS__INFLIGHT".to_owned(), "32MiB".to_owned())];
        let resolved = Resolved::of(vec![
            Layer::file(&file).unwrap(),
            Layer::environment(environment),
            Layer::flags([("listen.address", "--listen", Value::String("127.0.0.1:0".into()))]),
        ])
        .unwrap();
        assert_eq!(resolved.config.limits.inflight.to_string(), "32MiB");
        assert_eq!(resolved.config.limits.liveness.to_string(), "5s");
        assert_eq!(resolved.config.listen.address.port(), 0);
        let origin = |key: &str| resolved.origins[key].1.to_string();
        assert_eq!(origin("limits.inflight"), "environment SHEAF_LIMITS__INFLIGHT");
        assert_eq!(origin("limits.liveness"), format!("file {}", file.display()));
        assert_eq!(origin("limits.hold_max"), "default");
    }

    #[test]
    fn an_unknown_key_is_refused_where_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sheaf.toml");
        std::fs::write(&file, "data_dir = \"x\"\n[limits]\ninflite = \"64MiB\"\n").unwrap();
        let error = Layer::file(&file).unwrap_err().to_string();
        assert!(error.contains("sheaf.toml:3") && error.contains("inflite"), "{error}");
        let layer = Layer::environment([("SHEAF_LIMITS__LIVENESS".to_owned(), "soon".to_owned())]);
        let error = Resolved::of(vec![layer]).unwrap_err().to_string();
        assert!(error.contains("SHEAF_LIMITS__LIVENESS") && error.contains("soon"), "{error}");
    }

    #[test]
    fn the_sample_says_what_the_defaults_are() {
        let sample: Config = toml::from_str(include_str!("../../../../docs/samples/server.toml")).unwrap();
        assert_eq!(sample, Config::default());
    }
}
