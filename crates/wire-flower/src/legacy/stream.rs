//! The stream of one client, both ways: pieces to it, bounded in what waits; pieces from it, which may begin at any time and then go on.
//!
//! Refuses a client that speaks when it was not asked.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use crate::error::{FlowerCode, FlowerError};

/// How long the next piece of a message that has begun may take.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Why a client's stream ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum End {
    /// The client went away.
    #[error("the client went away")]
    Gone,
    /// It was sent away and said goodbye.
    #[error("the client was sent away")]
    Dismissed,
    /// It broke the protocol.
    #[error("the client was dropped: {0}")]
    Broken(String),
    /// It may not take part, or cannot.
    #[error("the client was refused: {0}")]
    Refused(String),
}

impl End {
    /// What the client is told, if it is told anything.
    fn told(&self) -> Option<FlowerError> {
        match self {
            End::Gone | End::Dismissed => None,
            End::Broken(detail) => Some(FlowerError::new(FlowerCode::InvalidProtobufPayload, detail)),
            End::Refused(detail) => Some(FlowerError::new(FlowerCode::Unavailable, detail)),
        }
    }
}

/// The stream of one client.
#[derive(Debug)]
pub(crate) struct Stream {
    from: Body,
    to: mpsc::Sender<Result<Bytes, FlowerError>>,
}

impl Stream {
    pub(crate) fn new(from: Body, to: mpsc::Sender<Result<Bytes, FlowerError>>) -> Stream {
        Stream { from, to }
    }

    /// Sends the next piece once there is room, within bounds of time.
    pub(crate) async fn send(&mut self, piece: Bytes) -> Result<(), End> {
        let late = |_| End::Broken("it did not take its message in time".to_owned());
        let sent = tokio::time::timeout(PIECE_WAIT_MAX, self.to.send(Ok(piece))).await;
        sent.map_err(late)?.map_err(|_| End::Gone)
    }

    /// The next piece of the answer; within bounds of time once it has `begun`.
    pub(crate) async fn piece(&mut self, begun: bool) -> Result<Bytes, End> {
        let next = async {
            tokio::select! {
                biased;
                piece = next(&mut self.from) => piece,
                () = self.to.closed() => Err(End::Gone),
            }
        };
        if !begun {
            return next.await;
        }
        let late = |_| End::Broken("its message did not go on in time".to_owned());
        tokio::time::timeout(PIECE_WAIT_MAX, next).await.map_err(late)?
    }

    /// Resolves when the client goes away, or speaks although it was not asked.
    ///
    /// # Cancel safety
    /// Safe: what it says then ends the stream anyway.
    pub(crate) async fn silence(&mut self) -> End {
        match self.piece(false).await {
            Ok(_) => End::Broken("it spoke before it was asked".to_owned()),
            Err(end) => end,
        }
    }

    /// Ends the stream, saying why where that is of use.
    pub(crate) async fn end(self, why: &End) {
        if let Some(error) = why.told() {
            // It may be gone.
            let _ = self.to.send(Err(error)).await;
        }
    }
}

async fn next(body: &mut Body) -> Result<Bytes, End> {
    loop {
        let frame = body.frame().await.ok_or(End::Gone)?.map_err(|_| End::Gone)?;
        // Trailers say nothing here.
        match frame.into_data() {
            Ok(piece) if !piece.is_empty() => return Ok(piece),
            _ => {}
        }
    }
}
