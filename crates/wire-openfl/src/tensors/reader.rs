//! A tensor's message read from pieces of any size: its head first, then its bytes as they come.
//!
//! The bytes must come last and once, as peers send them, because how they are read is decided by all the rest. Refused by name:
//! fields after the bytes, fields given twice, wrong wire types, lengths over their bound before any of their bytes is read.
//!
//! Source: field numbers of `proto/openfl/v1/base.proto`; the order observed with openfl 1.9.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use sheaf_tensor::NAME_LEN_MAX;

use super::{Fault, Head, Limits, Refusal};
use crate::fields::{Event, FieldError, Fields};

/// The longest tag, in bytes.
pub const TAG_LEN_MAX: u64 = 512;
/// The most tags.
pub const TAGS_MAX: usize = 32;
/// The most transformers.
pub const METADATA_MAX: usize = 8;
/// The most bytes of fields with unknown numbers.
const UNKNOWN_LEN_MAX: u64 = 64 * 1_024;

/// What a tensor's message gives, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Comes once, before the bytes.
    Head(Head),
    /// The next of the bytes.
    Bytes(Bytes),
}

/// Reads one tensor.
#[derive(Debug)]
pub struct TensorReader {
    fields: Fields,
    limits: Limits,
    head: Head,
    seen: [bool; 8],
    /// The field being read, and what is held of it.
    field: u32,
    held: BytesMut,
    unknown_len: u64,
}

const FIELDS: [&str; 8] = [
    "an unknown field",
    "name",
    "round_number",
    "lossless",
    "report",
    "tags",
    "transformer_metadata",
    "data_bytes",
];

fn name(field: u32) -> &'static str {
    usize::try_from(field).ok().and_then(|at| FIELDS.get(at)).copied().unwrap_or("an unknown field")
}

impl TensorReader {
    /// A reader under these limits.
    pub fn new(limits: Limits) -> TensorReader {
        TensorReader {
            fields: Fields::default(),
            limits,
            head: Head::default(),
            seen: [false; 8],
            field: 0,
            held: BytesMut::new(),
            unknown_len: 0,
        }
    }

    /// The next part in `piece`, whose bytes it takes; none when the piece is used up.
    ///
    /// # Errors
    /// [`Refusal`]; the reader is of no use afterwards.
    pub fn next(&mut self, piece: &mut Bytes) -> Result<Option<Part>, Refusal> {
        self.step(piece).map_err(|fault| fault.of(&self.head.name))
    }

    fn step(&mut self, piece: &mut Bytes) -> Result<Option<Part>, Fault> {
        while let Some(event) = self.fields.next(piece).map_err(Fault::Encoding)? {
            match event {
                Event::Varint(field, value) => self.number(field, value)?,
                Event::Begin(field, len, is_delimited) => {
                    self.begin(field, len, is_delimited)?;
                    if field == 7 {
                        return Ok(Some(Part::Head(self.head.clone())));
                    }
                }
                Event::Bytes(bytes) if self.field == 7 => return Ok(Some(Part::Bytes(bytes))),
                Event::Bytes(bytes) if matches!(self.field, 1 | 5 | 6) => self.held.extend_from_slice(&bytes),
                Event::Bytes(_) => {}
                Event::End => self.end()?,
            }
        }
        Ok(None)
    }

    fn number(&mut self, field: u32, value: u64) -> Result<(), Fault> {
        match field {
            2..=4 => self.once(field)?,
            1 | 5..=7 => return Err(Fault::Encoding(FieldError::WireType(field))),
            _ => return self.unknown(1),
        }
        match field {
            // A negative number travels as 64 bits; peers cut it as well.
            #[expect(clippy::cast_possible_truncation, reason = "an int32 by the protocol's rule")]
            2 => self.head.round_number = value as i32,
            3 => self.head.lossless = value != 0,
            _ => self.head.report = value != 0,
        }
        Ok(())
    }

    fn begin(&mut self, field: u32, len: u64, is_delimited: bool) -> Result<(), Fault> {
        self.field = field;
        let max = match field {
            2..=4 => return Err(Fault::Encoding(FieldError::WireType(field))),
            1 | 5..=7 if !is_delimited => return Err(Fault::Encoding(FieldError::WireType(field))),
            1 => NAME_LEN_MAX as u64,
            5 => TAG_LEN_MAX,
            6 => self.limits.metadata_len_max,
            // Rotated and coded bytes are fewer than what they unfold to, but for a gzip's own twenty.
            7 => self.limits.tensor_bytes_max.saturating_add(1_024),
            _ => return self.unknown(len.saturating_add(1)),
        };
        if len > max {
            return Err(Fault::TooLong { field: name(field), len, max });
        }
        match field {
            5 if self.head.tags.len() >= TAGS_MAX => {
                Err(Fault::TooMany { field: name(field), max: TAGS_MAX })
            }
            6 if self.head.metadata.len() >= METADATA_MAX => {
                Err(Fault::TooMany { field: name(field), max: METADATA_MAX })
            }
            5 | 6 => self.early(field),
            _ => self.once(field),
        }
    }

    /// Nothing but unknown fields may come after the bytes.
    fn early(&self, field: u32) -> Result<(), Fault> {
        if self.seen[7] { Err(Fault::Misplaced { field: name(field) }) } else { Ok(()) }
    }

    fn once(&mut self, field: u32) -> Result<(), Fault> {
        self.early(field)?;
        let seen = usize::try_from(field).ok().and_then(|at| self.seen.get_mut(at));
        match seen {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(Fault::Misplaced { field: name(field) }),
        }
        Ok(())
    }

    fn unknown(&mut self, len: u64) -> Result<(), Fault> {
        self.unknown_len = self.unknown_len.saturating_add(len);
        if self.unknown_len > UNKNOWN_LEN_MAX {
            return Err(Fault::TooLong { field: name(0), len, max: UNKNOWN_LEN_MAX });
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let field = std::mem::take(&mut self.field);
        let held = self.held.split();
        let text = || String::from_utf8(held.to_vec()).map_err(|_| Fault::Malformed { field: name(field) });
        match field {
            1 => self.head.name = text()?,
            5 => self.head.tags.push(text()?),
            6 => {
                let entry = crate::proto::MetadataProto::decode(held.as_ref());
                self.head.metadata.push(entry.map_err(|_| Fault::Malformed { field: name(field) })?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends the message; the head, when there were no bytes to give it with.
    ///
    /// # Errors
    /// [`FieldError::Truncated`] inside a field.
    pub fn finish(self) -> Result<Option<Head>, Refusal> {
        let head = self.head;
        self.fields.finish().map_err(|error| Fault::Encoding(error).of(&head.name))?;
        Ok((!self.seen[7]).then_some(head))
    }
}
