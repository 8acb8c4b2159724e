//! The results of a task read from the pieces of a stream: who sends which task first, then tensor after tensor.
//!
//! What the pieces of gRPC and of the body over HTTP come to is the same message, and it is read here for both. The tensors come last,
//! as peers send them. Nothing waits for the whole message, and at most one tensor's head is held.
//!
//! Source: field numbers of `proto/openfl/v1/aggregator.proto`; the order observed with openfl 1.9.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use sheaf_tensor::ParamSet;

use crate::fields::{Event, FieldError, Fields};
use crate::proto::openfl::aggregator::MessageHeader;
use crate::tensors::reader::{Part as TensorPart, TensorReader};
use crate::tensors::{Head, Limits, Refusal};

/// The longest header, in bytes.
pub const HEADER_LEN_MAX: u64 = 4_096;
/// The longest name of a task, in bytes.
pub const TASK_NAME_LEN_MAX: u64 = 512;
/// The most bytes of fields with unknown numbers.
const UNKNOWN_LEN_MAX: u64 = 64 * 1_024;

/// What comes before the tensors.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Sent {
    pub header: MessageHeader,
    pub round_number: i32,
    pub task_name: String,
    /// Examples; -1 from tasks that neither train nor validate.
    pub data_size: i32,
}

/// A part of the results, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Comes once, before any tensor.
    Sent(Sent),
    /// A tensor begins.
    Tensor(Head),
    /// The next of its bytes.
    Bytes(Bytes),
    /// The tensor is complete.
    End,
}

