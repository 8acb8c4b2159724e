//! Records as Flower's objects, written as its own library writes them, and the small ones read.
//!
//! An object is its type, the objects below it, the length of its body and the body. What comes from a node is refused by name
//! where it is not what its type says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message as _;
use sheaf_coordinator::{METRIC_NAME_LEN_MAX, METRICS_MAX};
use sheaf_domain::{ConfigMap, ConfigValue, Digest, Metrics};
use sheaf_tensor::Dtype;

use crate::object::FRAME_LEN_MAX;
use crate::proto;
use crate::proto::config_record_value::Value as Configured;
use crate::proto::metric_record_value::Value as Measured;

/// The name of the arrays among the records of a message. Source: `flwr/serverapp/strategy/fedavg.py`, 1.42.0.
pub(super) const ARRAYS_KEY: &str = "arrays";
/// The name of the configuration among the records of a message.
pub(super) const CONFIG_KEY: &str = "config";
/// What a reply weighs, among its metrics.
pub(super) const WEIGHT_KEY: &str = "num-examples";
/// The number of the round, in the configuration.
const ROUND_KEY: &str = "server-round";
/// The weight of FedProx's term, as upstream's strategy calls it and as our plans do.
const PROXIMAL_KEYS: (&str, &str) = ("proximal-mu", "proximal_mu");
/// What a plan says to trainers alone.
const TRAINER_KEY: &str = "trainer";
/// How arrays are serialised.
pub(super) const ARRAY_STYPE: &str = "numpy.ndarray";

/// An object: its name and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) id: Digest,
    pub(super) children: Vec<Digest>,
    pub(super) bytes: Bytes,
}

/// Makes an object.
pub(super) fn object(type_name: &str, children: &[Digest], body: &[u8]) -> Object {
    let mut bytes = frame(type_name, children, body.len() as u64);
    bytes.extend_from_slice(body);
    Object { id: Digest::of(&bytes), children: children.to_vec(), bytes: bytes.into() }
}

/// What stands before the body of an object.
pub(super) fn frame(type_name: &str, children: &[Digest], body_len: u64) -> Vec<u8> {
    let children: Vec<String> = children.iter().map(Digest::to_string).collect();
    format!("{type_name} {} {body_len}\0", children.join(",")).into_bytes()
}

/// A JSON object of names and objects, as Python writes it.
pub(super) fn named<'n>(entries: impl Iterator<Item = (&'n str, Digest)>) -> String {
    let entries: Vec<String> = entries.map(|(name, id)| format!("{}: \"{id}\"", quoted(name))).collect();
    format!("{{{}}}", entries.join(", "))
}

/// A text in JSON, in ASCII.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            ' '..='~' => quoted.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(quoted, "\\u{unit:04x}");
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

/// What NumPy calls a dtype.
pub(super) fn numpy_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
        Dtype::F32 => "float32",
        Dtype::F64 => "float64",
        Dtype::I8 => "int8",
        Dtype::I16 => "int16",
        Dtype::I32 => "int32",
        Dtype::I64 => "int64",
        Dtype::U8 => "uint8",
        Dtype::U16 => "uint16",
        Dtype::U32 => "uint32",
        Dtype::U64 => "uint64",
        Dtype::Bool => "bool",
    }
}

/// The body of an `Array`; `chunks` are the places of its chunks among the objects below it.
pub(super) fn array_body(dtype: Dtype, shape: &[u64], chunks: &[usize]) -> String {
    let list = |numbers: Vec<String>| numbers.join(", ");
    let (shape, chunks) = (
        list(shape.iter().map(u64::to_string).collect()),
        list(chunks.iter().map(usize::to_string).collect()),
    );
    let dtype = numpy_name(dtype);
    format!(
        r#"{{"dtype": "{dtype}", "shape": [{shape}], "stype": "{ARRAY_STYPE}", "arraychunk_ids": [{chunks}]}}"#
    )
}

/// The configuration of a task as the stock strategies would send it: the plan's keys, and the round.
///
/// # Errors
/// The key whose value a configuration cannot carry.
pub(super) fn config(config: &ConfigMap, round: u32) -> Result<Object, String> {
    let mut values = BTreeMap::new();
    for (key, value) in config.iter().filter(|(key, _)| *key != TRAINER_KEY) {
        let key = if key == PROXIMAL_KEYS.1 { PROXIMAL_KEYS.0 } else { key };
        let value = configured(value).ok_or_else(|| format!("`{key}` cannot be handed to a Flower app"))?;
        values.insert(key.to_owned(), value);
    }
    values.insert(ROUND_KEY.to_owned(), Configured::Sint64(round.into()));
    let item = |(key, value)| proto::config_record::Item {
        key,
        value: Some(proto::ConfigRecordValue { value: Some(value) }),
    };
    let record = proto::ConfigRecord { items: values.into_iter().map(item).collect() };
    Ok(object("ConfigRecord", &[], &record.encode_to_vec()))
}

