//! The checked-in OpenAPI document says what the router serves and what the messages hold.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use sheaf_messages::v1;
use sheaf_wire_native::ROUTES;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../../docs/openapi/native.v1.json")).unwrap()
}

#[test]
fn the_paths_are_those_of_the_router() {
    let document = document();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    let served = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, served);
}

fn fields<T: Serialize>(message: &T) -> BTreeSet<String> {
    serde_json::to_value(message).unwrap().as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_fields_are_those_of_the_messages() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let messages = [
        ("EnrolRequest", fields(&v1::EnrolRequest::default())),
        ("EnrolReply", fields(&v1::EnrolReply::default())),
        ("Certificate", fields(&v1::Certificate::default())),
        ("RenewRequest", fields(&v1::RenewRequest::default())),
        ("RenewReply", fields(&v1::RenewReply::default())),
        ("BeatRequest", fields(&v1::BeatRequest::default())),
        ("BeatReply", fields(&v1::BeatReply::default())),
        ("Withdrawn", fields(&v1::Withdrawn::default())),
        ("NextRequest", fields(&v1::NextRequest::default())),
        ("NextReply", fields(&v1::NextReply::default())),
        ("WorkOrder", fields(&v1::WorkOrder::default())),
        ("Version", fields(&v1::Version::default())),
        ("Tensor", fields(&v1::Tensor::default())),
        ("Input", fields(&v1::Input::default())),
        ("Output", fields(&v1::Output::default())),
        ("Like", fields(&v1::Like::default())),
        ("ConfigList", fields(&v1::ConfigList::default())),
        ("MissingRequest", fields(&v1::MissingRequest::default())),
        ("MissingReply", fields(&v1::MissingReply::default())),
        ("PutPieceReply", fields(&v1::PutPieceReply::default())),
        ("SubmitRequest", fields(&v1::SubmitRequest::default())),
        ("SubmittedSlot", fields(&v1::SubmittedSlot::default())),
        ("Manifest", fields(&v1::Manifest::default())),
        ("PlacedTensor", fields(&v1::PlacedTensor::default())),
        ("Segment", fields(&v1::Segment::default())),
        ("SubmitReply", fields(&v1::SubmitReply::default())),
        ("Refusal", fields(&v1::Refusal::default())),
        ("FailRequest", fields(&v1::FailRequest::default())),
        ("FailReply", fields(&v1::FailReply::default())),
        ("LeaveRequest", fields(&v1::LeaveRequest::default())),
        ("LeaveReply", fields(&v1::LeaveReply::default())),
    ];
    for (name, expected) in &messages {
        let described: Option<BTreeSet<String>> =
            schemas[*name]["properties"].as_object().map(|map| map.keys().cloned().collect());
        assert_eq!(described.unwrap_or_default(), *expected, "{name}");
    }
    // The rest: errors, and configuration values, which are no plain objects of fields.
    let known: BTreeSet<&str> =
        messages.iter().map(|(name, _)| *name).chain(["ConfigValue", "Error"]).collect();
    let described: BTreeSet<&str> = schemas.keys().map(String::as_str).collect();
    assert_eq!(described, known);
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut references = Vec::new();
    walk(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}
