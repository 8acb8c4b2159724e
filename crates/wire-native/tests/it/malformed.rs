//! Submissions that break the protocol: they end the attempt they name, in the same words over both transports; what names no
//! task of its sender's is noted with the sender's name.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sheaf_domain::{Digest, JournalId, Manifest, RunId, RunStatus, Span};
use sheaf_messages::{bounds, manifest_to_wire, v1};

use crate::bad_https::post;
use crate::world::{PIECE_LEN, Site, Way, World, model_spec, order};

type Change = fn(&mut v1::SubmitRequest);

/// What may be wrong with a submission on either transport, and what is said of it.
const WRONG: [(Change, &str); 7] = [
    (|wire| wire.num_examples = f64::NAN, "num_examples of NaN is not above 0"),
    (|wire| wire.num_examples = -3.0, "num_examples of -3 is not above 0"),
    (
        |wire| wire.metrics = [("loss".to_owned(), f64::INFINITY)].into(),
        "metric \"loss\": inf is not a finite number",
    ),
    (
        |wire| wire.metrics = [("m".repeat(bounds::KEY_LEN_MAX + 1), 1.0)].into(),
        "malformed submission: metric name exceeds the limit of 128",
    ),
    (
        |wire| manifest(wire).codec = "zip".to_owned(),
        "malformed submission: codec: \"zip\" is not one of \"raw\"",
    ),
    (|wire| manifest(wire).tensors[0].segments[0].length = 1, "malformed submission: manifest: "),
    (|wire| wire.slots[0].manifest = None, "malformed submission: manifest is missing"),
];

fn manifest(wire: &mut v1::SubmitRequest) -> &mut v1::Manifest {
    wire.slots[0].manifest.as_mut().unwrap()
}

/// The task that is open for the site, and a submission of it whose pieces were never uploaded.
async fn open(world: &World, site: &Site, way: Way) -> v1::SubmitRequest {
    let order = order(&*world.connect(site, way)).await;
    let pieces = model_spec().byte_len().div_ceil(PIECE_LEN as u64);
    let digests: Vec<Digest> = (0..pieces).map(|piece| Digest::of(&piece.to_le_bytes())).collect();
    let manifest = Manifest::over_pieces(vec![model_spec()], PIECE_LEN as u64, &digests).unwrap();
    let slot = v1::SubmittedSlot { slot: "model".to_owned(), manifest: Some(manifest_to_wire(&manifest)) };
    v1::SubmitRequest {
        task: order.assignment.task.to_string(),
        slots: vec![slot],
        num_examples: 10.0,
        metrics: std::collections::BTreeMap::new(),
    }
}

async fn status(world: &World, run: RunId) -> RunStatus {
    world.handle.status(&world.operator, run).await.unwrap()
}

/// A run whose one site may try often.
async fn started(world: &World) -> RunId {
    world.run_with(1, 1, "attempts = 100\n").await
}

async fn refused(world: &World, run: RunId) -> Vec<String> {
    let journal = JournalId::Run(run);
    let entries = world.handle.journal(&world.operator, journal, 0, 1000, Span::default()).await.unwrap();
    entries.into_iter().filter(|entry| entry.kind == "refused").map(|entry| entry.body).collect()
}

async fn said_of(way: Way) -> Vec<String> {
    let world = World::start().await;
    let site = world.site("a", way).await;
    let run = started(&world).await;
    let mut said = Vec::new();
    for (idx, (change, says)) in WRONG.into_iter().enumerate() {
        let mut wire = open(&world, &site, way).await;
        change(&mut wire);
        let reply = world.connect(&site, way).submit(wire).await.unwrap();
        assert_eq!(reply.outcome, "refused", "{says}");
        let seen = status(&world, run).await.sites[0].last_error.clone().unwrap();
        assert!(seen.contains(says), "{seen} / {says}");
        assert_eq!(refused(&world, run).await.len(), idx + 1, "{says}: an attempt ends once");
        said.push(seen);
    }
    said
}

#[tokio::test]
async fn a_wrong_submission_ends_its_attempt_in_the_same_words_on_both_transports() {
    assert_eq!(said_of(Way::Grpc).await, said_of(Way::Https).await);
}