fn configured(value: &ConfigValue) -> Option<Configured> {
    Some(match value {
        ConfigValue::Bool(value) => Configured::Bool(*value),
        ConfigValue::Int(value) => Configured::Sint64(*value),
        ConfigValue::Float(value) => Configured::Double(*value),
        ConfigValue::Text(text) => Configured::String(text.clone()),
        ConfigValue::List(values) => list(values)?,
        _ => return None,
    })
}

/// A list of values of one sort. One with a real number among whole ones is of real ones.
fn list(values: &[ConfigValue]) -> Option<Configured> {
    let ints: Option<Vec<i64>> = values.iter().map(ConfigValue::as_i64).collect();
    if let Some(vals) = ints {
        return Some(Configured::SintList(proto::SintList { vals }));
    }
    let reals: Option<Vec<f64>> = values.iter().map(ConfigValue::as_f64).collect();
    if let Some(vals) = reals {
        return Some(Configured::DoubleList(proto::DoubleList { vals }));
    }
    let texts: Option<Vec<String>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
    if let Some(vals) = texts {
        return Some(Configured::StringList(proto::StringList { vals }));
    }
    let truths = values.iter().map(|value| match value {
        ConfigValue::Bool(value) => Some(*value),
        _ => None,
    });
    Some(Configured::BoolList(proto::BoolList { vals: truths.collect::<Option<_>>()? }))
}

/// What a reply weighs and what else it measured. The values of a list are metrics of their own, `name[0]` and on.
///
/// # Errors
/// What the record lacks.
pub(super) fn measured(record: proto::MetricRecord) -> Result<(f64, Metrics), String> {
    let mut weight = None;
    let mut metrics = Metrics::new();
    for proto::metric_record::Item { key, value } in record.items {
        let Some(value) = value.and_then(|value| value.value) else {
            return Err(format!("the metric {:?} has no value", shown(&key)));
        };
        if key == WEIGHT_KEY {
            weight = Some(single(&value).ok_or_else(|| format!("`{WEIGHT_KEY}` is a list, not a number"))?);
            continue;
        }
        match single(&value) {
            Some(value) => drop(metrics.insert(key, value)),
            None => {
                if metrics.len() + count(&value) > METRICS_MAX || key.len() > METRIC_NAME_LEN_MAX {
                    return Err(format!(
                        "the metric {:?} has {} values; a result has at most {METRICS_MAX}, with names of {METRIC_NAME_LEN_MAX} bytes",
                        shown(&key),
                        count(&value)
                    ));
                }
                let values = many(value).into_iter().enumerate();
                metrics.extend(values.map(|(idx, value)| (format!("{key}[{idx}]"), value)));
            }
        }
    }
    let weight = weight.ok_or_else(|| format!("the reply's metrics have no `{WEIGHT_KEY}`"))?;
    Ok((weight, metrics))
}

#[expect(clippy::cast_precision_loss, reason = "metrics are kept as real numbers")]
fn single(value: &Measured) -> Option<f64> {
    match value {
        Measured::Double(value) => Some(*value),
        Measured::Sint64(value) => Some(*value as f64),
        Measured::Uint64(value) => Some(*value as f64),
        _ => None,
    }
}

