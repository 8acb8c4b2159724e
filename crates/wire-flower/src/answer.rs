//! What a call is answered, and how either transport says it.
//!
//! HTTP: the message is the body; a stream has frames with four bytes of length; an error is JSON. gRPC: frames with five bytes, and
//! the status in trailers. Objects pass from the store to the socket without being collected.

use std::convert::Infallible;
use std::pin::Pin;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use sheaf_coordinator::ObjectReader;

use crate::error::{FlowerCode, FlowerError};
use crate::frames::{grpc_frame, grpc_prefix, stream_frame};
use crate::push::pull_prefix;

/// Messages that come one after another.
pub(crate) type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, FlowerError>> + Send>>;

/// What a call is answered.
pub(crate) enum Answer {
    /// One message.
    Message(Bytes),
    /// An object, in a message around it.
    Object(ObjectReader),
    /// Messages that come one after another.
    Stream(Messages),
}

impl Answer {
    pub(crate) fn of(message: &impl Message) -> Answer {
        Answer::Message(message.encode_to_vec().into())
    }

    /// The answer to an HTTP call.
    pub(crate) fn into_http(self) -> Response {
        match self {
            Answer::Message(message) => with_type("application/protobuf", Body::from(message)),
            Answer::Object(reader) => {
                let prefix = pull_prefix(reader.len());
                let len = prefix.len() as u64 + reader.len();
                let mut response =
                    with_type("application/protobuf", Body::from_stream(object(prefix, reader)));
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
                response
            }
            Answer::Stream(messages) => {
                let frames = messages.map(|message| stream_frame(&message?).map_err(too_long));
                with_type("application/flower-protobuf-stream", Body::from_stream(frames))
            }
        }
    }

    /// The answer to a gRPC call.
    pub(crate) fn into_grpc(self) -> Response {
        let frames: Messages = match self {
            Answer::Message(message) => Box::pin(stream::iter([grpc_frame(&message).map_err(too_long)])),
            Answer::Object(reader) => {
                let prefix = pull_prefix(reader.len());
                match grpc_prefix(prefix.len() as u64 + reader.len()) {
                    Ok(frame) => {
                        let head = Bytes::from([&frame[..], &prefix[..]].concat());
                        Box::pin(object(head, reader))
                    }
                    Err(error) => Box::pin(stream::iter([Err(too_long(error))])),
                }
            }
            Answer::Stream(messages) => {
                Box::pin(messages.map(|message| grpc_frame(&message?).map_err(too_long)))
            }
        };
        grpc_answer(frames)
    }
}

/// The answer to a gRPC call of pieces that are framed already.
pub(crate) fn grpc_answer(frames: Messages) -> Response {
    with_type("application/grpc", Body::new(StreamBody::new(with_trailers(frames))))
}

/// The frames of a gRPC answer and its trailers; an error ends the frames and is what the trailers say.
fn with_trailers(frames: Messages) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold(Some(frames), |frames| async move {
        let mut frames = frames?;
        match frames.next().await {
            Some(Ok(bytes)) => Some((Ok(Frame::data(bytes)), Some(frames))),
            Some(Err(error)) => Some((Ok(Frame::trailers(grpc_status(Some(&error)))), None)),
            None => Some((Ok(Frame::trailers(grpc_status(None))), None)),
        }
    })
}

/// Bytes before an object, then the object.
fn object(head: Bytes, reader: ObjectReader) -> impl Stream<Item = Result<Bytes, FlowerError>> + Send {
    let rest = stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
            Ok(None) => None,
            // The length was promised: the connection ends instead, and the peer asks again.
            Err(error) => Some((Err(FlowerError::new(FlowerCode::Unavailable, error.to_string())), None)),
        }
    });
    stream::iter([Ok(head)]).chain(rest)
}

fn too_long(error: crate::frames::FrameError) -> FlowerError {
    FlowerError::new(FlowerCode::Unavailable, error.to_string())
}

fn with_type(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The refusal of an HTTP call.
pub(crate) fn refuse_http(error: &FlowerError) -> Response {
    let mut response = with_type("application/json", Body::from(error.json()));
    *response.status_mut() = error.code.http();
    if error.code.http() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The refusal of a gRPC call: headers only.
pub(crate) fn refuse_grpc(error: &FlowerError) -> Response {
    let mut response = with_type("application/grpc", Body::empty());
    response.headers_mut().extend(grpc_status(Some(error)));
    response
}

fn grpc_status(error: Option<&FlowerError>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let Some(error) = error else {
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        return trailers;
    };
    trailers.insert("grpc-status", HeaderValue::from(error.code.grpc() as u16));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&error.grpc_message())) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

/// The encoding of gRPC's status message: what is not printable ASCII, and the percent sign, as %XX.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..0x20 | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            plain => encoded.push(char::from(plain)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_message_survives_its_header() {
        assert_eq!(percent_encoded("100 % of {\"é\"}\n"), "100 %25 of {\"%C3%A9\"}%0A");
        let refused = refuse_grpc(&FlowerError::new(FlowerCode::RunStatusNotAllowed, "run 7 is over"));
        assert_eq!(refused.headers()["grpc-status"], "7");
        let refused = refuse_http(&FlowerError::new(FlowerCode::RunStatusNotAllowed, "run 7 is over"));
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["content-type"]),
            (403, &HeaderValue::from_static("application/json"))
        );
    }
}
