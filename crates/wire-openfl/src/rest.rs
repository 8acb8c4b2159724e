//! The same calls over HTTP: `/experimental/v1`, requests in paths and queries, answers as the JSON form of their messages.
//!
//! A tensor passes from the store to the socket in pieces here too, as base64 within its JSON. Identity is that of the certificate where one is
//! asked for; what headers and query say of the sender must agree.
//!
//! Source: observed with openfl 1.9, its `aggregator_server` and `aggregator_client`.

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use serde_json::{Map, Value, json};

use crate::calls::Record;
use crate::error::{CallError, Sort};
use crate::federation::Federation;
use crate::frames::{FramedPieces, Framing};
use crate::grpc::rest;
use crate::header::Peer;
use crate::proto::openfl::aggregator::{GetAggregatedTensorRequest, GetTasksResponse, MessageHeader};
use crate::proto::{MetadataProto, NamedTensor};

/// Where the paths begin.
pub(crate) const PATHS: &str = "/experimental/v1/";
/// Headers that upstream puts on every answer.
const SECURITY_HEADERS: [(&str, &str); 3] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-xss-protection", "1; mode=block"),
];
/// That of answers over TLS.
const TRANSPORT_SECURITY: &str = "max-age=31536000; includeSubDomains";

/// The calls, by the rest of their path.
const METHODS: [&str; 5] = ["ping", "tasks", "tensors/aggregated", "tasks/results", "interop/relay"];

/// Answers a call by the rest of its path.
pub(crate) async fn call(
    federation: &Federation,
    path: &str,
    parts: &Parts,
    peer: Peer<'_>,
    body: Body,
) -> Response {
    let method = METHODS.into_iter().find(|method| *method == path).unwrap_or("none");
    let mut record = Record::new("rest", method);
    let answered = answer(federation, parts, peer, body, method, &mut record).await;
    record.ended(&answered);
    let mut response = answered.unwrap_or_else(|error| refuse(&error));
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if peer != Peer::Plain {
        let value = HeaderValue::from_static(TRANSPORT_SECURITY);
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    response
}

async fn answer(
    federation: &Federation,
    parts: &Parts,
    peer: Peer<'_>,
    body: Body,
    method: &str,
    record: &mut Record,
) -> Result<Response, CallError> {
    let mut refused = |answered, status: StatusCode| {
        record.answered = answered;
        Ok(status.into_response())
    };
    match (method, parts.method == Method::GET, parts.method == Method::POST) {
        ("ping", true, _) => ping(federation, parts, peer, record),
        ("tasks", true, _) => tasks(federation, parts, peer, record).await,
        ("tensors/aggregated", true, _) => tensor(federation, parts, peer, record).await,
        ("tasks/results", _, true) => results(federation, parts, peer, body, record).await,
        ("interop/relay", _, true) => Err(federation.call_relay()),
        ("none", ..) => refused("there is no such path", StatusCode::NOT_FOUND),
        _ => refused("the path is not for this method", StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// What a query says, in order.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(parts: &Parts) -> Query {
        let text = parts.uri.query().unwrap_or_default();
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(1_000);
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name), decoded(value))
                })
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// Undoes the encoding of a query.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let hex = after
            .first_chunk::<2>()
            .and_then(|two| hex::decode(two).ok())
            .and_then(|one| one.first().copied());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(b' '),
            (plain, _) => bytes.push(*plain),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The header that headers and query come to; what neither says is taken as ours.
