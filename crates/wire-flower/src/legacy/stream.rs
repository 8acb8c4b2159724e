//! The stream of one client, both ways: pieces to it, bounded in what waits; pieces from it, which may begin at any time and then go on.
//!
//! Refuses a client that speaks when it was not asked, and one that does not take what it is told in time; what still waits for that one
//! is dropped, so that it holds no memory for as long as it likes.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::answer::Messages;
use crate::error::{FlowerCode, FlowerError};

/// Pieces on their way to a client.
const PIECES_MAX: usize = 4;
/// How long the next piece of a message that has begun may take, and the client to take one.
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

type Piece = Result<Bytes, FlowerError>;
type Pieces = Mutex<mpsc::Receiver<Piece>>;

/// The stream of one client.
#[derive(Debug)]
pub(crate) struct Stream {
    from: Body,
    to: mpsc::Sender<Piece>,
    /// What waits for the client; its connection has it.
    waiting: Weak<Pieces>,
}

impl Stream {
    /// The stream of a client that says `from`, and what it is to be told.
    pub(crate) fn new(from: Body) -> (Stream, Messages) {
        let (to, waiting) = mpsc::channel(PIECES_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let stream = Stream { from, to, waiting: Arc::downgrade(&waiting) };
        let pieces = stream::poll_fn(move |context| lock(&waiting).poll_recv(context));
        (stream, Box::pin(pieces))
    }

    /// Sends the next piece once there is room, within bounds of time.
    pub(crate) async fn send(&mut self, piece: Bytes) -> Result<(), End> {
        let late = |_| End::Broken("it did not take its message in time".to_owned());
        let sent = tokio::time::timeout(PIECE_WAIT_MAX, self.to.send(Ok(piece))).await;
        sent.map_err(late)?.map_err(|_| End::Gone)
    }

    /// Waits until the client has taken all that it was told, piece by piece within bounds of time.
    pub(crate) async fn taken(&mut self) -> Result<(), End> {
        let late = |_| End::Broken("it did not take its message in time".to_owned());
        for room in 1..=PIECES_MAX {
            let free = tokio::time::timeout(PIECE_WAIT_MAX, self.to.reserve_many(room)).await;
            drop(free.map_err(late)?.map_err(|_| End::Gone)?);
        }
        Ok(())
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

    /// Ends the stream, saying why where that is of use. A client that has not taken what came before hears only that.
    pub(crate) fn end(self, why: &End) {
        let Some(error) = why.told() else { return };
        if let Err(TrySendError::Full(last)) = self.to.try_send(Err(error)) {
            if let Some(waiting) = self.waiting.upgrade() {
                let mut waiting = lock(&waiting);
                while waiting.try_recv().is_ok() {}
            }
            // It may be gone.
            let _ = self.to.try_send(last);
        }
    }
}

fn lock(pieces: &Pieces) -> std::sync::MutexGuard<'_, mpsc::Receiver<Piece>> {
    pieces.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::StreamExt as _;

    use super::*;

    fn silent() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_does_not_take_is_dropped_after_a_while() {
        let (mut stream, mut pieces) = Stream::new(silent());
        for _ in 0..PIECES_MAX {
            stream.send(Bytes::from_static(b"model")).await.unwrap();
        }
        let late = End::Broken("it did not take its message in time".to_owned());
        let begun = tokio::time::Instant::now();
        assert_eq!(stream.send(Bytes::from_static(b"model")).await.unwrap_err(), late);
        assert_eq!(begun.elapsed(), PIECE_WAIT_MAX);
        stream.end(&late);
        // Nothing of the model is left there, only why.
        assert!(pieces.next().await.unwrap().unwrap_err().detail.contains("in time"));
        assert!(pieces.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_over_when_it_was_taken() {
        let (mut stream, mut pieces) = Stream::new(silent());
        stream.taken().await.unwrap();
        for _ in 0..2 {
            stream.send(Bytes::from_static(b"model")).await.unwrap();
        }
        // It takes a piece every fifty seconds, which is slow and not too slow.
        let slow = async {
            for _ in 0..2 {
                tokio::time::sleep(PIECE_WAIT_MAX - Duration::from_secs(10)).await;
                pieces.next().await.unwrap().unwrap();
            }
        };
        let (taken, ()) = tokio::join!(stream.taken(), slow);
        taken.unwrap();
        stream.send(Bytes::from_static(b"model")).await.unwrap();
        assert!(matches!(stream.taken().await, Err(End::Broken(_))), "nobody takes this one");
        drop(pieces);
        assert_eq!(stream.taken().await, Err(End::Gone));
    }
}
