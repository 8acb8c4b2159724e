//! Results in frames: what gRPC streams and the body over HTTP have in common.
//!
//! A frame has a length, and in it a `DataStream` whose bytes are a stretch of the results. gRPC's frames have a flag before the length and
//! end with the stream; those over HTTP end with a frame of no bytes. Pieces are passed on as they come; refused are compressed
//! frames, frames over the bound, bodies that end inside one, and what comes after the end.
//!
//! Source: the gRPC protocol over HTTP/2; the body observed with openfl 1.9.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;

use crate::error::{CallError, Sort};
use crate::fields::{Event, Fields};
use crate::intake::Pieces;

/// The longest message, as upstream's.
pub(crate) const MESSAGE_LEN_MAX: u64 = 1 << 30;
/// The longest body over HTTP: one message of any length that its prefix can carry.
const BODY_LEN_MAX: u64 = u32::MAX as u64;
/// How long the next piece may take.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(60);
/// How much of refused results is read, and how long the next of it is waited for.
const DISCARD_LEN_MAX: u64 = MESSAGE_LEN_MAX;
const DISCARD_WAIT_MAX: Duration = Duration::from_secs(5);

/// How frames begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A flag and a length of four bytes; the stream's end is the end.
    Grpc,
    /// A length of four bytes; one of zero ends the body.
    Http,
}

impl Framing {
    const fn prefix_len(self) -> usize {
        match self {
            Framing::Grpc => 5,
            Framing::Http => 4,
        }
    }
}

/// Takes the results out of their frames, as they come.
#[derive(Debug)]
pub struct Frames {
    framing: Framing,
    prefix: Vec<u8>,
    /// What is still to come of the frame.
    left: u64,
    inside: Bytes,
    fields: Fields,
    field: u32,
    has_ended: bool,
}

fn broken(message: impl std::fmt::Display) -> CallError {
    CallError::new(Sort::Results, message)
}

impl Frames {
    /// Begins before the first frame.
    pub fn new(framing: Framing) -> Frames {
        Frames {
            framing,
            prefix: Vec::new(),
            left: 0,
            inside: Bytes::new(),
            fields: Fields::default(),
            field: 0,
            has_ended: false,
        }
    }

    /// The next stretch of results in what there is of the body; none when all of `ready` is read.
    ///
    /// # Errors
    /// A compressed frame, one over the bound, one that is no message, and what comes after the end.
    pub fn next(&mut self, ready: &mut Bytes) -> Result<Option<Bytes>, CallError> {
        loop {
            if (self.left > 0 || !self.inside.is_empty())
                && let Some(bytes) = self.within(ready)?
            {
                return Ok(Some(bytes));
            }
            if ready.is_empty() {
                return Ok(None);
            }
            if self.left == 0 {
                self.begin(ready)?;
            }
        }
    }

    /// Whether the body may end here.
    ///
    /// # Errors
    /// It ends inside a frame, or before its last one.
    pub fn finish(&self) -> Result<(), CallError> {
        let is_whole = self.prefix.is_empty() && self.left == 0;
        if is_whole && (self.framing == Framing::Grpc || self.has_ended) {
            return Ok(());
        }
        Err(broken("the body ends before its end"))
    }

    /// Reads the beginning of a frame, as far as it is there.
    fn begin(&mut self, ready: &mut Bytes) -> Result<(), CallError> {
        if self.has_ended {
            return Err(broken("the body goes on after its end"));
        }
        let missing = self.framing.prefix_len() - self.prefix.len();
        self.prefix.extend_from_slice(&ready.split_to(missing.min(ready.len())));
        let (flag, len) = match (self.framing, self.prefix.as_slice()) {
            (Framing::Grpc, [flag, a, b, c, d]) => (*flag, u32::from_be_bytes([*a, *b, *c, *d])),
            (Framing::Http, [a, b, c, d]) => (0, u32::from_be_bytes([*a, *b, *c, *d])),
            _ => return Ok(()),
        };
        self.prefix.clear();
        let max = if self.framing == Framing::Grpc { MESSAGE_LEN_MAX } else { BODY_LEN_MAX };
        if flag != 0 {
            return Err(broken("the message is compressed, and no compression was agreed on"));
        }
        if u64::from(len) > max {
            return Err(broken(format!("a frame claims {len} bytes, and at most {max} are read")));
        }
        self.left = u64::from(len);
        self.fields = Fields::default();
        self.has_ended = len == 0 && self.framing == Framing::Http;
        Ok(())
    }

    /// The next stretch of results in what is there of the frame.
    fn within(&mut self, ready: &mut Bytes) -> Result<Option<Bytes>, CallError> {
        if self.inside.is_empty() {
            let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(ready.len());
            self.inside = ready.split_to(len);
            self.left -= len as u64;
        }
        while let Some(event) = self.fields.next(&mut self.inside).map_err(broken)? {
            match event {
                Event::Begin(2, _, true) => self.field = 2,
                Event::Begin(..) => self.field = 0,
                Event::Bytes(bytes) if self.field == 2 => return Ok(Some(bytes)),
                Event::Bytes(_) | Event::Varint(..) | Event::End => {}
            }
        }
        if self.left == 0 {
            self.fields.finish().map_err(broken)?;
        }
        Ok(None)
    }
}

