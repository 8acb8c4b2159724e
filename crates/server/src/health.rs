//! Health as gRPC peers ask for it: `grpc.health.v1.Health/Check`, beside `/health` over HTTP.
//!
//! It answers for the server as a whole, by the empty name; other names are not found, and other calls are not there. Source: the gRPC
//! health checking protocol, as `flower-superlink` 1.42 serves it.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::StreamBody;
use hyper::body::Frame;

/// Where the check is.
pub(crate) const CHECK_PATH: &str = "/grpc.health.v1.Health/Check";
/// The longest request that is read, in bytes.
const REQUEST_LEN_MAX: usize = 1024;
/// How long a request may take to come.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// `HealthCheckResponse` with the status SERVING, and with NOT_SERVING, in their frames.
const ANSWERS: [&[u8]; 2] = [&[0, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 2, 8, 2]];
/// A request for the server as a whole: an empty message in its frame.
const WHOLE_SERVER: [u8; 5] = [0; 5];
const NOT_FOUND: &str = "5";

/// Answers a check; a request that does not come in time is none for the server.
pub(crate) async fn check(serving: bool, request: Body) -> Response {
    let request = tokio::time::timeout(REQUEST_WAIT_MAX, axum::body::to_bytes(request, REQUEST_LEN_MAX));
    let request = request.await.ok().and_then(Result::ok).unwrap_or_default();
    if request[..] != WHOLE_SERVER {
        return answer(None, NOT_FOUND);
    }
    let [yes, no] = ANSWERS;
    answer(Some(Bytes::from_static(if serving { yes } else { no })), "0")
}

/// One message or none, then the status.
fn answer(message: Option<Bytes>, status: &'static str) -> Response {
    let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static(status));
    let trailers = Frame::trailers(HeaderMap::from_iter([status]));
    let frames = message.map(Frame::data).into_iter().chain([trailers]).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn status(request: Body) -> String {
        let answer = check(true, request).await.into_body().collect().await.unwrap();
        answer.trailers().unwrap()["grpc-status"].to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_comes_is_answered_nevertheless() {
        assert_eq!(status(Body::from(&WHOLE_SERVER[..])).await, "0");
        let begun = tokio::time::Instant::now();
        let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(status(silent).await, NOT_FOUND);
        assert_eq!(begun.elapsed(), REQUEST_WAIT_MAX);
    }
}
