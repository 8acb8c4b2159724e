//! A look at a protobuf message before it is decoded: how much memory its lists would take. [`scan_json`](crate::scan_json)
//! does the same for JSON.
//!
//! An entry of two bytes on the wire may be a hundred in memory. A list beyond its bound, or lists that would unfold to more
//! than [`UNFOLD_MAX`] times the message's length, are refused while nothing has been allocated. Groups are refused: the
//! protocol has none. Whether a message means anything is not judged here.

use crate::Error;
use crate::bounds::{DEPTH_MAX, UNFOLD_EXEMPT_BYTES, UNFOLD_MAX};

/// A field of a message that takes memory for each time it comes, or that holds such fields.
pub(crate) struct Field {
    /// Its number.
    pub(crate) number: u64,
    /// Its name, for the refusal.
    pub(crate) name: &'static str,
    /// Its key in JSON.
    pub(crate) key: &'static str,
    /// The most entries of one list.
    pub(crate) count_max: usize,
    /// What an entry takes in memory, without what it points to, in bytes.
    pub(crate) entry_bytes: usize,
    /// What an entry is.
    pub(crate) entry: Entry,
}

/// What an entry of a field is.
pub(crate) enum Entry {
    /// A message with lists of its own.
    Message(&'static [Field]),
    /// Such a message, which comes at most once: it is no entry of a list.
    One(&'static [Field]),
    /// A key and its value, which alone may be among the fields. In JSON the list of them is an object.
    Pair(&'static [Field]),
    /// A text, bytes, or a message without lists.
    Leaf,
    /// A number, alone or packed with others.
    Number,
}

/// Refuses a message whose lists are too long or too empty.
pub(crate) fn check(bytes: &[u8], fields: &[Field]) -> Result<(), Error> {
    Scan { left: Left::of(bytes.len()) }.message(bytes, fields, 0)
}

struct Scan {
    left: Left,
}

/// What the lists of a message may still take.
pub(crate) struct Left {
    /// The memory that may still be taken, in bytes.
    bytes: usize,
    limit: usize,
}

impl Left {
    /// What those of a message of `len` bytes may take.
    pub(crate) fn of(len: usize) -> Left {
        let limit = len.saturating_mul(UNFOLD_MAX).saturating_add(UNFOLD_EXEMPT_BYTES);
        Left { bytes: limit, limit }
    }

    /// Takes `entries` more of a list, which then has `count`.
    pub(crate) fn take(&mut self, field: &Field, entries: usize, count: usize) -> Result<(), Error> {
        if count > field.count_max {
            return Err(Error::TooLarge { field: field.name, limit: field.count_max as u64 });
        }
        let too_large =
            Error::TooLarge { field: "memory the lists of the message take", limit: self.limit as u64 };
        let bytes = entries.saturating_mul(field.entry_bytes);
        self.bytes = self.bytes.checked_sub(bytes).ok_or(too_large)?;
        Ok(())
    }
}

impl Scan {
    fn message(&mut self, mut rest: &[u8], fields: &[Field], depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::TooLarge { field: "depth of the message", limit: DEPTH_MAX as u64 });
        }
        let mut counts = [0usize; FIELDS_MAX];
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let found = fields.iter().zip(&mut counts).find(|(field, _)| field.number == key >> 3);
            let value = value(&mut rest, key & 7)?;
            let Some((field, count)) = found else { continue };
            let entries = match (&field.entry, value) {
                // A number takes as many bytes as have their highest bit clear.
                (Entry::Number, Some(packed)) => packed.iter().filter(|byte| **byte < 0x80).count(),
                _ => 1,
            };
            *count = count.saturating_add(entries);
            self.left.take(field, entries, *count)?;
            if let (Entry::Message(inner) | Entry::One(inner) | Entry::Pair(inner), Some(bytes)) =
                (&field.entry, value)
            {
                self.message(bytes, inner, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// The most fields of one message that are looked at.
pub(crate) const FIELDS_MAX: usize = 4;

/// Takes the value of a field off `rest`; its bytes if it has a length.
fn value<'a>(rest: &mut &'a [u8], wire_type: u64) -> Result<Option<&'a [u8]>, Error> {
    match wire_type {
        0 => varint(rest).map(|_| None),
        1 => take(rest, 8).map(|_| None),
        2 => {
            let len = varint(rest)?;
            take(rest, len).map(Some)
        }
        5 => take(rest, 4).map(|_| None),
        _ => Err(broken()),
    }
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], Error> {
    let (taken, left) =
        usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len)).ok_or_else(broken)?;
    *rest = left;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Error> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first().ok_or_else(broken)?;
        *rest = left;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if *byte < 0x80 {
            return Ok(number);
        }
    }
    Err(broken())
}

fn broken() -> Error {
    Error::bad("message", "it is not well-formed protobuf")
}
