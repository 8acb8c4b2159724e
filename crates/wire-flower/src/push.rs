//! PushObject read piece by piece, and the prefix of PullObject's answer: object bytes pass through without a copy.
//!
//! Pure. Fields may come in any order, but object id and run id must precede the content, because what is stored is
//! decided by them. Refused by name: content too early, fields given twice, wrong wire types, lengths over their bound,
//! a body that ends early. Nothing is allocated because a peer claims a length: at most [`SMALL_LEN_MAX`] bytes are held.

use bytes::{Buf, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

/// The longest field that is held whole, in bytes.
pub const SMALL_LEN_MAX: u64 = 1_024;
/// The most bytes of fields with unknown numbers.
pub const UNKNOWN_LEN_MAX: u64 = 64 * 1_024;

/// What is wrong with a PushObject request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PushError {
    #[error("the content comes before {field}")]
    ContentTooEarly { field: &'static str },
    #[error("{field} is given twice")]
    Repeated { field: &'static str },
    #[error("{field} has the wrong wire type")]
    WrongType { field: &'static str },
    #[error("{field} claims {len} bytes, and at most {max} are read")]
    TooLong { field: &'static str, len: u64, max: u64 },
    #[error("{field} is not valid")]
    Malformed { field: &'static str },
    #[error("the body ends inside {field}")]
    Truncated { field: &'static str },
    #[error("{field} is missing")]
    Missing { field: &'static str },
}

/// What is known before the content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Head {
    /// The node; absent when an application process pushes.
    pub node_id: Option<u64>,
    pub run_id: u64,
    pub object_id: String,
    /// The content's claimed length: a claim, to be compared with what is allowed.
    pub content_len: u64,
}

/// A part of the request, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Comes once, before the content.
    Head(Head),
    /// The next bytes of the content.
    Content(Bytes),
}

/// What is known at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tail {
    /// Present even when there was no content.
    pub head: Head,
    /// Empty from peers that know no sessions.
    pub session_id: String,
    /// The node, should it have come after the content.
    pub node_id: Option<u64>,
}

#[derive(Debug)]
enum State {
    Key,
    Varint(u64),
    Len(u64),
    Small(u64, u64),
    Content(u64),
    Skip(u64),
}

/// Reads one request.
#[derive(Debug)]
pub struct PushReader {
    state: State,
    held: BytesMut,
    content_len_max: u64,
    unknown_len: u64,
    node_id: Option<u64>,
    run_id: Option<u64>,
    object_id: Option<String>,
    session_id: Option<String>,
    content_len: Option<u64>,
}

const FIELDS: [&str; 6] = ["an unknown field", "node", "run_id", "object_id", "object_content", "session_id"];

fn name(field: u64) -> &'static str {
    usize::try_from(field).ok().and_then(|at| FIELDS.get(at)).copied().unwrap_or("an unknown field")
}

impl PushReader {
    /// A reader for contents of at most `content_len_max` bytes.
    pub fn new(content_len_max: u64) -> PushReader {
        PushReader {
            state: State::Key,
            held: BytesMut::new(),
            content_len_max,
            unknown_len: 0,
            node_id: None,
            run_id: None,
            object_id: None,
            session_id: None,
            content_len: None,
        }
    }

    /// Takes the next piece of the body.
    ///
    /// # Errors
    /// [`PushError`]; the reader is of no use afterwards.
    pub fn feed(&mut self, mut piece: Bytes) -> Result<Vec<Part>, PushError> {
        let mut parts = Vec::new();
        while !piece.is_empty() {
            match self.state {
                State::Key => {
                    if let Some(key) = self.varint(&mut piece, "a field's key")? {
                        self.key(key)?;
                    }
                }
                State::Varint(field) => {
                    if let Some(value) = self.varint(&mut piece, name(field))? {
                        if field == 2 {
                            self.run_id = Some(value);
                        }
                        self.state = State::Key;
                    }
                }
                State::Len(field) => {
                    if let Some(len) = self.varint(&mut piece, name(field))? {
                        self.length(field, len, &mut parts)?;
                    }
                }
                State::Small(field, left) => self.small(field, left, &mut piece)?,
                State::Content(left) => {
                    let taken = take(&mut piece, left);
                    let left = left - taken.len() as u64;
                    self.state = if left == 0 { State::Key } else { State::Content(left) };
                    parts.push(Part::Content(taken));
                }
                State::Skip(left) => {
                    let left = left - take(&mut piece, left).len() as u64;
                    self.state = if left == 0 { State::Key } else { State::Skip(left) };
                }
            }
        }
        Ok(parts)
    }

    fn varint(&mut self, piece: &mut Bytes, field: &'static str) -> Result<Option<u64>, PushError> {
        while piece.has_remaining() {
            let byte = piece.get_u8();
            self.held.extend_from_slice(&[byte]);
            if self.held.len() > 10 {
                return Err(PushError::Malformed { field });
            }
            if byte & 0x80 == 0 {
                let mut held = self.held.split();
                return prost::encoding::decode_varint(&mut held)
                    .map(Some)
                    .map_err(|_| PushError::Malformed { field });
            }
        }
        Ok(None)
    }

    fn key(&mut self, key: u64) -> Result<(), PushError> {
        let (field, wire) = (key >> 3, key & 7);
        if field == 0 || field >= 1 << 29 {
            return Err(PushError::Malformed { field: "a field's key" });
        }
        let seen = match field {
            1 => self.node_id.is_some(),
            2 => self.run_id.is_some(),
            3 => self.object_id.is_some(),
            4 => self.content_len.is_some(),
            5 => self.session_id.is_some(),
            _ => false,
        };
        if seen {
            return Err(PushError::Repeated { field: name(field) });
        }
        self.state = match (field, wire) {
            (2, 0) => State::Varint(field),
            (1 | 3..=5, 2) => State::Len(field),
            (1..=5, _) => return Err(PushError::WrongType { field: name(field) }),
            (_, 0) => {
                self.unknown(1)?;
                State::Varint(field)
            }
            (_, 1) => self.unknown(8)?,
            (_, 2) => State::Len(field),
            (_, 5) => self.unknown(4)?,
            _ => return Err(PushError::WrongType { field: name(field) }),
        };
        Ok(())
    }

    fn unknown(&mut self, len: u64) -> Result<State, PushError> {
        self.unknown_len = self.unknown_len.saturating_add(len);
        if self.unknown_len > UNKNOWN_LEN_MAX {
            return Err(PushError::TooLong { field: name(0), len, max: UNKNOWN_LEN_MAX });
        }
        Ok(if len == 0 { State::Key } else { State::Skip(len) })
    }

    fn length(&mut self, field: u64, len: u64, parts: &mut Vec<Part>) -> Result<(), PushError> {
        if field > 5 {
            // One byte more, so that empty unknown fields count as well.
            self.unknown_len = self.unknown_len.saturating_add(1);
            self.state = self.unknown(len)?;
            return Ok(());
        }
        let max = if field == 4 { self.content_len_max } else { SMALL_LEN_MAX };
        if len > max {
            return Err(PushError::TooLong { field: name(field), len, max });
        }
        if field == 4 {
            self.content_len = Some(len);
            parts.push(Part::Head(self.head().map_err(|error| match error {
                PushError::Missing { field } => PushError::ContentTooEarly { field },
                other => other,
            })?));
            self.state = if len == 0 { State::Key } else { State::Content(len) };
        } else if len == 0 {
            self.take_small(field, &[])?;
        } else {
            self.state = State::Small(field, len);
        }
        Ok(())
    }

    fn small(&mut self, field: u64, left: u64, piece: &mut Bytes) -> Result<(), PushError> {
        let taken = take(piece, left);
        self.held.extend_from_slice(&taken);
        let left = left - taken.len() as u64;
        if left > 0 {
            self.state = State::Small(field, left);
            return Ok(());
        }
        let held = self.held.split();
        self.take_small(field, &held)
    }

    fn take_small(&mut self, field: u64, bytes: &[u8]) -> Result<(), PushError> {
        let malformed = || PushError::Malformed { field: name(field) };
        if field == 1 {
            let node: crate::proto::Node = prost::Message::decode(bytes).map_err(|_| malformed())?;
            self.node_id = Some(node.node_id);
        } else {
            let text = String::from_utf8(bytes.to_vec()).map_err(|_| malformed())?;
            if field == 3 {
                self.object_id = Some(text);
            } else {
                self.session_id = Some(text);
            }
        }
        self.state = State::Key;
        Ok(())
    }

    fn head(&self) -> Result<Head, PushError> {
        Ok(Head {
            node_id: self.node_id,
            run_id: self.run_id.ok_or(PushError::Missing { field: "run_id" })?,
            object_id: self.object_id.clone().ok_or(PushError::Missing { field: "object_id" })?,
            content_len: self.content_len.unwrap_or(0),
        })
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`PushError::Truncated`] inside a field, [`PushError::Missing`] without run or object id.
    pub fn finish(self) -> Result<Tail, PushError> {
        let field = match self.state {
            State::Key if self.held.is_empty() => None,
            State::Key => Some("a field's key"),
            State::Varint(field) | State::Len(field) | State::Small(field, _) => Some(name(field)),
            State::Content(_) => Some(name(4)),
            State::Skip(_) => Some(name(0)),
        };
        if let Some(field) = field {
            return Err(PushError::Truncated { field });
        }
        Ok(Tail {
            head: self.head()?,
            node_id: self.node_id,
            session_id: self.session_id.unwrap_or_default(),
        })
    }
}

fn take(piece: &mut Bytes, left: u64) -> Bytes {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
    piece.split_to(len)
}

/// The bytes of a PullObjectResponse (found and available) before its content of `content_len` bytes; the content ends
/// the message.
pub fn pull_prefix(content_len: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + encoded_len_varint(content_len));
    out.extend_from_slice(&[0x08, 1, 0x10, 1]);
    if content_len > 0 {
        out.extend_from_slice(&[0x1a]);
        encode_varint(content_len, &mut out);
    }
    out.freeze()
}

#[cfg(test)]
mod tests;
