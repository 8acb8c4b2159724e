//! The body of a request, within bounds of time: whoever waits for its next part waits for so long and no longer.
//!
//! Only what is waited for counts: a part that lies there while nobody asks for it is not late.

use std::time::Duration;

use axum::body::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};

/// How long the next part of a body may take. Front-ends that say by name what is missing wait for a shorter time.
const PART_WAIT_MAX: Duration = Duration::from_secs(90);

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

/// The parts of a body, waited for with patience, but not for ever. Whoever asks on after the end is told again that it is one.
pub(super) fn parts<B>(body: B) -> impl Stream<Item = Result<Frame<Bytes>, Broken<B::Error>>>
where
    B: Body<Data = Bytes> + Unpin,
{
    stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match tokio::time::timeout(PART_WAIT_MAX, body.frame()).await {
            Ok(Some(Ok(part))) => Some((Ok(part), Some(body))),
            Ok(Some(Err(error))) => Some((Err(Broken::Body(error)), None)),
            Ok(None) => None,
            Err(_) => Some((Err(Broken::Late), None)),
        }
    })
    .fuse()
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;

    use super::*;

    fn body()
    -> (mpsc::Sender<&'static str>, impl Stream<Item = Result<Frame<Bytes>, Broken<std::io::Error>>> + Unpin)
    {
        let (to, from) = mpsc::channel::<&'static str>(4);
        let sent = stream::unfold(from, |mut from| async move {
            let part = Bytes::from_static(from.recv().await?.as_bytes());
            Some((Ok::<_, std::io::Error>(Frame::data(part)), from))
        });
        (to, Box::pin(parts(StreamBody::new(Box::pin(sent)))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_go_on_ends_by_name() {
        let (to, mut body) = body();
        to.send("a").await.unwrap();
        assert_eq!(body.next().await.unwrap().unwrap().into_data().unwrap(), "a");
        let begun = tokio::time::Instant::now();
        let late = body.next().await.unwrap().unwrap_err().to_string();
        assert_eq!(
            (late.as_str(), begun.elapsed()),
            ("the body did not go on within 90 seconds", PART_WAIT_MAX)
        );
        assert!(body.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_and_a_slow_reader_are_not_late() {
        let (to, mut body) = body();
        for _ in 0..5 {
            let (part, ()) = tokio::join!(body.next(), async {
                tokio::time::sleep(PART_WAIT_MAX - Duration::from_secs(1)).await;
                to.send("a").await.unwrap();
            });
            assert!(part.unwrap().is_ok());
        }
        // Somebody waits, goes off to something else, and finds what came meanwhile.
        assert!(tokio::time::timeout(Duration::from_secs(1), body.next()).await.is_err());
        to.send("a").await.unwrap();
        tokio::time::sleep(2 * PART_WAIT_MAX).await;
        assert!(body.next().await.unwrap().is_ok());
        drop(to);
        for _ in 0..3 {
            assert!(body.next().await.is_none());
        }
    }
}
