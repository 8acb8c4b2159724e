//! The JSON header of a safetensors file, parsed and printed.
//!
//! Refuses a key twice, a field it does not know, and more tensors or dimensions than a set may have, before they are
//! collected. Whether the offsets fit together is not judged here.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{FORMAT, Metadata, dtype_name, malformed};
use crate::{Dtype, Error, ParamSet, RANK_MAX, TensorSpec};

/// A tensor the header names, and where its bytes begin and end after the header.
pub(super) struct Entry {
    pub(super) spec: TensorSpec,
    pub(super) offsets: (u64, u64),
}

pub(super) struct Parsed {
    /// In the order of the text.
    pub(super) entries: Vec<Entry>,
    pub(super) metadata: Metadata,
}

pub(super) fn parse(text: &[u8]) -> Result<Parsed, Error> {
    let Document { entries, metadata } =
        serde_json::from_slice(text).map_err(|error| malformed(format!("its header: {error}")))?;
    let entries = entries.into_iter().map(|(name, fields)| check(name, fields)).collect::<Result<_, _>>()?;
    Ok(Parsed { entries, metadata: metadata.map(|StringMap(map)| map).unwrap_or_default() })
}

pub(super) fn print(specs: &[TensorSpec], metadata: &Metadata) -> Result<Vec<u8>, Error> {
    let mut text = b"{".to_vec();
    if !metadata.is_empty() {
        print_json(&mut text, METADATA_KEY)?;
        text.push(b':');
        print_json(&mut text, metadata)?;
    }
    let mut begin = 0;
    for spec in specs {
        spec.check_name()?;
        if spec.name == METADATA_KEY {
            return Err(Error::BadName { name: spec.name.clone() });
        }
        if text.len() > 1 {
            text.push(b',');
        }
        let end = begin + spec.byte_len();
        print_json(&mut text, &spec.name)?;
        text.extend_from_slice(format!(":{{\"dtype\":\"{}\",\"shape\":", dtype_name(spec.dtype)).as_bytes());
        print_json(&mut text, spec.shape.dims())?;
        text.extend_from_slice(format!(",\"data_offsets\":[{begin},{end}]}}").as_bytes());
        begin = end;
    }
    text.push(b'}');
    Ok(text)
}

fn print_json(text: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) -> Result<(), Error> {
    serde_json::to_writer(text, value).map_err(|error| malformed(error.to_string()))
}

fn check(name: String, fields: Fields) -> Result<Entry, Error> {
    let Some(dtype) = Dtype::ALL.into_iter().find(|dtype| dtype_name(*dtype) == fields.dtype) else {
        let shown: String = fields.dtype.chars().take(32).collect();
        let name: String = name.chars().take(64).collect();
        return Err(Error::Unsupported {
            format: FORMAT,
            reason: format!("tensor {name:?} has dtype {shown:?}"),
        });
    };
    Ok(Entry { spec: TensorSpec::new(name, dtype, fields.shape)?, offsets: fields.offsets })
}

/// The whole header.
struct Document {
    entries: Vec<(String, Fields)>,
    metadata: Option<StringMap>,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Document, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document { entries: Vec::new(), metadata: None };
        while let Some(key) = map.next_key::<String>()? {
            if key == METADATA_KEY {
                set_once(&mut document.metadata, METADATA_KEY, map.next_value()?)?;
            } else if document.entries.len() < ParamSet::TENSORS_MAX {
                document.entries.push((key, map.next_value()?));
            } else {
                return Err(A::Error::custom(format!("more than {} tensors", ParamSet::TENSORS_MAX)));
            }
        }
        Ok(document)
    }
}

/// What the header says of one tensor.
struct Fields {
    dtype: String,
    shape: Vec<u64>,
    offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "dtype" => set_once(&mut dtype, "dtype", map.next_value()?)?,
                "shape" => set_once(&mut shape, "shape", map.next_value::<Dims>()?.0)?,
                "data_offsets" => set_once(&mut offsets, "data_offsets", map.next_value()?)?,
                _ => return Err(A::Error::unknown_field(&key, &["dtype", "shape", "data_offsets"])),
            }
        }
        Ok(Fields {
            dtype: dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            offsets: offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?,
        })
    }
}

/// The extents of a shape, no more than a shape may have.
struct Dims(Vec<u64>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dims, D::Error> {
        deserializer.deserialize_seq(DimsVisitor)
    }
}

struct DimsVisitor;

impl<'de> Visitor<'de> for DimsVisitor {
    type Value = Dims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of extents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dims, A::Error> {
        let mut dims = Vec::new();
        while let Some(dim) = seq.next_element()? {
            if dims.len() == RANK_MAX {
                return Err(A::Error::custom(format!("more than {RANK_MAX} dimensions")));
            }
            dims.push(dim);
        }
        Ok(Dims(dims))
    }
}

/// The free text.
struct StringMap(Metadata);

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StringMap, D::Error> {
        deserializer.deserialize_map(StringMapVisitor)
    }
}

struct StringMapVisitor;

impl<'de> Visitor<'de> for StringMapVisitor {
    type Value = StringMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMap, A::Error> {
        let mut strings = Metadata::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if strings.insert(key, value).is_some() {
                return Err(A::Error::custom("a metadata key appears twice"));
            }
        }
        Ok(StringMap(strings))
    }
}

fn set_once<T, E: serde::de::Error>(place: &mut Option<T>, key: &'static str, value: T) -> Result<(), E> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(key)),
    }
}

const METADATA_KEY: &str = "__metadata__";
