//! A task's configuration on the wire: typed values, so that 1 and 1.0 stay apart in every language.

use sheaf_domain::{ConfigMap, ConfigValue};

use crate::bounds::{CONFIG_DEPTH_MAX, CONFIG_TEXT_LEN_MAX, CONFIG_VALUES_MAX, KEY_LEN_MAX};
use crate::text::limit;
use crate::v1::config_value::Kind;
use crate::{Error, v1};

type WireMap = std::collections::BTreeMap<String, v1::ConfigValue>;

/// A configuration for the wire.
///
/// # Errors
/// [`Error::Bad`] for a kind of value this version of the protocol has no form for.
pub fn config_to_wire(config: &ConfigMap) -> Result<WireMap, Error> {
    config.iter().map(|(key, value)| Ok((key.clone(), value_to_wire(value)?))).collect()
}

/// A configuration from the wire, with its bounds checked.
///
/// # Errors
/// [`Error::TooLarge`] beyond a bound, [`Error::Absent`] for a value of no kind.
pub fn config_from_wire(config: &WireMap) -> Result<ConfigMap, Error> {
    limit("config", config.len(), CONFIG_VALUES_MAX)?;
    config
        .iter()
        .map(|(key, value)| {
            limit("config key", key.len(), KEY_LEN_MAX)?;
            Ok((key.clone(), value_from_wire(value, 0)?))
        })
        .collect()
}

fn value_to_wire(value: &ConfigValue) -> Result<v1::ConfigValue, Error> {
    let kind = match value {
        ConfigValue::Bool(value) => Kind::Bool(*value),
        ConfigValue::Int(value) => Kind::Int(*value),
        ConfigValue::Float(value) => Kind::Float(*value),
        ConfigValue::Text(value) => Kind::Text(value.clone()),
        ConfigValue::List(values) => {
            Kind::List(v1::ConfigList { values: values.iter().map(value_to_wire).collect::<Result<_, _>>()? })
        }
        other => return Err(Error::bad("config", format!("{other:?} has no form in this protocol"))),
    };
    Ok(v1::ConfigValue { kind: Some(kind) })
}

fn value_from_wire(value: &v1::ConfigValue, depth: usize) -> Result<ConfigValue, Error> {
    match &value.kind {
        None => Err(Error::Absent { field: "config value" }),
        Some(Kind::Bool(value)) => Ok(ConfigValue::Bool(*value)),
        Some(Kind::Int(value)) => Ok(ConfigValue::Int(*value)),
        Some(Kind::Float(value)) => Ok(ConfigValue::Float(*value)),
        Some(Kind::Text(text)) => {
            limit("config text", text.len(), CONFIG_TEXT_LEN_MAX)?;
            Ok(ConfigValue::Text(text.clone()))
        }
        Some(Kind::List(list)) => {
            limit("depth of config lists", depth + 1, CONFIG_DEPTH_MAX)?;
            limit("config list", list.values.len(), CONFIG_VALUES_MAX)?;
            let values = list.values.iter().map(|value| value_from_wire(value, depth + 1));
            Ok(ConfigValue::List(values.collect::<Result<_, _>>()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ConfigMap {
        ConfigMap::from([
            ("epochs".to_owned(), ConfigValue::Int(5)),
            ("rate".to_owned(), ConfigValue::Float(1.0)),
            (
                "layers".to_owned(),
                ConfigValue::List(vec![ConfigValue::Int(64), ConfigValue::Text("relu".to_owned())]),
            ),
            ("shuffle".to_owned(), ConfigValue::Bool(true)),
        ])
    }

    #[test]
    fn a_configuration_survives_the_wire_and_its_json() {
        let wire = config_to_wire(&sample()).unwrap();
        let json = serde_json::to_string(&wire).unwrap();
        assert!(json.contains(r#""epochs":{"int":5}"#), "{json}");
        let back: WireMap = serde_json::from_str(&json).unwrap();
        assert_eq!(config_from_wire(&back), Ok(sample()));
    }

    #[test]
    fn deep_or_empty_values_are_refused() {
        let mut value = v1::ConfigValue { kind: Some(Kind::Int(1)) };
        for _ in 0..=CONFIG_DEPTH_MAX {
            value = v1::ConfigValue { kind: Some(Kind::List(v1::ConfigList { values: vec![value] })) };
        }
        let deep = WireMap::from([("deep".to_owned(), value)]);
        assert!(matches!(config_from_wire(&deep), Err(Error::TooLarge { .. })));
        let empty = WireMap::from([("empty".to_owned(), v1::ConfigValue::default())]);
        assert_eq!(config_from_wire(&empty), Err(Error::Absent { field: "config value" }));
    }
}
