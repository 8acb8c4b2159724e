//! The body of a call, whatever carries it: the bytes of one message, piece by piece or whole within a bound.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use prost::Message;
use sheaf_coordinator::{Relays, Room};

use crate::error::{FlowerCode, FlowerError};
use crate::frames::{FRAME_LEN_MAX, UnaryFrame};
use crate::names::payload;

/// The longest message that is held whole, in bytes: trees of objects of large cohorts, and application bundles.
pub(crate) const MESSAGE_LEN_MAX: u64 = 64 << 20;

/// The longest message of a call that has ids, names and keys in it and nothing else, in bytes.
pub(crate) const CALL_LEN_MAX: u64 = 64 * 1024;
/// The steps in which a longer one is given room, in bytes.
const ROOM_LEN: u64 = 1 << 20;
/// How much of a refused call is read on, in bytes: a bundle and some.
const DRAIN_LEN_MAX: u64 = 16 << 20;
/// How long the next piece of a body may take.
const PIECE_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// The bytes of one message on their way in.
#[derive(Debug)]
pub(crate) struct Incoming {
    body: Body,
    frame: Option<UnaryFrame>,
}

impl Incoming {
    /// The body of an HTTP call: the message and nothing else.
    pub(crate) fn http(body: Body) -> Incoming {
        Incoming { body, frame: None }
    }

    /// The body of a gRPC call with one message; whoever holds it whole bounds it.
    pub(crate) fn grpc(body: Body) -> Incoming {
        Incoming { body, frame: Some(UnaryFrame::new(FRAME_LEN_MAX)) }
    }

    /// A message that came whole, in another.
    pub(crate) fn whole(message: Bytes) -> Incoming {
        Incoming { body: Body::from(message), frame: None }
    }

    /// The next bytes of the message; `None` at its end.
    ///
    /// # Errors
    /// Unavailable when the peer went away; a payload error for a broken frame.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, FlowerError> {
        loop {
            let Ok(frame) = tokio::time::timeout(PIECE_WAIT_MAX, self.body.frame()).await else {
                return Err(FlowerError::new(FlowerCode::Unavailable, "the body did not go on in time"));
            };
            let Some(frame) = frame else {
                if let Some(frame) = &self.frame {
                    frame.finish().map_err(|error| payload(error.to_string()))?;
                }
                return Ok(None);
            };
            let gone = |error| {
                FlowerError::new(FlowerCode::Unavailable, format!("the body cannot be read: {error}"))
            };
            // Trailers say nothing here.
            let Ok(piece) = frame.map_err(gone)?.into_data() else { continue };
            let piece = match &mut self.frame {
                None => piece,
                Some(frame) => frame.feed(piece).map_err(|error| payload(error.to_string()))?,
            };
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// The whole message of a call that is short by its nature.
    ///
    /// # Errors
    /// As [`Incoming::next`]; too large above [`CALL_LEN_MAX`].
    pub(crate) async fn collect(self) -> Result<Bytes, FlowerError> {
        self.gather(CALL_LEN_MAX, None).await.map(|(whole, _)| whole)
    }

    /// The whole message, of `len_max` bytes at most; with `relays`, in room of their budget for what comes in.
    async fn gather(
        mut self,
        len_max: u64,
        relays: Option<&Relays>,
    ) -> Result<(Bytes, Vec<Room>), FlowerError> {
        let mut rooms = Vec::new();
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await? {
            let len = (whole.len() + piece.len()) as u64;
            if len > len_max {
                let detail = format!("the message of this call is longer than {len_max} bytes");
                return Err(FlowerError::new(FlowerCode::TooLarge, detail));
            }
            if let Some(relays) = relays.filter(|_| len > CALL_LEN_MAX) {
                while (rooms.len() as u64) < len.div_ceil(ROOM_LEN) {
                    let room = relays.room(ROOM_LEN).await;
                    rooms.push(
                        room.map_err(|error| FlowerError::new(FlowerCode::Unavailable, error.to_string()))?,
                    );
                }
            }
            whole.extend_from_slice(&piece);
        }
        Ok((whole.freeze(), rooms))
    }

    /// The body of a call that passed its check; otherwise the body is read on and dropped.
    ///
    /// # Errors
    /// That of the check.
    pub(crate) async fn of_checked<T>(
        self,
        checked: Result<T, FlowerError>,
    ) -> Result<(T, Incoming), FlowerError> {
        match checked {
            Ok(passed) => Ok((passed, self)),
            Err(error) => {
                self.drain().await;
                Err(error)
            }
        }
    }

    /// Reads on and drops what comes, within a bound, so that a peer that is still sending hears why it is refused.
    pub(crate) async fn drain(mut self) {
        let mut left = DRAIN_LEN_MAX;
        while let Ok(Some(piece)) = self.next().await {
            left = left.saturating_sub(piece.len() as u64);
            if left == 0 {
                return;
            }
        }
    }

    /// The message that pushes others, looked at and decoded.
    ///
    /// # Errors
    /// As [`Incoming::decode_long`]; a payload error for messages that would take memory out of proportion.
    pub(crate) async fn decode_letters<M: Message + Default>(
        self,
        relays: &Relays,
    ) -> Result<M, FlowerError> {
        let (bytes, _rooms) = self.gather(MESSAGE_LEN_MAX, Some(relays)).await?;
        crate::scan::check_letters(&bytes)?;
        decode(bytes)
    }

    /// The envelope around a call, looked at and decoded.
    ///
    /// # Errors
    /// As [`Incoming::decode_letters`].
    pub(crate) async fn decode_envelope<M: Message + Default>(
        self,
        relays: &Relays,
    ) -> Result<M, FlowerError> {
        let (bytes, _rooms) = self.gather(MESSAGE_LEN_MAX, Some(relays)).await?;
        crate::scan::check_envelope(&bytes)?;
        decode(bytes)
    }

    /// A message that may be long, decoded.
    ///
    /// # Errors
    /// As [`Incoming::next`]; too large above [`MESSAGE_LEN_MAX`]; unavailable when too much is on its way in; a payload error when it is none.
    pub(crate) async fn decode_long<M: Message + Default>(self, relays: &Relays) -> Result<M, FlowerError> {
        let (bytes, _rooms) = self.gather(MESSAGE_LEN_MAX, Some(relays)).await?;
        decode(bytes)
    }

    /// The message of a call that is short by its nature, decoded.
    ///
    /// # Errors
    /// As [`Incoming::collect`]; a payload error when it is none.
    pub(crate) async fn decode<M: Message + Default>(self) -> Result<M, FlowerError> {
        decode(self.collect().await?)
    }
}

/// Decodes a message.
///
/// # Errors
/// A payload error when it is none.
pub(crate) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, FlowerError> {
    M::decode(bytes).map_err(|error| payload(format!("the body is not the message of this call: {error}")))
}
