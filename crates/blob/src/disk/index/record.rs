//! The records of the index, as bytes.
//!
//! Decoding refuses what encoding would not make; it never panics, whatever the bytes.

use sheaf_domain::Digest;

use crate::Hold;
use crate::disk::header::Fields;

const PUT: u8 = 1;
const HOLD: u8 = 2;
const RELEASE: u8 = 3;

/// One change of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// An object was stored and is kept by a hold.
    Put {
        /// Its digest.
        digest: Digest,
        /// The spool file it lies in; 0 for an empty object.
        file: u32,
        /// Where in the file it begins.
        offset: u64,
        /// How long it is.
        len: u64,
        /// The hold.
        hold: Hold,
    },
    /// A stored object is kept by one more hold.
    Hold {
        /// Its digest.
        digest: Digest,
        /// The hold.
        hold: Hold,
    },
    /// A hold ended.
    Release {
        /// The hold.
        hold: Hold,
    },
}

impl Record {
    /// Appends the record's bytes to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Put { digest, file, offset, len, hold } => {
                out.push(PUT);
                out.extend_from_slice(digest.as_bytes());
                out.extend_from_slice(&file.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&len.to_le_bytes());
                encode_hold(hold, out);
            }
            Record::Hold { digest, hold } => {
                out.push(HOLD);
                out.extend_from_slice(digest.as_bytes());
                encode_hold(hold, out);
            }
            Record::Release { hold } => {
                out.push(RELEASE);
                encode_hold(hold, out);
            }
        }
    }

    /// Takes the next record from the front of `fields`; `None` when it is not one.
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Record> {
        match fields.take_u8()? {
            PUT => Some(Record::Put {
                digest: Digest::from_bytes(fields.take()?),
                file: fields.take_u32()?,
                offset: fields.take_u64()?,
                len: fields.take_u64()?,
                hold: decode_hold(fields)?,
            }),
            HOLD => {
                Some(Record::Hold { digest: Digest::from_bytes(fields.take()?), hold: decode_hold(fields)? })
            }
            RELEASE => Some(Record::Release { hold: decode_hold(fields)? }),
            _ => None,
        }
    }
}

fn encode_hold(hold: &Hold, out: &mut Vec<u8>) {
    out.push(hold.len_byte());
    out.extend_from_slice(hold.as_str().as_bytes());
}

fn decode_hold(fields: &mut Fields<'_>) -> Option<Hold> {
    let len = fields.take_u8()?;
    let text = std::str::from_utf8(fields.take_slice(usize::from(len))?).ok()?;
    Hold::new(text).ok()
}