fn header_of(federation: &Federation, parts: &Parts, query: &Query) -> Result<MessageHeader, CallError> {
    let of_headers = |headers: &HeaderMap, name: &str| -> Option<String> {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let said = |name: &str, keys: &[&str]| -> Result<Option<String>, CallError> {
        let mut found = of_headers(&parts.headers, name);
        for key in keys {
            let Some(value) = query.get(key) else { continue };
            match &found {
                Some(other) if other != value => {
                    return Err(CallError::new(Sort::Identity, format!("{name} is not {key}")));
                }
                _ => found = Some(value.to_owned()),
            }
        }
        Ok(found)
    };
    let plan = federation.plan();
    if parts.method == Method::GET && query.get("collaborator_id").is_none() {
        return Err(CallError::new(Sort::Identity, "collaborator_id is not given"));
    }
    let missing = |what: &str| CallError::new(Sort::Identity, format!("{what} is not given"));
    Ok(MessageHeader {
        sender: said("sender", &["collaborator_id", "sender"])?.ok_or_else(|| missing("the sender"))?,
        receiver: said("receiver", &["receiver"])?.unwrap_or_else(|| plan.identity.aggregator_uuid.clone()),
        federation_uuid: said("federation-uuid", &["federation_uuid"])?
            .ok_or_else(|| missing("the federation"))?,
        single_col_cert_common_name: of_headers(&parts.headers, "single-col-cert-cn")
            .unwrap_or_else(|| plan.aggregator.single_col_cert_common_name.clone()),
    })
}

/// The header of a call, whose record now says whose it is.
fn begun(
    federation: &Federation,
    parts: &Parts,
    query: &Query,
    record: &mut Record,
) -> Result<MessageHeader, CallError> {
    let header = header_of(federation, parts, query)?;
    record.sender.clone_from(&header.sender);
    Ok(header)
}

fn ping(
    federation: &Federation,
    parts: &Parts,
    peer: Peer<'_>,
    record: &mut Record,
) -> Result<Response, CallError> {
    let header = begun(federation, parts, &Query::of(parts), record)?;
    let header = federation.call_ping(Some(&header), peer)?;
    Ok(json_answer(&json!({ "header": header_json(&header) })))
}

async fn tasks(
    federation: &Federation,
    parts: &Parts,
    peer: Peer<'_>,
    record: &mut Record,
) -> Result<Response, CallError> {
    let header = begun(federation, parts, &Query::of(parts), record)?;
    let told = federation.call_tasks(Some(&header), peer).await?;
    let GetTasksResponse { header, round_number, tasks, sleep_time, quit } = told;
    record.round = round_number;
    let mut fields = Fields::default();
    fields.put("header", header.as_ref().map(header_json));
    fields.number("roundNumber", round_number);
    let tasks: Vec<Value> = tasks.into_iter().map(|task| json!({ "name": task.name })).collect();
    fields.put("tasks", (!tasks.is_empty()).then_some(Value::Array(tasks)));
    fields.number("sleepTime", sleep_time);
    fields.truth("quit", quit);
    Ok(json_answer(&Value::Object(fields.0)))
}

async fn results(
    federation: &Federation,
    parts: &Parts,
    peer: Peer<'_>,
    body: Body,
    record: &mut Record,
) -> Result<Response, CallError> {
    let mut pieces = FramedPieces::new(body, Framing::Http);
    let taken = take(federation, parts, peer, &mut pieces, record).await;
    if taken.is_err() {
        pieces.discard().await;
    }
    taken.map(|()| json_answer(&json!({ "status": "success" })))
}

async fn take(
    federation: &Federation,
    parts: &Parts,
    peer: Peer<'_>,
    pieces: &mut FramedPieces,
    record: &mut Record,
) -> Result<(), CallError> {
    let header = begun(federation, parts, &Query::of(parts), record)?;
    federation.call_ping(Some(&header), peer)?;
    federation.call_results(peer, Some(&header.sender), pieces, record).await?;
    Ok(())
}

async fn tensor(
    federation: &Federation,
    parts: &Parts,
    peer: Peer<'_>,
    record: &mut Record,
) -> Result<Response, CallError> {
    let query = Query::of(parts);
    let header = begun(federation, parts, &query, record)?;
    let round_number = query.get("round_number").unwrap_or("0").parse();
    let round_number =
        round_number.map_err(|_| CallError::new(Sort::Request, "round_number is no number"))?;
    record.round = round_number;
    let request = GetAggregatedTensorRequest {
        header: Some(header),
        tensor_name: query.get("tensor_name").unwrap_or_default().to_owned(),
        round_number,
        report: query.is_true("report"),
        tags: query.0.iter().filter(|(name, _)| name == "tags").map(|(_, value)| value.clone()).collect(),
        require_lossless: query.is_true("require_lossless"),
    };
    let (header, answer) = federation.call_tensor(&request, peer).await?;
    record.bytes = answer.body.len();
    let mut fields = Fields::default();
    fields.put("header", Some(header_json(&header)));
    fields.number("roundNumber", round_number);
    if answer.head == NamedTensor::default() {
        return Ok(json_answer(&Value::Object(fields.0)));
    }
    let tensor = tensor_json(&answer.head);
    let around = Value::Object(fields.0).to_string();
    let around = around.strip_suffix('}').unwrap_or(&around);
    let tensor = tensor.to_string();
    let tensor = tensor.strip_suffix('}').unwrap_or(&tensor);
    if answer.body.len() == 0 {
        return Ok(typed(Body::from(format!("{around},\"tensor\":{tensor}}}}}"))));
    }
    let before = Bytes::from(format!("{around},\"tensor\":{tensor},\"dataBytes\":\""));
    let after = Bytes::from_static(b"\"}}");
    // Pieces are groups of three bytes until the last, so that theirs is the base64 of the whole.
    let mut held = Vec::new();
    let encoded = rest(answer.body).map(Some).chain(stream::iter([None])).map(move |piece| {
        let is_last = piece.is_none();
        held.extend_from_slice(&piece.transpose()?.unwrap_or_default());
        let whole = if is_last { held.len() } else { held.len() - held.len() % 3 };
        let tail = held.split_off(whole);
        let text = STANDARD.encode(std::mem::replace(&mut held, tail));
        Ok::<_, CallError>(Bytes::from(text))
    });
    let all = stream::iter([Ok(before)]).chain(encoded).chain(stream::iter([Ok(after)]));
    Ok(typed(Body::from_stream(all)))
}

/// An object of which fields with their default's value are left out, as the JSON form of messages has it.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value);
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.put(name, (!value.is_empty()).then(|| Value::from(value)));
    }

    fn number(&mut self, name: &str, value: i32) {
        self.put(name, (value != 0).then(|| Value::from(value)));
    }

    fn truth(&mut self, name: &str, value: bool) {
        self.put(name, value.then_some(Value::from(true)));
    }
}

