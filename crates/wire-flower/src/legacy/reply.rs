//! A client's message, read piece by piece: its tensors pass through as they come, and only what stands beside them is kept.
//!
//! Pure. Invariants: no more than [`BESIDE_LEN_MAX`] bytes of a message are held, whatever its length; a length is believed only
//! within the field around it; what is accepted here is what the protocol's own decoder accepts. Fields that are not known are
//! passed over, as that decoder does. Source: `transport.proto`, the protobuf encoding; observed with flwr 1.42.0.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use sheaf_domain::Manifest;

use crate::frames::{FrameError, GRPC_PREFIX_LEN, read_grpc_prefix};
use crate::proto::Parameters;
use crate::proto::client_message::{DisconnectRes, EvaluateRes, FitRes, GetParametersRes, GetPropertiesRes};

/// The most bytes of a message beside its tensors.
pub const BESIDE_LEN_MAX: usize = 1024 * 1024;
/// The most bytes of a number.
const VARINT_LEN_MAX: usize = 10;
const BEYOND: ReplyError = ReplyError::Broken("a field reaches beyond what surrounds it");

/// What comes out of a message as it comes in.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Which answer it is; before anything else of it.
    Kind(Kind),
    /// A tensor of this many bytes begins.
    Tensor(u64),
    /// The next bytes of the tensor.
    Bytes(Bytes),
    /// The tensor has ended.
    TensorEnd,
    /// The message has ended; everything but its tensors.
    End(Box<Reply>),
}

/// Which answer a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Disconnect,
    Properties,
    Parameters,
    Fit,
    Evaluate,
}

/// A client's answer, without tensors.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Reply {
    Disconnect(DisconnectRes),
    Properties(GetPropertiesRes),
    Parameters(GetParametersRes),
    Fit(FitRes),
    Evaluate(EvaluateRes),
}

/// What is wrong with a client's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Its frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its encoding.
    #[error("the message is broken: {0}")]
    Broken(&'static str),
    /// Its encoding, in what was kept of it.
    #[error("the message is broken: {0}")]
    Undecodable(String),
    /// Two answers, or none.
    #[error("the message holds {0} answers, not one")]
    Answers(u8),
    /// Too much beside tensors.
    #[error("the message holds more than {BESIDE_LEN_MAX} bytes beside its tensors")]
    Beside,
    /// Too many tensors.
    #[error("the message holds more than {} tensors", Manifest::TENSORS_MAX)]
    Tensors,
}

impl Kind {
    /// The field of the message, which is also its name upstream.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Disconnect => "disconnect_res",
            Kind::Properties => "get_properties_res",
            Kind::Parameters => "get_parameters_res",
            Kind::Fit => "fit_res",
            Kind::Evaluate => "evaluate_res",
        }
    }

    fn of_field(number: u64) -> Option<Kind> {
        match number {
            1 => Some(Kind::Disconnect),
            2 => Some(Kind::Properties),
            3 => Some(Kind::Parameters),
            4 => Some(Kind::Fit),
            5 => Some(Kind::Evaluate),
            _ => None,
        }
    }

    fn has_tensors(self) -> bool {
        matches!(self, Kind::Parameters | Kind::Fit)
    }
}

/// What surrounds the place that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Message,
    Answer,
    Parameters,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Frame,
    Key,
    Len {
        number: u64,
    },
    /// A number of the wire type 0.
    Number,
    /// This many bytes that are kept beside.
    Keep {
        left: u64,
    },
    /// This many bytes that nobody needs.
    Skip {
        left: u64,
    },
    Tensor {
        left: u64,
    },
    Ended,
}

/// Reads one message with its frame. Feed it, then take parts until there is none.
#[derive(Debug)]
pub struct ReplyReader {
    message_len_max: u64,
    prefix: Vec<u8>,
    piece: Bytes,
    state: State,
    level: Level,
    /// How far each level reaches, in bytes of the message.
    ends: [u64; 3],
    /// Bytes of the message read.
    at: u64,
    varint: (u64, u32),
    key: u64,
    kind: Option<Kind>,
    tensors: usize,
    /// The answer without its parameters, and its parameters without their tensors.
    beside: [BytesMut; 2],
}

impl ReplyReader {
    /// A reader of a message of at most `message_len_max` bytes.
    pub fn new(message_len_max: u64) -> ReplyReader {
        ReplyReader {
            message_len_max,
            prefix: Vec::with_capacity(GRPC_PREFIX_LEN),
            piece: Bytes::new(),
            state: State::Frame,
            level: Level::Message,
            ends: [0; 3],
            at: 0,
            varint: (0, 0),
            key: 0,
            kind: None,
            tensors: 0,
            beside: [BytesMut::new(), BytesMut::new()],
        }
    }

