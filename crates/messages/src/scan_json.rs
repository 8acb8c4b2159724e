//! A look at a JSON message before it is decoded, by the same lists and bounds as [`scan`](crate::scan).
//!
//! What a text of two or three bytes stands for may take hundreds: `{}`, `null`, or an array in the place of an object, whose
//! items would be taken for the fields by their position. Entries of lists are counted and weighed while nothing has been
//! allocated, and an array is refused where a message is due. Whether a message means anything is not judged here.

use std::fmt;

use serde::de::{
    self, Deserialize as _, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::Error;
use crate::scan::{Entry, Field, Left};

/// Refuses what is no JSON object, and a message whose lists are too long or too empty.
pub(crate) fn check(text: &[u8], fields: &'static [Field]) -> Result<(), Error> {
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Error::bad("message", "it is not a JSON object"));
    }
    let mut scan = Scan { left: Left::of(text.len()), refused: None };
    let message = Value { scan: &mut scan, sort: Sort::Message(fields) };
    let read = message.deserialize(&mut serde_json::Deserializer::from_slice(text));
    read.map_err(|error| scan.refused.unwrap_or_else(|| Error::bad("message", error)))
}

struct Scan {
    left: Left,
    /// What the reading was ended by, if it was not the text.
    refused: Option<Error>,
}

impl Scan {
    fn take<E: de::Error>(&mut self, field: &Field, count: usize) -> Result<(), E> {
        self.left.take(field, 1, count).map_err(|refused| {
            let error = E::custom(&refused);
            self.refused = Some(refused);
            error
        })
    }
}

/// What a value is due to be.
#[derive(Clone, Copy)]
enum Sort {
    Message(&'static [Field]),
    /// An array of entries.
    List(&'static Field),
    /// An object of entries.
    Map(&'static Field),
    /// A text, a number, or a message without lists.
    Leaf,
}

impl Sort {
    /// What the value of a field is.
    fn of(field: &'static Field) -> Sort {
        match field.entry {
            Entry::One(fields) => Sort::Message(fields),
            Entry::Pair(_) => Sort::Map(field),
            Entry::Message(_) | Entry::Leaf | Entry::Number => Sort::List(field),
        }
    }

    /// What each entry of a field is.
    fn of_entries(field: &'static Field) -> Sort {
        match field.entry {
            Entry::Message(fields) | Entry::One(fields) => Sort::Message(fields),
            Entry::Pair(fields) => fields.first().map_or(Sort::Leaf, Sort::of),
            Entry::Leaf | Entry::Number => Sort::Leaf,
        }
    }
}

struct Value<'s> {
    scan: &'s mut Scan,
    sort: Sort,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A scalar says nothing about memory; whether it is the right one is for the decoding to say.
macro_rules! pass {
    ($($visit:ident($given:ty);)*) => {
        $(fn $visit<E: de::Error>(self, _: $given) -> Result<(), E> {
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.sort {
            Sort::Message(_) | Sort::Map(_) => "a JSON object",
            Sort::List(_) => "a list",
            Sort::Leaf => "no list",
        })
    }

    pass! {
        visit_bool(bool);
        visit_i64(i64);
        visit_u64(u64);
        visit_f64(f64);
        visit_str(&str);
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Sort::List(field) = self.sort else {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        };
        let (scan, sort) = (self.scan, Sort::of_entries(field));
        let mut count = 0;
        while items.next_element_seed(Value { scan: &mut *scan, sort })?.is_some() {
            count += 1;
            scan.take(field, count)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Value { scan, sort } = self;
        let mut count = 0;
        while let Some(found) = fields.next_key_seed(Key(sort))? {
            if let Sort::Map(field) = sort {
                count += 1;
                scan.take(field, count)?;
            }
            match found {
                Some(sort) => fields.next_value_seed(Value { scan: &mut *scan, sort })?,
                None => fields.next_value::<IgnoredAny>().map(|_| ())?,
            }
        }
        Ok(())
    }
}

/// The key of an object of a sort; gives the sort of the value, nothing for one that does not matter.
struct Key(Sort);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<Sort>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Sort>, D::Error> {
        match self.0 {
            Sort::Message(_) => deserializer.deserialize_identifier(self),
            Sort::Map(field) => IgnoredAny::deserialize(deserializer).map(|_| Some(Sort::of_entries(field))),
            Sort::List(_) | Sort::Leaf => IgnoredAny::deserialize(deserializer).map(|_| None),
        }
    }
}

impl Visitor<'_> for Key {
    type Value = Option<Sort>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Option<Sort>, E> {
        let Sort::Message(fields) = self.0 else { return Ok(None) };
        Ok(fields.iter().find(|field| field.key == key).map(Sort::of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bounds, decode_json, v1};

    fn refused<M: crate::Listed>(text: &str) -> Option<Error> {
        check(text.as_bytes(), M::lists().0).err()
    }

    fn many(entry: &str, count: usize) -> String {
        vec![entry; count].join(",")
    }

    #[test]
    fn entries_are_weighed_whatever_stands_for_them() {
        for entry in ["{}", "{} ", "{\"x\":0}"] {
            let work = format!("{{\"work\":[{}]}}", many(entry, 250));
            assert!(matches!(refused::<v1::NextReply>(&work), Some(Error::TooLarge { .. })), "{entry}");
        }
        let tensors = format!("{{\"tensors\":[{}]}}", many("{}", 2_000));
        assert!(matches!(refused::<v1::Manifest>(&tensors), Some(Error::TooLarge { .. })));
    }

    #[test]
    fn a_message_is_no_array() {
        let texts = [
            format!("{{\"work\":[{}]}}", many("[]", 256)),
            "{\"work\":[{\"config\":{\"k\":[]}}]}".to_owned(),
            "{\"work\":[{\"outputs\":[{\"like\":[]}]}]}".to_owned(),
            "{\"withdrawn\":[[\"task\",\"reason\"]]}".to_owned(),
            "[]".to_owned(),
            "7".to_owned(),
            String::new(),
        ];
        for text in texts {
            assert!(matches!(refused::<v1::NextReply>(&text), Some(Error::Bad { .. })), "{text}");
        }
    }

    #[test]
    fn lists_have_their_bounds_as_in_protobuf() {
        let of = |count| format!("{{\"metrics\":{{{}}}}}", many("\"loss of this metric\":1", count));
        assert_eq!(refused::<v1::SubmitRequest>(&of(bounds::METRICS_MAX)), None);
        let limit = bounds::METRICS_MAX as u64;
        let beyond = refused::<v1::SubmitRequest>(&of(bounds::METRICS_MAX + 1));
        assert_eq!(beyond, Some(Error::TooLarge { field: "metrics", limit }));
        let of = |dims| format!("{{\"tensors\":[{{\"name\":\"w\",\"shape\":[{}]}}]}}", many("1", dims));
        assert_eq!(refused::<v1::Manifest>(&of(32)), None);
        assert!(matches!(refused::<v1::Manifest>(&of(33)), Some(Error::TooLarge { field: "shape", .. })));
    }

    #[test]
    fn what_the_protocol_does_not_know_is_passed_over() {
        let text = "{\"new\":[[1],[{}],null],\"tensors\":[{\"name\":\"w\",\"more\":[[]],\"shape\":[1e0]}]}";
        assert_eq!(refused::<v1::Manifest>(text), None);
        assert!(decode_json::<v1::BeatRequest>(b"{\"\\u0077orking\":null}").is_err());
        assert_eq!(decode_json(b"{\"later\":[[]]}"), Ok(v1::BeatRequest::default()));
    }
}