fn count(value: &Measured) -> usize {
    match value {
        Measured::DoubleList(list) => list.vals.len(),
        Measured::SintList(list) => list.vals.len(),
        Measured::UintList(list) => list.vals.len(),
        _ => 1,
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are kept as real numbers")]
fn many(value: Measured) -> Vec<f64> {
    match value {
        Measured::DoubleList(list) => list.vals,
        Measured::SintList(list) => list.vals.into_iter().map(|value| value as f64).collect(),
        Measured::UintList(list) => list.vals.into_iter().map(|value| value as f64).collect(),
        _ => Vec::new(),
    }
}

/// Splits an object that is there whole, or its beginning, into the name of its type and what follows its header.
///
/// # Errors
/// When it has no header.
pub(super) fn split(beginning: &Bytes, children: usize) -> Result<(String, Bytes), String> {
    let max = children * (ID_LEN + 1) + FRAME_LEN_MAX;
    let end = beginning.iter().take(max + 1).position(|byte| *byte == 0);
    let end = end.ok_or_else(|| "an object has no header".to_owned())?;
    let head = beginning.get(..end).unwrap_or_default();
    let name = head.split(|byte| *byte == b' ').next().unwrap_or_default();
    Ok((String::from_utf8_lossy(name).into_owned(), beginning.slice(end + 1..)))
}

/// A name that a peer gave, short enough to show.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Digits of an object's name.
pub(super) const ID_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(line_type: &str, number: usize) -> (Digest, Bytes) {
        let objects = include_str!("../../testdata/flower/1.42.0/objects.txt");
        let line = objects.lines().filter(|line| line.split(' ').next() == Some(line_type)).nth(number);
        let mut parts = line.unwrap().split(' ').skip(1);
        let id = parts.next().unwrap().parse().unwrap();
        (id, hex::decode(parts.next().unwrap()).unwrap().into())
    }

    #[test]
    fn objects_are_those_of_the_stock_library() {
        let (chunk, bytes) = stored("ArrayChunk", 0);
        let (_, npy) = split(&bytes, 0).unwrap();
        assert_eq!(object("ArrayChunk", &[], &npy).id, chunk);
        let (array, bytes) = stored("Array", 0);
        let made = object("Array", &[chunk], array_body(Dtype::F32, &[3], &[0]).as_bytes());
        assert_eq!((made.id, made.bytes), (array, bytes));
        let (other, _) = stored("Array", 1);
        let body = named([("w", array), ("b", other)].into_iter());
        let (record, bytes) = stored("ArrayRecord", 0);
        let made = object("ArrayRecord", &[array, other], body.as_bytes());
        assert_eq!((made.id, made.bytes), (record, bytes));
        let (name, body) = split(&stored("MetricRecord", 0).1, 0).unwrap();
        assert_eq!(name, "MetricRecord");
        let record = proto::MetricRecord::decode(body).unwrap();
        assert_eq!(record.items[0].key, "loss");
    }

    #[test]
    fn names_are_quoted_as_python_does() {
        assert_eq!(quoted("a\"\\\n\u{1}ü\u{1f600}~\u{7f}"), r#""a\"\\\n\u0001\u00fc\ud83d\ude00~\u007f""#);
    }

    #[test]
    fn a_configuration_has_the_round_and_upstreams_names() {
        let plan = ConfigMap::from([
            ("proximal_mu".to_owned(), ConfigValue::Float(0.25)),
            ("trainer".to_owned(), ConfigValue::Text("mlp".to_owned())),
            ("lr".to_owned(), ConfigValue::Int(2)),
            ("xs".to_owned(), ConfigValue::List(vec![ConfigValue::Int(1), ConfigValue::Float(0.5)])),
        ]);
        let object = config(&plan, 3).unwrap();
        let (_, body) = split(&object.bytes, 0).unwrap();
        let record = proto::ConfigRecord::decode(body).unwrap();
        let items: Vec<_> =
            record.items.into_iter().map(|item| (item.key, item.value.unwrap().value.unwrap())).collect();
        let reals = proto::DoubleList { vals: vec![1.0, 0.5] };
        let expected = [
            ("lr", Configured::Sint64(2)),
            ("proximal-mu", Configured::Double(0.25)),
            ("server-round", Configured::Sint64(3)),
            ("xs", Configured::DoubleList(reals)),
        ];
        assert_eq!(items, expected.map(|(key, value)| (key.to_owned(), value)));
        let mixed = ConfigValue::List(vec![ConfigValue::Int(1), ConfigValue::Bool(true)]);
        assert!(config(&ConfigMap::from([("m".to_owned(), mixed)]), 1).unwrap_err().contains("`m`"));
    }

    fn record(items: Vec<(&str, Measured)>) -> proto::MetricRecord {
        let item = |(key, value): (&str, Measured)| proto::metric_record::Item {
            key: key.to_owned(),
            value: Some(proto::MetricRecordValue { value: Some(value) }),
        };
        proto::MetricRecord { items: items.into_iter().map(item).collect() }
    }

    #[test]
    fn metrics_are_numbers_and_one_of_them_weighs() {
        let counts = Measured::SintList(proto::SintList { vals: vec![4, 1] });
        let given = record(vec![
            ("num-examples", Measured::Sint64(12)),
            ("loss", Measured::Double(0.5)),
            ("counts", counts.clone()),
        ]);
        let (weight, metrics) = measured(given).unwrap();
        assert_eq!(weight, 12.0);
        let expected = [("counts[0]", 4.0), ("counts[1]", 1.0), ("loss", 0.5)];
        assert_eq!(metrics, expected.map(|(name, value)| (name.to_owned(), value)).into());
        assert!(measured(record(vec![])).unwrap_err().contains("no `num-examples`"));
        assert!(measured(record(vec![("num-examples", counts)])).unwrap_err().contains("is a list"));
    }

    #[test]
    fn metrics_without_bounds_are_refused_before_they_are_named() {
        let zeros = |count| Measured::SintList(proto::SintList { vals: vec![0; count] });
        let weighed = |key: &str, value| record(vec![("num-examples", Measured::Sint64(1)), (key, value)]);
        assert_eq!(measured(weighed("list", zeros(METRICS_MAX))).unwrap().1.len(), METRICS_MAX);
        // With the name of each, this would come to a million megabytes.
        let long = "n".repeat(1 << 20);
        for (key, count) in [("list", METRICS_MAX + 1), ("list", 1 << 20), (&long, 2), (&long, 1 << 20)] {
            let refused = measured(weighed(key, zeros(count))).unwrap_err();
            assert!(refused.contains("at most 256"), "{refused}");
        }
    }
}