    /// Takes the next piece of the stream, after every part of the last was taken.
    pub fn feed(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    /// Whether nothing of a message has come yet.
    pub fn is_fresh(&self) -> bool {
        self.state == State::Frame && self.prefix.is_empty()
    }

    /// Whether the last piece holds more than was read of it.
    pub fn has_rest(&self) -> bool {
        !self.piece.is_empty()
    }

    /// The next part; none when the next piece is needed, and after the end.
    ///
    /// # Errors
    /// [`ReplyError`]; nothing more can be read then.
    pub fn part(&mut self) -> Result<Option<Part>, ReplyError> {
        loop {
            self.check_not_cut()?;
            let needs_bytes = !matches!(
                self.state,
                State::Key | State::Keep { left: 0 } | State::Skip { left: 0 } | State::Tensor { left: 0 }
            );
            if self.state == State::Ended || (needs_bytes && self.piece.is_empty()) {
                return Ok(None);
            }
            let part = match self.state {
                State::Frame => self.frame()?,
                State::Key => match self.leave() {
                    true if self.piece.is_empty() => return Ok(None),
                    true => self.key()?,
                    false => Some(self.end()?),
                },
                State::Len { number } => self.len(number)?,
                State::Number => self.number()?,
                State::Keep { left } => self.keep(left)?,
                State::Skip { left } => self.skip(left),
                State::Tensor { left } => Some(self.tensor(left)),
                State::Ended => None,
            };
            if part.is_some() {
                return Ok(part);
            }
        }
    }

    /// A number that is not at its end where what surrounds it is.
    fn check_not_cut(&self) -> Result<(), ReplyError> {
        let in_number = match self.state {
            State::Len { .. } | State::Number => true,
            State::Key => self.varint != (0, 0),
            _ => false,
        };
        match in_number && self.at == self.reach() {
            true => Err(BEYOND),
            false => Ok(()),
        }
    }

    fn frame(&mut self) -> Result<Option<Part>, ReplyError> {
        self.prefix.push(self.piece.get_u8());
        if let Ok(prefix) = <[u8; GRPC_PREFIX_LEN]>::try_from(self.prefix.as_slice()) {
            self.ends = [read_grpc_prefix(prefix, self.message_len_max)?, 0, 0];
            self.state = State::Key;
        }
        Ok(None)
    }

    /// Leaves the levels that have ended; false when the message has.
    fn leave(&mut self) -> bool {
        if self.varint != (0, 0) {
            return true;
        }
        if self.level == Level::Parameters && self.at == self.reach() {
            self.level = Level::Answer;
        }
        if self.level == Level::Answer && self.at == self.reach() {
            self.level = Level::Message;
        }
        self.level != Level::Message || self.at != self.reach()
    }

    /// Where the level ends.
    fn reach(&self) -> u64 {
        let [message, answer, parameters] = self.ends;
        match self.level {
            Level::Message => message,
            Level::Answer => answer,
            Level::Parameters => parameters,
        }
    }

    fn key(&mut self) -> Result<Option<Part>, ReplyError> {
        let Some(key) = self.varint()? else { return Ok(None) };
        let number = key >> 3;
        if number == 0 || key > u64::from(u32::MAX) {
            return Err(ReplyError::Broken("a field has no number"));
        }
        if matches!(key & 7, 0 | 1 | 5) && self.is_delimited(number) {
            return Err(ReplyError::Broken("a field has a type that is not its own"));
        }
        self.key = key;
        self.state = match key & 7 {
            0 => {
                self.keep_varint(key)?;
                State::Number
            }
            2 => State::Len { number },
            1 => self.fixed(8)?,
            5 => self.fixed(4)?,
            _ => return Err(ReplyError::Broken("a field has a type that is not used")),
        };
        Ok(None)
    }

    /// Whether a field of this level is one that has a length before it.
    fn is_delimited(&self, number: u64) -> bool {
        match self.level {
            Level::Message => Kind::of_field(number).is_some(),
            Level::Answer => number == 2,
            Level::Parameters => number == 1,
        }
    }

    fn fixed(&mut self, len: u64) -> Result<State, ReplyError> {
        self.within(len)?;
        self.keep_varint(self.key)?;
        Ok(if self.level == Level::Message { State::Skip { left: len } } else { State::Keep { left: len } })
    }

    fn len(&mut self, number: u64) -> Result<Option<Part>, ReplyError> {
        let Some(len) = self.varint()? else { return Ok(None) };
        self.within(len)?;
        let end = self.at + len;
        match (self.level, number, self.kind) {
            (Level::Message, _, kind) => {
                let Some(found) = Kind::of_field(number) else {
                    self.state = State::Skip { left: len };
                    return Ok(None);
                };
                if kind.is_some() {
                    return Err(ReplyError::Answers(2));
                }
                self.kind = Some(found);
                if found.has_tensors() {
                    self.level = Level::Answer;
                    self.ends[1] = end;
                    self.state = State::Key;
                } else {
                    self.state = State::Keep { left: len };
                }
                return Ok(Some(Part::Kind(found)));
            }
            (Level::Answer, 2, Some(_)) => {
                self.level = Level::Parameters;
                self.ends[2] = end;
                self.state = State::Key;
            }
            (Level::Parameters, 1, _) => {
                self.tensors += 1;
                if self.tensors > Manifest::TENSORS_MAX {
                    return Err(ReplyError::Tensors);
                }
                self.state = State::Tensor { left: len };
                return Ok(Some(Part::Tensor(len)));
            }
            _ => {
                self.keep_varint(self.key)?;
                self.keep_varint(len)?;
                self.state = State::Keep { left: len };
            }
        }
        Ok(None)
    }

    fn number(&mut self) -> Result<Option<Part>, ReplyError> {
        let Some(number) = self.varint()? else { return Ok(None) };
        self.keep_varint(number)?;
        self.state = State::Key;
        Ok(None)
    }

    fn keep(&mut self, left: u64) -> Result<Option<Part>, ReplyError> {
        let bytes = self.take(left);
        self.room(bytes.len())?.put_slice(&bytes);
        self.state = match left - bytes.len() as u64 {
            0 => State::Key,
            left => State::Keep { left },
        };
        Ok(None)
    }

    fn skip(&mut self, left: u64) -> Option<Part> {
        let skipped = self.take(left).len() as u64;
        self.state = if skipped == left { State::Key } else { State::Skip { left: left - skipped } };
        None
    }

    fn tensor(&mut self, left: u64) -> Part {
        if left == 0 {
            self.state = State::Key;
            return Part::TensorEnd;
        }
        let bytes = self.take(left);
        self.state = State::Tensor { left: left - bytes.len() as u64 };
        Part::Bytes(bytes)
    }

    fn end(&mut self) -> Result<Part, ReplyError> {
        self.state = State::Ended;
        let undecodable = |error: prost::DecodeError| ReplyError::Undecodable(error.to_string());
        let [answer, parameters] = std::mem::take(&mut self.beside);
        let (answer, parameters) = (answer.freeze(), parameters.freeze());
        let parameters = Parameters::decode(parameters).map_err(undecodable)?;
        let reply = match self.kind.ok_or(ReplyError::Answers(0))? {
            Kind::Disconnect => Reply::Disconnect(DisconnectRes::decode(answer).map_err(undecodable)?),
            Kind::Properties => Reply::Properties(GetPropertiesRes::decode(answer).map_err(undecodable)?),
            Kind::Evaluate => Reply::Evaluate(EvaluateRes::decode(answer).map_err(undecodable)?),
            Kind::Parameters => {
                let res = GetParametersRes::decode(answer).map_err(undecodable)?;
                Reply::Parameters(GetParametersRes { parameters: Some(parameters), ..res })
            }
            Kind::Fit => {
                let res = FitRes::decode(answer).map_err(undecodable)?;
                Reply::Fit(FitRes { parameters: Some(parameters), ..res })
            }
        };
        Ok(Part::End(Box::new(reply)))
    }

    /// Bytes of the piece, at most `left`.
    fn take(&mut self, left: u64) -> Bytes {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(self.piece.len());
        self.at += len as u64;
        self.piece.split_to(len)
    }

    /// Goes on with a number; none while its end has not come.
    fn varint(&mut self) -> Result<Option<u64>, ReplyError> {
        while !self.piece.is_empty() {
            if self.at == self.reach() {
                return Err(BEYOND);
            }
            let byte = self.piece.get_u8();
            self.at += 1;
            let (value, shift) = self.varint;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                return Err(ReplyError::Broken("a number is longer than 64 bits"));
            }
            let value = value | bits << shift;
            if byte & 0x80 == 0 {
                self.varint = (0, 0);
                return Ok(Some(value));
            }
            self.varint = (value, shift + 7);
        }
        Ok(None)
    }