#[tokio::test]
async fn numbers_that_json_does_not_have_are_refused_by_name() {
    let world = World::start().await;
    let site = world.site("a", Way::Https).await;
    let run = started(&world).await;
    for (number, says) in [
        ("NaN", "num_examples of NaN"),
        ("-Infinity", "num_examples of -inf"),
        ("1e999", "num_examples of inf"),
        ("\"many\"", "malformed submission: the body is not the message expected"),
        ("[1]", "malformed submission"),
    ] {
        let task = open(&world, &site, Way::Https).await.task;
        let body =
            format!("{{\"num_examples\": {number}, \"metrics\": {{\"\\\"NaN\": 1}}, \"task\": \"{task}\"}}");
        let (code, reply) = post(&world, Some(&site), "/native/v1/submit", "", &body).await;
        assert_eq!(code, 200, "{number}: {reply}");
        let reply: v1::SubmitReply = serde_json::from_str(&reply).unwrap();
        assert_eq!(reply.outcome, "refused");
        let seen = status(&world, run).await.sites[0].last_error.clone().unwrap();
        assert!(seen.contains(says), "{seen} / {says}");
    }
    assert_eq!(refused(&world, run).await.len(), 5);
}

#[tokio::test]
async fn a_repeated_or_late_submission_is_told_so_however_malformed() {
    let world = World::start().await;
    let site = world.site("a", Way::Https).await;
    let run = started(&world).await;
    let mut wire = open(&world, &site, Way::Https).await;
    world.handle.stop(&world.operator, run, "enough".to_owned()).await.unwrap();
    manifest(&mut wire).codec = "zip".to_owned();
    let reply = world.connect(&site, Way::Https).submit(wire).await.unwrap();
    assert_eq!(reply.outcome, "too_late");
    assert!(refused(&world, run).await.is_empty());
}

/// The last thing that went wrong with the site, as `sheaf nodes` shows it.
async fn last_error(world: &World) -> String {
    world.handle.sites(&world.operator).await.unwrap()[0].last_error.clone().unwrap_or_default()
}

#[tokio::test]
async fn what_names_no_task_of_its_sender_is_noted_with_its_name() {
    let world = World::start().await;
    let site = world.site("a", Way::Https).await;
    let run = started(&world).await;
    let wire = open(&world, &site, Way::Https).await;
    let foreign = "0".repeat(31) + "1";
    for (body, says) in [
        ("{".to_owned(), "the body is not the message expected"),
        ("{}".to_owned(), "task: "),
        (format!("{{\"task\": \"{foreign}\", \"slots\": [{{}}]}}"), "manifest is missing"),
    ] {
        let (code, _) = post(&world, Some(&site), "/native/v1/submit", "", &body).await;
        assert_eq!(code, 400, "{body}");
        let seen = last_error(&world).await;
        assert!(seen.contains("a message was refused") && seen.contains(says), "{seen} / {says}");
    }
    assert!(refused(&world, run).await.is_empty());
    let entries =
        world.handle.journal(&world.operator, JournalId::Federation, 0, 1000, Span::default()).await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.kind == "message_refused").count(), 1, "one a minute");
    // Nothing of it has touched the task.
    assert_eq!(open(&world, &site, Way::Https).await.task, wire.task);
}

#[tokio::test]
async fn a_frame_that_is_no_message_is_noted_with_its_senders_name() {
    let world = World::start().await;
    let site = world.site("a", Way::Grpc).await;
    started(&world).await;
    let stream = hyper_util::rt::TokioIo::new(world.raw(Some(&site), b"h2").await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    world.scope.spawn_until_cancelled(async move { drop(connection.await) });
    // A frame of five bytes that protobuf cannot be.
    let body = Bytes::from_static(b"\0\0\0\0\x05\xff\xff\xff\xff\xff");
    let request = http::Request::post("https://localhost/sheaf.native.v1.Participant/Submit")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert!(response.headers().contains_key("grpc-status"));
    response.into_body().collect().await.unwrap();
    let seen = last_error(&world).await;
    assert!(seen.contains("a message was refused: "), "{seen}");
}
