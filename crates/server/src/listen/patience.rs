//! The body of a request, within bounds of time: whoever waits for its next part waits for so long and no longer.
//!
//! Only what is waited for counts: a part that lies there while nobody asks for it is not late. A request that has ended is never late.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// How long the next part of a body may take. Front-ends that say by name what is missing wait for a shorter time.
pub(super) const PART_WAIT_MAX: Duration = Duration::from_secs(90);

/// Why a body ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken<E> {
    /// The next part did not come in time.
    #[error("the body did not go on within {} seconds", PART_WAIT_MAX.as_secs())]
    Late,
    /// It broke off.
    #[error(transparent)]
    Body(E),
}

/// A body that is waited for with patience, but not for ever.
#[derive(Debug)]
pub(super) struct Patient<B> {
    body: B,
    /// While somebody waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl<B> Patient<B> {
    pub(super) fn new(body: B) -> Patient<B> {
        Patient { body, until: None }
    }
}

impl<B> Body for Patient<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    type Data = Bytes;
    type Error = Broken<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.until = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Broken::Body)));
        }
        let until = this.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(PART_WAIT_MAX)));
        ready!(until.as_mut().poll(context));
        Poll::Ready(Some(Err(Broken::Late)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;

    use super::*;

    fn body() -> (mpsc::Sender<Bytes>, Patient<impl Body<Data = Bytes, Error = std::io::Error> + Unpin>) {
        let (to, from) = mpsc::channel::<Bytes>(4);
        let parts = stream::unfold(from, |mut from| async move {
            Some((Ok::<_, std::io::Error>(Frame::data(from.recv().await?)), from))
        });
        (to, Patient::new(StreamBody::new(Box::pin(parts))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_go_on_ends_by_name() {
        let (to, mut body) = body();
        to.send(Bytes::from_static(b"a")).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let begun = tokio::time::Instant::now();
        let late = body.frame().await.unwrap().unwrap_err();
        assert_eq!(
            (late.to_string().as_str(), begun.elapsed()),
            ("the body did not go on within 90 seconds", PART_WAIT_MAX)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_and_a_slow_reader_are_not_late() {
        let (to, mut body) = body();
        for _ in 0..5 {
            let (part, ()) = tokio::join!(body.frame(), async {
                tokio::time::sleep(PART_WAIT_MAX - Duration::from_secs(1)).await;
                to.send(Bytes::from_static(b"a")).await.unwrap();
            });
            assert!(part.unwrap().is_ok());
        }
        // Somebody waits, goes off to something else, and finds what came meanwhile.
        assert!(tokio::time::timeout(Duration::from_secs(1), body.frame()).await.is_err());
        to.send(Bytes::from_static(b"a")).await.unwrap();
        tokio::time::sleep(2 * PART_WAIT_MAX).await;
        assert!(body.frame().await.unwrap().is_ok());
        drop(to);
        assert!(body.frame().await.is_none());
    }
}
