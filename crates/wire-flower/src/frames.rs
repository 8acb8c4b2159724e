//! Frames around messages: gRPC's five-byte prefix and the four-byte prefix of the HTTP streams.
//!
//! Pure. A frame's claimed length is checked against a bound before anything is kept; compressed frames are refused by
//! name. Sources: the gRPC protocol over HTTP/2, and the stream format observed with flwr 1.42.0.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The bytes before a gRPC message.
pub const GRPC_PREFIX_LEN: usize = 5;
/// The bytes before a message of an HTTP stream.
pub const STREAM_PREFIX_LEN: usize = 4;
/// The longest message that either framing can carry for the stock peers.
pub const FRAME_LEN_MAX: u64 = (1 << 31) - 1;

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The compressed flag is set.
    #[error("the message is compressed, and no compression was agreed on")]
    Compressed,
    /// The first byte is neither 0 nor 1.
    #[error("the first byte of the frame is {flag}, neither 0 nor 1")]
    UnknownFlag {
        /// The byte found.
        flag: u8,
    },
    /// The claimed length is over the bound.
    #[error("the frame claims {len} bytes, and at most {max} are read")]
    TooLong {
        /// The length claimed.
        len: u64,
        /// The bound.
        max: u64,
    },
    /// The body ended inside a frame.
    #[error("the body ends inside a frame")]
    Truncated,
    /// A call with one message carried more.
    #[error("the body holds bytes after its one message")]
    Trailing,
}

/// Writes a gRPC prefix for a message of `len` bytes.
///
/// # Errors
/// [`FrameError::TooLong`] over [`FRAME_LEN_MAX`].
pub fn grpc_prefix(len: u64) -> Result<[u8; GRPC_PREFIX_LEN], FrameError> {
    let [a, b, c, d] = stream_prefix(len)?;
    Ok([0, a, b, c, d])
}

/// Writes the prefix of one message of an HTTP stream.
///
/// # Errors
/// [`FrameError::TooLong`] over [`FRAME_LEN_MAX`].
pub fn stream_prefix(len: u64) -> Result<[u8; STREAM_PREFIX_LEN], FrameError> {
    let too_long = FrameError::TooLong { len, max: FRAME_LEN_MAX };
    if len > FRAME_LEN_MAX {
        return Err(too_long);
    }
    Ok(u32::try_from(len).map_err(|_| too_long)?.to_be_bytes())
}

/// Reads a gRPC prefix: the length of the message that follows.
///
/// # Errors
/// [`FrameError::Compressed`], [`FrameError::UnknownFlag`], [`FrameError::TooLong`] over `max`.
pub fn read_grpc_prefix(prefix: [u8; GRPC_PREFIX_LEN], max: u64) -> Result<u64, FrameError> {
    let [flag, a, b, c, d] = prefix;
    match flag {
        0 => {}
        1 => return Err(FrameError::Compressed),
        flag => return Err(FrameError::UnknownFlag { flag }),
    }
    let len = u64::from(u32::from_be_bytes([a, b, c, d]));
    if len > max { Err(FrameError::TooLong { len, max }) } else { Ok(len) }
}

/// Wraps one message for an HTTP stream, with its prefix.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn stream_frame(message: &[u8]) -> Result<Bytes, FrameError> {
    frame(&stream_prefix(message.len() as u64)?, message)
}

/// Wraps one gRPC message with its prefix.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn grpc_frame(message: &[u8]) -> Result<Bytes, FrameError> {
    frame(&grpc_prefix(message.len() as u64)?, message)
}

fn frame(prefix: &[u8], message: &[u8]) -> Result<Bytes, FrameError> {
    let mut out = BytesMut::with_capacity(prefix.len() + message.len());
    out.put_slice(prefix);
    out.put_slice(message);
    Ok(out.freeze())
}

/// Strips the frame of a gRPC call with exactly one message, piece by piece: what comes out is the message's bytes.
#[derive(Debug)]
pub struct UnaryFrame {
    prefix: [u8; GRPC_PREFIX_LEN],
    prefix_len: usize,
    left: u64,
    max: u64,
}

impl UnaryFrame {
    /// A reader that takes a message of at most `max` bytes.
    pub fn new(max: u64) -> UnaryFrame {
        UnaryFrame { prefix: [0; GRPC_PREFIX_LEN], prefix_len: 0, left: 0, max }
    }