fn header_json(header: &MessageHeader) -> Value {
    let mut fields = Fields::default();
    fields.text("sender", &header.sender);
    fields.text("receiver", &header.receiver);
    fields.text("federationUuid", &header.federation_uuid);
    fields.text("singleColCertCommonName", &header.single_col_cert_common_name);
    Value::Object(fields.0)
}

fn tensor_json(head: &NamedTensor) -> Value {
    let mut fields = Fields::default();
    fields.text("name", &head.name);
    fields.number("roundNumber", head.round_number);
    fields.truth("lossless", head.lossless);
    fields.truth("report", head.report);
    fields.put("tags", Some(json!(head.tags)));
    let metadata: Vec<Value> = head.transformer_metadata.iter().map(metadata_json).collect();
    fields.put("transformerMetadata", Some(Value::Array(metadata)));
    Value::Object(fields.0)
}

fn metadata_json(entry: &MetadataProto) -> Value {
    let mut fields = Fields::default();
    let table: Map<String, Value> =
        entry.int_to_float.iter().map(|(code, value)| (code.to_string(), json!(value))).collect();
    fields.put("intToFloat", (!table.is_empty()).then_some(Value::Object(table)));
    fields.put("intList", (!entry.int_list.is_empty()).then(|| json!(entry.int_list)));
    Value::Object(fields.0)
}

fn json_answer(value: &Value) -> Response {
    typed(Body::from(value.to_string()))
}

fn typed(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refuse(error: &CallError) -> Response {
    let mut response = json_answer(&json!({ "error": error.message }));
    *response.status_mut() = error.http();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_meant() {
        assert_eq!(decoded("a%2Fb+c%zz%"), "a/b c%zz%");
        let request = http::Request::get("/x?tags=model&tags=a%20b&report=True&empty").body(()).unwrap();
        let query = Query::of(&request.into_parts().0);
        assert!(query.is_true("report") && !query.is_true("empty"));
        assert_eq!(query.0.iter().filter(|(name, _)| name == "tags").count(), 2);
    }
}
