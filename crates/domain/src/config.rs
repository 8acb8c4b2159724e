//! Typed configuration handed to a task: what a plan says to a trainer, never what a site runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One value of a task's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum ConfigValue {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list of values.
    List(Vec<ConfigValue>),
}

impl ConfigValue {
    /// The value as a number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "a configuration number, read as a real one")]
            ConfigValue::Int(value) => Some(*value as f64),
            ConfigValue::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The value as a whole number, if it is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            ConfigValue::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The value as text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            ConfigValue::Text(value) => Some(value),
            _ => None,
        }
    }
}

/// A task's configuration, by key; ordered, so that its JSON form is canonical.
pub type ConfigMap = BTreeMap<String, ConfigValue>;