    /// Takes the next piece of the body; returns the part of it that belongs to the message, without a copy.
    ///
    /// # Errors
    /// Every [`FrameError`] but [`FrameError::Truncated`].
    pub fn feed(&mut self, mut piece: Bytes) -> Result<Bytes, FrameError> {
        while self.prefix_len < GRPC_PREFIX_LEN {
            if piece.is_empty() {
                return Ok(piece);
            }
            if let Some(slot) = self.prefix.get_mut(self.prefix_len) {
                *slot = piece.get_u8();
            }
            self.prefix_len += 1;
            if self.prefix_len == GRPC_PREFIX_LEN {
                self.left = read_grpc_prefix(self.prefix, self.max)?;
            }
        }
        let len = piece.len() as u64;
        self.left = self.left.checked_sub(len).ok_or(FrameError::Trailing)?;
        Ok(piece)
    }

    /// The message's length, once the prefix was read.
    pub fn message_len(&self) -> Option<u64> {
        (self.prefix_len == GRPC_PREFIX_LEN).then(|| {
            let [_, a, b, c, d] = self.prefix;
            u64::from(u32::from_be_bytes([a, b, c, d]))
        })
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`FrameError::Truncated`].
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.prefix_len == GRPC_PREFIX_LEN && self.left == 0 { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

/// Splits a stream of gRPC messages into whole messages, holding at most one of `max` bytes.
#[derive(Debug)]
pub struct MessageFrames {
    held: BytesMut,
    max: u64,
}

impl MessageFrames {
    /// A splitter that takes messages of at most `max` bytes.
    pub fn new(max: u64) -> MessageFrames {
        MessageFrames { held: BytesMut::new(), max }
    }

    /// Takes the next piece of the body.
    pub fn feed(&mut self, piece: &[u8]) {
        self.held.put_slice(piece);
    }

    /// The next whole message, if there is one; call until `None` after every piece.
    ///
    /// # Errors
    /// As [`read_grpc_prefix`].
    pub fn take(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = self.held.first_chunk::<GRPC_PREFIX_LEN>() else { return Ok(None) };
        let len = usize::try_from(read_grpc_prefix(*prefix, self.max)?)
            .map_err(|_| FrameError::TooLong { len: u64::MAX, max: self.max })?;
        if self.held.len() < GRPC_PREFIX_LEN + len {
            return Ok(None);
        }
        self.held.advance(GRPC_PREFIX_LEN);
        Ok(Some(self.held.split_to(len).freeze()))
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.held.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bad_prefix_is_refused_by_name() {
        assert_eq!(read_grpc_prefix([1, 0, 0, 0, 0], 9), Err(FrameError::Compressed));
        assert_eq!(read_grpc_prefix([7, 0, 0, 0, 0], 9), Err(FrameError::UnknownFlag { flag: 7 }));
        assert_eq!(read_grpc_prefix([0, 0, 0, 0, 10], 9), Err(FrameError::TooLong { len: 10, max: 9 }));
        assert_eq!(read_grpc_prefix([0, 0, 0, 0, 9], 9), Ok(9));
        assert!(stream_prefix(FRAME_LEN_MAX).is_ok());
        assert!(stream_prefix(FRAME_LEN_MAX + 1).is_err());
    }

    #[test]
    fn a_call_ends_with_its_message() {
        let mut frame = UnaryFrame::new(9);
        assert_eq!(frame.finish(), Err(FrameError::Truncated));
        frame.feed(Bytes::from_static(&[0, 0, 0, 0, 2, 5])).unwrap();
        assert_eq!(frame.finish(), Err(FrameError::Truncated));
        frame.feed(Bytes::from_static(&[6])).unwrap();
        assert_eq!(frame.finish(), Ok(()));
        assert_eq!(frame.feed(Bytes::from_static(&[6])), Err(FrameError::Trailing));
    }

    #[test]
    fn the_frame_of_a_stream_is_four_bytes_and_the_message() {
        assert_eq!(&stream_frame(b"ab").unwrap()[..], b"\0\0\0\x02ab");
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_messages(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            step in 1usize..20,
        ) {
            let whole: Vec<u8> = messages.iter().flat_map(|message| grpc_frame(message).unwrap()).collect();
            let mut frames = MessageFrames::new(40);
            let mut got = Vec::new();
            for piece in whole.chunks(step) {
                frames.feed(piece);
                while let Some(message) = frames.take().unwrap() {
                    got.push(message.to_vec());
                }
            }
            prop_assert_eq!(frames.finish(), Ok(()));
            prop_assert_eq!(got, messages);
        }

        #[test]
        fn one_message_in_pieces_comes_out_whole(message in proptest::collection::vec(any::<u8>(), 0..60), step in 1usize..20) {
            let mut frame = UnaryFrame::new(60);
            let mut got = Vec::new();
            for piece in grpc_frame(&message).unwrap().chunks(step) {
                got.extend_from_slice(&frame.feed(Bytes::copy_from_slice(piece)).unwrap());
            }
            prop_assert_eq!(frame.finish(), Ok(()));
            prop_assert_eq!(got, message);
        }
    }
}
