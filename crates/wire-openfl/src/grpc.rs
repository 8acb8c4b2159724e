//! `openfl.aggregator.Aggregator` over gRPC: requests from frames, answers into frames, statuses into trailers.
//!
//! A tensor passes from the store to the socket in pieces, in a message whose length was said before.

use std::convert::Infallible;
use std::pin::Pin;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;

use crate::calls::Record;
use crate::error::{CallError, Sort};
use crate::federation::Federation;
use crate::frames::{FramedPieces, Framing, MESSAGE_LEN_MAX, one_message};
use crate::header::Peer;
use crate::proto::openfl::aggregator::{
    GetAggregatedTensorRequest, GetAggregatedTensorResponse, GetTasksRequest, MessageHeader, PingRequest,
    PingResponse, SendLocalTaskResultsResponse,
};
use crate::tell::{Body as TensorBody, TensorAnswer};

/// Where the paths of the service begin.
pub(crate) const SERVICE: &str = "/openfl.aggregator.Aggregator/";
/// The longest request but for results, in bytes.
const REQUEST_LEN_MAX: usize = 256 * 1_024;

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, CallError>> + Send>>;

/// The calls.
const METHODS: [&str; 5] =
    ["Ping", "GetTasks", "GetAggregatedTensor", "SendLocalTaskResults", "InteropRelay"];

/// Answers a call of the service by its method's name.
pub(crate) async fn call(federation: &Federation, method: &str, peer: Peer<'_>, body: Body) -> Response {
    let known = METHODS.into_iter().find(|known| *known == method).unwrap_or("none");
    let mut record = Record::new("grpc", known);
    let answered = match known {
        "Ping" => ping(federation, peer, body, &mut record).await,
        "GetTasks" => tasks(federation, peer, body, &mut record).await,
        "GetAggregatedTensor" => tensor(federation, peer, body, &mut record).await,
        "SendLocalTaskResults" => results(federation, peer, body, &mut record).await,
        "InteropRelay" => Err(federation.call_relay()),
        _ => {
            let shown: String = method.chars().take(64).collect();
            Err(CallError::new(Sort::NotServed, format!("the method {shown:?} is not served")))
        }
    };
    record.ended(&answered);
    answered.unwrap_or_else(|error| refuse(&error))
}

async fn request<M: Message + Default>(body: Body) -> Result<M, CallError> {
    let message = one_message(body, REQUEST_LEN_MAX).await?;
    M::decode(message).map_err(|error| CallError::new(Sort::Request, error))
}

/// Whose a call is, for its record.
fn sender_of(header: Option<&MessageHeader>) -> String {
    header.map(|header| header.sender.clone()).unwrap_or_default()
}

async fn ping(
    federation: &Federation,
    peer: Peer<'_>,
    body: Body,
    record: &mut Record,
) -> Result<Response, CallError> {
    let PingRequest { header } = request(body).await?;
    record.sender = sender_of(header.as_ref());
    let header = federation.call_ping(header.as_ref(), peer)?;
    one(&PingResponse { header: Some(header) })
}

async fn tasks(
    federation: &Federation,
    peer: Peer<'_>,
    body: Body,
    record: &mut Record,
) -> Result<Response, CallError> {
    let GetTasksRequest { header } = request(body).await?;
    record.sender = sender_of(header.as_ref());
    let told = federation.call_tasks(header.as_ref(), peer).await?;
    record.round = told.round_number;
    one(&told)
}

async fn results(
    federation: &Federation,
    peer: Peer<'_>,
    body: Body,
    record: &mut Record,
) -> Result<Response, CallError> {
    let mut pieces = FramedPieces::new(body, Framing::Grpc);
    let header = federation.call_results(peer, None, &mut pieces, record).await?;
    one(&SendLocalTaskResultsResponse { header: Some(header) })
}

async fn tensor(
    federation: &Federation,
    peer: Peer<'_>,
    body: Body,
    record: &mut Record,
) -> Result<Response, CallError> {
    let wanted: GetAggregatedTensorRequest = request(body).await?;
    record.sender = sender_of(wanted.header.as_ref());
    record.round = wanted.round_number;
    let (header, TensorAnswer { head, body }) = federation.call_tensor(&wanted, peer).await?;
    record.bytes = body.len();
    let mut tensor = BytesMut::from(&head.encode_to_vec()[..]);
    if body.len() > 0 {
        // data_bytes: field 7, length-delimited; its bytes follow.
        tensor.put_u8(0x3a);
        prost::encoding::encode_varint(body.len(), &mut tensor);
    }
    let around =
        GetAggregatedTensorResponse { header: Some(header), round_number: wanted.round_number, tensor: None };
    let mut message = BytesMut::from(&around.encode_to_vec()[..]);
    // tensor: field 3, length-delimited.
    message.put_u8(0x1a);
    prost::encoding::encode_varint(tensor.len() as u64 + body.len(), &mut message);
    message.extend_from_slice(&tensor);
    let len = message.len() as u64 + body.len();
    let first = Bytes::from([&prefix(len)?[..], &message[..]].concat());
    Ok(answer(Box::pin(stream::iter([Ok(first)]).chain(rest(body)))))
}

/// The bytes of a tensor, piece by piece. One that cannot be read to its end breaks the message off, and the peer asks again.
pub(crate) fn rest(body: TensorBody) -> impl Stream<Item = Result<Bytes, CallError>> + Send {
    stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match body.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(body))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn prefix(len: u64) -> Result<[u8; 5], CallError> {
    let too_long =
        || CallError::new(Sort::NoTensor, format!("{len} bytes are more than one message carries"));
    let [a, b, c, d] =
        u32::try_from(len).ok().filter(|_| len <= MESSAGE_LEN_MAX).ok_or_else(too_long)?.to_be_bytes();
    Ok([0, a, b, c, d])
}

fn one(message: &impl Message) -> Result<Response, CallError> {
    let bytes = message.encode_to_vec();
    let framed = [&prefix(bytes.len() as u64)?[..], &bytes[..]].concat();
    Ok(answer(Box::pin(stream::iter([Ok(Bytes::from(framed))]))))
}

fn answer(messages: Messages) -> Response {
    let frames = stream::unfold(Some(messages), |messages| async move {
        let mut messages = messages?;
        let frame = match messages.next().await {
            Some(Ok(bytes)) => return Some((Ok::<_, Infallible>(Frame::data(bytes)), Some(messages))),
            Some(Err(error)) => Frame::trailers(status(Some(&error))),
            None => Frame::trailers(status(None)),
        };
        Some((Ok(frame), None))
    });
    typed(Body::new(StreamBody::new(frames)))
}

/// The refusal of a call: headers only.
fn refuse(error: &CallError) -> Response {
    let mut response = typed(Body::empty());
    response.headers_mut().extend(status(Some(error)));
    response
}

fn typed(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn status(error: Option<&CallError>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let Some(error) = error else {
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        return trailers;
    };
    trailers.insert("grpc-status", HeaderValue::from(error.grpc()));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&error.message)) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

/// The encoding of gRPC's status message: what is not printable ASCII, and the percent sign, as %XX.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes().take(1_024) {
        match byte {
            b'%' | 0..0x20 | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            plain => encoded.push(char::from(plain)),
        }
    }
    encoded
}