/// The results that come in the frames of a body.
pub(crate) struct FramedPieces {
    body: Body,
    frames: Frames,
    ready: Bytes,
}

impl FramedPieces {
    pub(crate) fn new(body: Body, framing: Framing) -> FramedPieces {
        FramedPieces { body, frames: Frames::new(framing), ready: Bytes::new() }
    }

    /// Reads what still comes and drops it, so that who sends to the end before it reads learns why it is refused.
    pub(crate) async fn discard(&mut self) {
        let mut left = DISCARD_LEN_MAX;
        while let Ok(true) = self.fetch_within(DISCARD_WAIT_MAX).await {
            match left.checked_sub(self.ready.len() as u64) {
                Some(less) => left = less,
                None => return,
            }
        }
    }

    async fn fetch(&mut self) -> Result<bool, CallError> {
        self.fetch_within(PIECE_WAIT_MAX).await
    }

    async fn fetch_within(&mut self, wait: Duration) -> Result<bool, CallError> {
        loop {
            let frame = tokio::time::timeout(wait, self.body.frame()).await;
            let frame = frame.map_err(|_| broken("the results did not go on in time"))?;
            let Some(frame) = frame else { return Ok(false) };
            let frame = frame.map_err(|error| broken(format!("the results broke off: {error}")))?;
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                self.ready = bytes;
                return Ok(true);
            }
        }
    }
}

impl Pieces for FramedPieces {
    async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(bytes) = self.frames.next(&mut self.ready)? {
                return Ok(Some(bytes));
            }
            if !self.fetch().await? {
                return self.frames.finish().map(|()| None);
            }
        }
    }
}

/// Reads a body of one gRPC message.
pub(crate) async fn one_message(body: Body, max: usize) -> Result<Bytes, CallError> {
    let refused = |message: String| CallError::new(Sort::Request, message);
    let collected = http_body_util::Limited::new(body, max).collect().await;
    let mut bytes = collected.map_err(|error| refused(error.to_string()))?.to_bytes();
    let Some([flag, a, b, c, d]) = bytes.first_chunk::<5>().copied() else {
        return Err(refused("the body holds no message".to_owned()));
    };
    let message = bytes.split_off(5);
    let len = u32::from_be_bytes([a, b, c, d]);
    match flag {
        0 if message.len() as u64 == u64::from(len) => Ok(message),
        0 => Err(refused("the body is not one message".to_owned())),
        _ => Err(refused("the message is compressed, and no compression was agreed on".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::DataStream;
    use prost::Message as _;

    fn framed(framing: Framing, pieces: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        for piece in pieces {
            let size = u32::try_from(piece.len()).unwrap();
            let message = DataStream { size, npbytes: Bytes::copy_from_slice(piece) }.encode_to_vec();
            if framing == Framing::Grpc {
                body.push(0);
            }
            body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            body.extend_from_slice(&message);
        }
        if framing == Framing::Http {
            body.extend_from_slice(&[0; 4]);
        }
        body
    }

    async fn read(framing: Framing, body: &[u8], cut: usize) -> Result<Vec<u8>, CallError> {
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            body.chunks(cut.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut pieces = FramedPieces::new(Body::from_stream(futures_util::stream::iter(pieces)), framing);
        let mut found = Vec::new();
        while let Some(piece) = pieces.next().await? {
            found.extend_from_slice(&piece);
        }
        Ok(found)
    }

    #[tokio::test]
    async fn results_are_the_same_however_the_body_is_cut() {
        for framing in [Framing::Grpc, Framing::Http] {
            // Over HTTP a piece of no bytes is the end.
            let pieces: &[&[u8]] = match framing {
                Framing::Grpc => &[b"results ", b"", b"in pieces"],
                Framing::Http => &[b"results ", b"in pieces"],
            };
            let body = framed(framing, pieces);
            for cut in 1..body.len() {
                assert_eq!(
                    read(framing, &body, cut).await.unwrap(),
                    b"results in pieces",
                    "{framing:?} {cut}"
                );
            }
            for end in 1..body.len() {
                let whole = read(framing, &body[..end], 3).await;
                let ends_a_message = framing == Framing::Grpc
                    && [framed(framing, &[b"results "]).len(), framed(framing, &[b"results ", b""]).len()]
                        .contains(&end);
                assert_eq!(whole.is_ok(), ends_a_message, "{framing:?} {end}");
            }
        }
    }

    #[tokio::test]
    async fn frames_that_lie_are_refused() {
        for body in [&[1_u8, 0, 0, 0, 0][..], &[0, 0x7f, 0, 0, 0], &[0, 0, 0, 0, 3, 1, 2]] {
            assert!(read(Framing::Grpc, body, 100).await.is_err(), "{body:?}");
        }
        let mut after = framed(Framing::Http, &[b"x"]);
        after.push(0);
        assert!(read(Framing::Http, &after, 100).await.is_err());
        let ends_early = framed(Framing::Http, &[b"x", b"", b"y"]);
        assert!(read(Framing::Http, &ends_early, 100).await.is_err());
        assert!(read(Framing::Http, &[], 1).await.is_err());
        assert!(read(Framing::Grpc, &[], 1).await.unwrap().is_empty());
    }
}
