//! Typed configuration handed to a task: what a plan says to a trainer, never what a site runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One value of a task's configuration.
///
/// # Examples
/// ```
/// use sheaf_domain::{ConfigMap, ConfigValue};
///
/// let mut config = ConfigMap::new();
/// config.insert("epochs".to_owned(), ConfigValue::Int(5));
/// assert_eq!(config.get("epochs").and_then(ConfigValue::as_i64), Some(5));
/// assert_eq!(config.get("epochs").and_then(ConfigValue::as_f64), Some(5.0));
/// ```
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sort_of_value_keeps_its_sort_in_json() {
        let text = r#"{"a":true,"b":5,"c":1.0,"d":0.1,"e":"5","f":[1,2.0,"x",[]],"g":-9223372036854775808}"#;
        let config: ConfigMap = serde_json::from_str(text).unwrap();
        assert_eq!(config["b"], ConfigValue::Int(5));
        assert_eq!(config["c"], ConfigValue::Float(1.0));
        assert_eq!(config["e"], ConfigValue::Text("5".to_owned()));
        assert_eq!(config["g"].as_i64(), Some(i64::MIN));
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
    }

    #[test]
    fn what_a_plan_cannot_say_is_no_value() {
        for bad in ["null", "{}", "{\"a\":1}", "[null]"] {
            assert!(serde_json::from_str::<ConfigValue>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_read_only_as_what_they_are() {
        assert_eq!(ConfigValue::Int(2).as_f64(), Some(2.0));
        assert_eq!(ConfigValue::Float(2.0).as_i64(), None);
        assert_eq!(ConfigValue::Text("2".to_owned()).as_f64(), None);
        assert_eq!(ConfigValue::Bool(true).as_str(), None);
    }
}
