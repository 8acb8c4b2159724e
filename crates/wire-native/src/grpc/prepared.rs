//! `ReadVersion` without a copy: the reply is a few bytes of framing and then the shared bytes of the tile themselves.
//!
//! The generated service would copy every reply into a message buffer of its own, and N readers of one model would hold N of
//! them. On the wire the two are the same: one message, one length prefix, one status. Refuses a compressed request and one
//! that is more than one message.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message"; Protocol Buffers encoding, length-delimited fields.

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use prost::Message as _;
use sheaf_messages::v1;

use crate::Error;

/// The path that is answered here.
pub(super) const READ_PATH: &str = "/sheaf.native.v1.Participant/ReadVersion";
/// The longest request, in bytes: identifiers and two numbers.
const REQUEST_LEN_MAX: usize = 16 * 1024;
/// A flag and a length stand before a message.
const PREFIX_LEN: usize = 5;
/// The number of the field `content`, and that it is length-delimited.
const CONTENT_KEY: u8 = 1 << 3 | 2;

/// Reads the one message of a request.
pub(super) async fn request(body: Body) -> Result<v1::ReadVersionRequest, Error> {
    let body = Limited::new(body, REQUEST_LEN_MAX).collect().await;
    let body =
        body.map_err(|_| Error::Protocol("the request of a read broke off or is too long"))?.to_bytes();
    let malformed = Error::Protocol("the request of a read is not one uncompressed message");
    let Some((&[flag, len @ ..], message)) = body.split_first_chunk::<PREFIX_LEN>() else {
        return Err(malformed);
    };
    if flag != 0 || usize::try_from(u32::from_be_bytes(len)) != Ok(message.len()) {
        return Err(malformed);
    }
    v1::ReadVersionRequest::decode(message).map_err(|_| malformed)
}

/// The reply that carries `content`.
pub(super) fn reply(content: Bytes) -> Response {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    // An empty frame before the last is what a peer counts against a connection, and a connection lives long.
    let content_frame = (!content.is_empty()).then(|| Frame::data(content.clone()));
    let frames = [Some(Frame::data(framing(content.len()))), content_frame, Some(Frame::trailers(trailers))];
    let frames = frames.into_iter().flatten().map(Ok::<_, Error>);
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// What stands before the content.
fn framing(content_len: usize) -> Bytes {
    let mut field = BytesMut::new();
    // An empty field is not written.
    if content_len > 0 {
        field.put_u8(CONTENT_KEY);
        prost::encoding::encode_varint(content_len as u64, &mut field);
    }
    // Replies are far below 4 GiB.
    let message_len = u32::try_from(field.len() + content_len).unwrap_or(u32::MAX);
    let mut framing = BytesMut::with_capacity(PREFIX_LEN + field.len());
    framing.put_u8(0);
    framing.put_u32(message_len);
    framing.put(field);
    framing.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let len = u32::try_from(message.len()).unwrap();
        [&[0][..], &len.to_be_bytes(), message].concat()
    }

    #[tokio::test]
    async fn a_reply_is_the_message_that_the_generated_code_makes() {
        for len in [0, 1, 127, 128, 300_000] {
            let content = Bytes::from(vec![7; len]);
            let expected = framed(&v1::ReadVersionReply { content: content.clone() }.encode_to_vec());
            let body = reply(content).into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
            assert!(body.to_bytes() == expected, "{len} bytes");
        }
    }

    #[tokio::test]
    async fn no_frame_of_a_reply_is_empty() {
        for len in [0, 1, 300_000] {
            let mut body = reply(Bytes::from(vec![7; len])).into_body();
            while let Some(frame) = body.frame().await {
                assert!(frame.unwrap().data_ref().is_none_or(|part| !part.is_empty()), "{len} bytes");
            }
        }
    }

    #[tokio::test]
    async fn a_request_is_one_whole_message() {
        let asked = v1::ReadVersionRequest { version: None, offset: 3, length: 9 };
        let good = framed(&asked.encode_to_vec());
        assert_eq!(request(Body::from(good.clone())).await.unwrap(), asked);
        let compressed = [&[1], &good[1..]].concat();
        let two = [good.clone(), good.clone()].concat();
        let long = framed(&vec![0; REQUEST_LEN_MAX + 1]);
        for bad in [
            Vec::new(),
            vec![0; 4],
            good[..good.len() - 1].to_vec(),
            compressed,
            two,
            framed(&[0xff; 3]),
            long,
        ] {
            assert!(matches!(request(Body::from(bad)).await, Err(Error::Protocol(_))));
        }
    }
}