    /// Checks that what follows lies within the level.
    fn within(&self, len: u64) -> Result<(), ReplyError> {
        match self.reach().checked_sub(self.at).is_some_and(|left| len <= left) {
            true => Ok(()),
            false => Err(BEYOND),
        }
    }

    fn keep_varint(&mut self, value: u64) -> Result<(), ReplyError> {
        // A field of the message itself that is not known is passed over.
        if self.level == Level::Message {
            return Ok(());
        }
        prost::encoding::encode_varint(value, self.room(VARINT_LEN_MAX)?);
        Ok(())
    }

    /// Where the level's own bytes are kept, with room for `len` more.
    fn room(&mut self, len: usize) -> Result<&mut BytesMut, ReplyError> {
        let [answer, parameters] = &mut self.beside;
        if answer.len() + parameters.len() + len > BESIDE_LEN_MAX {
            return Err(ReplyError::Beside);
        }
        Ok(if self.level == Level::Parameters { parameters } else { answer })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::frames::grpc_frame;
    use crate::proto::client_message::Msg;
    use crate::proto::scalar::Scalar as Value;
    use crate::proto::{ClientMessage, Scalar, Status};

    /// What comes out of a message that comes in pieces of `step` bytes.
    fn read(frame: &[u8], step: usize, max: u64) -> Result<(Vec<Vec<u8>>, Option<Reply>), ReplyError> {
        let mut reader = ReplyReader::new(max);
        let (mut tensors, mut reply): (Vec<Vec<u8>>, _) = (Vec::new(), None);
        for piece in frame.chunks(step) {
            reader.feed(Bytes::copy_from_slice(piece));
            while let Some(part) = reader.part()? {
                match part {
                    Part::Kind(_) | Part::TensorEnd => {}
                    Part::Tensor(_) => tensors.push(Vec::new()),
                    Part::Bytes(bytes) => tensors.last_mut().unwrap().extend_from_slice(&bytes),
                    Part::End(end) => reply = Some(*end),
                }
            }
        }
        Ok((tensors, reply))
    }

    fn fit(tensors: Vec<Bytes>, num_examples: i64, metrics: BTreeMap<String, Scalar>) -> FitRes {
        let parameters = Parameters { tensors, tensor_type: "numpy.ndarray".to_owned() };
        let status = Some(Status { code: 0, message: "ß".to_owned() });
        FitRes { status, parameters: Some(parameters), num_examples, metrics }
    }

    fn framed(msg: Msg) -> Bytes {
        grpc_frame(&ClientMessage { msg: Some(msg) }.encode_to_vec()).unwrap()
    }

    proptest! {
        #[test]
        fn a_message_in_any_pieces_is_the_message(
            tensors in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..5),
            num_examples in any::<i64>(),
            metrics in proptest::collection::btree_map("[a-z]{0,9}", any::<i64>(), 0..5),
            step in 1usize..40,
        ) {
            let scalar = |value| Scalar { scalar: Some(Value::Sint64(value)) };
            let metrics = metrics.into_iter().map(|(name, value)| (name, scalar(value))).collect();
            let given = fit(tensors.iter().cloned().map(Bytes::from).collect(), num_examples, metrics);
            let (read_tensors, reply) = read(&framed(Msg::FitRes(given.clone())), step, 1 << 20).unwrap();
            prop_assert_eq!(read_tensors, tensors);
            let mut without = given;
            without.parameters.as_mut().unwrap().tensors.clear();
            prop_assert_eq!(reply, Some(Reply::Fit(without)));
        }
    }