/// What is wrong with the results.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ResultsError {
    #[error("{0}")]
    Tensor(Refusal),
    #[error("the results are no message: {0}")]
    Encoding(FieldError),
    #[error("{field} claims {len} bytes, and at most {max} are read")]
    TooLong { field: &'static str, len: u64, max: u64 },
    #[error("{field} is not valid")]
    Malformed { field: &'static str },
    #[error("{field} comes where it may not")]
    Misplaced { field: &'static str },
    #[error("there are more than {max} tensors")]
    TooMany { max: usize },
    #[error("the stream is empty")]
    Empty,
}

/// Reads the results of one task.
#[derive(Debug)]
pub struct ResultsReader {
    fields: Fields,
    limits: Limits,
    sent: Option<Sent>,
    /// Given out, so nothing of it may come any more.
    is_out: bool,
    seen: [bool; 6],
    field: u32,
    held: BytesMut,
    tensor: Option<TensorReader>,
    /// The bytes of a field that are with the tensor's reader.
    inner: Bytes,
    tensors: usize,
    unknown_len: u64,
    is_empty: bool,
    is_ending: bool,
}

const FIELDS: [&str; 6] = ["an unknown field", "header", "round_number", "task_name", "data_size", "tensors"];

fn name(field: u32) -> &'static str {
    usize::try_from(field).ok().and_then(|at| FIELDS.get(at)).copied().unwrap_or("an unknown field")
}

impl ResultsReader {
    /// A reader under these limits.
    pub fn new(limits: Limits) -> ResultsReader {
        ResultsReader {
            fields: Fields::default(),
            limits,
            sent: Some(Sent::default()),
            is_out: false,
            seen: [false; 6],
            field: 0,
            held: BytesMut::new(),
            tensor: None,
            inner: Bytes::new(),
            tensors: 0,
            unknown_len: 0,
            is_empty: true,
            is_ending: false,
        }
    }

    /// The next part in `piece`, whose bytes it takes; none when the piece is used up.
    ///
    /// # Errors
    /// [`ResultsError`]; the reader is of no use afterwards.
    pub fn next(&mut self, piece: &mut Bytes) -> Result<Option<Part>, ResultsError> {
        self.is_empty &= piece.is_empty();
        if std::mem::take(&mut self.is_ending) {
            return Ok(Some(Part::End));
        }
        loop {
            if let Some(reader) = &mut self.tensor
                && let Some(part) = reader.next(&mut self.inner).map_err(ResultsError::Tensor)?
            {
                return Ok(Some(match part {
                    TensorPart::Head(head) => Part::Tensor(head),
                    TensorPart::Bytes(bytes) => Part::Bytes(bytes),
                }));
            }
            let Some(event) = self.fields.next(piece).map_err(ResultsError::Encoding)? else {
                return Ok(None);
            };
            match event {
                Event::Varint(field, value) => self.number(field, value)?,
                Event::Begin(field, len, is_delimited) => {
                    self.begin(field, len, is_delimited)?;
                    if field == 5 && !self.is_out {
                        self.is_out = true;
                        return Ok(self.sent.take().map(Part::Sent));
                    }
                }
                Event::Bytes(bytes) if self.field == 5 => self.inner = bytes,
                Event::Bytes(bytes) if matches!(self.field, 1 | 3) => self.held.extend_from_slice(&bytes),
                Event::Bytes(_) => {}
                Event::End => {
                    if let Some(part) = self.end()? {
                        return Ok(Some(part));
                    }
                }
            }
        }
    }

    fn number(&mut self, field: u32, value: u64) -> Result<(), ResultsError> {
        match field {
            2 | 4 => self.once(field)?,
            1 | 3 | 5 => return Err(ResultsError::Encoding(FieldError::WireType(field))),
            _ => return self.unknown(1),
        }
        #[expect(clippy::cast_possible_truncation, reason = "an int32 by the protocol's rule")]
        let value = value as i32;
        if let Some(sent) = &mut self.sent {
            *(if field == 2 { &mut sent.round_number } else { &mut sent.data_size }) = value;
        }
        Ok(())
    }

    fn begin(&mut self, field: u32, len: u64, is_delimited: bool) -> Result<(), ResultsError> {
        self.field = field;
        let max = match field {
            2 | 4 => return Err(ResultsError::Encoding(FieldError::WireType(field))),
            1 | 3 | 5 if !is_delimited => return Err(ResultsError::Encoding(FieldError::WireType(field))),
            1 => HEADER_LEN_MAX,
            3 => TASK_NAME_LEN_MAX,
            5 => self.limits.tensor_bytes_max.saturating_add(self.limits.metadata_len_max.saturating_mul(2)),
            _ => return self.unknown(len.saturating_add(1)),
        };
        if len > max {
            return Err(ResultsError::TooLong { field: name(field), len, max });
        }
        if field != 5 {
            return self.once(field);
        }
        self.tensors += 1;
        if self.tensors > ParamSet::TENSORS_MAX {
            return Err(ResultsError::TooMany { max: ParamSet::TENSORS_MAX });
        }
        self.tensor = Some(TensorReader::new(self.limits));
        Ok(())
    }

    fn once(&mut self, field: u32) -> Result<(), ResultsError> {
        let seen = usize::try_from(field).ok().and_then(|at| self.seen.get_mut(at));
        match seen {
            Some(seen) if !*seen && !self.is_out => *seen = true,
            _ => return Err(ResultsError::Misplaced { field: name(field) }),
        }
        Ok(())
    }

    fn unknown(&mut self, len: u64) -> Result<(), ResultsError> {
        self.unknown_len = self.unknown_len.saturating_add(len);
        if self.unknown_len > UNKNOWN_LEN_MAX {
            return Err(ResultsError::TooLong { field: name(0), len, max: UNKNOWN_LEN_MAX });
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Option<Part>, ResultsError> {
        let field = std::mem::take(&mut self.field);
        if let Some(reader) = self.tensor.take() {
            let head = reader.finish().map_err(ResultsError::Tensor)?;
            // A tensor without bytes has not given its head yet; its end is told with the next call.
            self.is_ending = head.is_some();
            return Ok(Some(head.map_or(Part::End, Part::Tensor)));
        }
        let held = self.held.split();
        let malformed = ResultsError::Malformed { field: name(field) };
        if let Some(sent) = &mut self.sent {
            match field {
                1 => sent.header = MessageHeader::decode(held.as_ref()).map_err(|_| malformed)?,
                3 => sent.task_name = String::from_utf8(held.to_vec()).map_err(|_| malformed)?,
                _ => {}
            }
        }
        Ok(None)
    }

    /// Ends the message; what came before the tensors, when there were none.
    ///
    /// # Errors
    /// [`ResultsError::Empty`] without a byte; [`FieldError::Truncated`] inside a field.
    pub fn finish(self) -> Result<Option<Sent>, ResultsError> {
        if self.is_empty {
            return Err(ResultsError::Empty);
        }
        self.fields.finish().map_err(ResultsError::Encoding)?;
        Ok(self.sent)
    }
}

#[cfg(test)]
mod tests;