    #[test]
    fn what_is_cut_or_lies_is_refused_whatever_the_pieces() {
        let beyond = || Err(BEYOND);
        for (bytes, refusal) in [
            // A tensor longer than the parameters around it.
            (&[0x22, 4, 0x12, 2, 0x0a, 9][..], beyond()),
            // A key without its value; a length that does not end.
            (&[0x22, 1, 0x18], beyond()),
            (&[0x22, 2, 0x18, 0x80], beyond()),
            (&[0x22, 0x80], beyond()),
            (&[0x0b], Err(ReplyError::Broken("a field has a type that is not used"))),
            (&[0x00, 0x00], Err(ReplyError::Broken("a field has no number"))),
            (&[0x2a, 0, 0x22, 0], Err(ReplyError::Answers(2))),
            (&[0x78, 1], Err(ReplyError::Answers(0))),
            (
                &[0x78, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
                Err(ReplyError::Broken("a number is longer than 64 bits")),
            ),
        ] {
            for step in [1, 3, 100] {
                let got = read(&grpc_frame(bytes).unwrap(), step, 100).map(|(_, reply)| reply.is_some());
                assert_eq!(got, refusal, "{bytes:?} in pieces of {step}");
            }
        }
    }

    #[test]
    fn only_tensors_may_be_long() {
        let blob = Scalar { scalar: Some(Value::Bytes(vec![0; BESIDE_LEN_MAX].into())) };
        let long = fit(Vec::new(), 1, [("blob".to_owned(), blob)].into());
        assert_eq!(read(&framed(Msg::FitRes(long)), 1 << 16, 1 << 30), Err(ReplyError::Beside));
        let long = fit(vec![vec![0; 2 * BESIDE_LEN_MAX].into()], 1, BTreeMap::new());
        let frame = framed(Msg::FitRes(long));
        assert!(read(&frame, 1 << 16, 1 << 30).unwrap().1.is_some());
        let too_long = ReplyError::Frame(FrameError::TooLong { len: frame.len() as u64 - 5, max: 1 << 20 });
        assert_eq!(read(&frame, 1 << 16, 1 << 20), Err(too_long));
    }
}
