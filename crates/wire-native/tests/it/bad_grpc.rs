//! What no client of ours sends: uploads out of order, and lengths that lie, over gRPC.

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use sheaf_domain::{Digest, TaskId};
use sheaf_messages::v1::participant_client::ParticipantClient;
use sheaf_messages::{bounds, v1};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::world::{Site, Way, World, order};

async fn client(world: &World, site: &Site) -> ParticipantClient<Channel> {
    let stream = std::sync::Mutex::new(Some(world.raw(Some(site), b"h2").await));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.lock().unwrap().take();
        async move { stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("one connection only")) }
    });
    let endpoint = Endpoint::from_static("https://localhost");
    ParticipantClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

fn header(task: TaskId, digest: Digest, length: u64) -> v1::PutPieceRequest {
    let header = v1::PieceHeader { task: task.to_string(), digest: digest.to_string(), length };
    v1::PutPieceRequest { header: Some(header), chunk: Bytes::new() }
}

fn chunk(bytes: &[u8]) -> v1::PutPieceRequest {
    v1::PutPieceRequest { header: None, chunk: Bytes::copy_from_slice(bytes) }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    let kind = status.metadata().get("sheaf-error-kind").map(|kind| kind.to_str().unwrap().to_owned());
    (status.code(), kind.unwrap_or_default())
}

#[tokio::test]
async fn an_upload_is_what_its_header_declares_or_nothing() {
    let world = World::start().await;
    let site = world.site("a", Way::Grpc).await;
    world.run(1, 1).await;
    let transport = world.connect(&site, Way::Grpc);
    let task = order(&*transport).await.assignment.task;
    let mut client = client(&world, &site).await;
    let body = b"a piece of a model".as_slice();
    let (digest, len) = (Digest::of(body), body.len() as u64);
    let wrong: Vec<Vec<v1::PutPieceRequest>> = vec![
        vec![],
        vec![chunk(body)],
        vec![header(task, digest, len), chunk(&body[1..])],
        vec![header(task, digest, len - 1), chunk(body)],
        vec![header(task, digest, len), chunk(body), chunk(body)],
        vec![header(task, digest, len), header(task, digest, len), chunk(body)],
        vec![header(task, digest, 0)],
        vec![header(task, digest, u64::MAX), chunk(body)],
        vec![header(task, digest, 1 << 20), chunk(&vec![0; bounds::CHUNK_LEN_MAX + 1])],
    ];
    for (idx, messages) in wrong.into_iter().enumerate() {
        let answer = client.put_piece(tokio_stream::iter(messages)).await;
        let (code, kind) = refused(answer);
        assert_eq!((code, kind.as_str()), (Code::InvalidArgument, "invalid_argument"), "case {idx}");
    }
    let asked = v1::MissingRequest { task: task.to_string(), digests: vec![digest.to_string()] };
    assert_eq!(client.missing(asked.clone()).await.unwrap().into_inner().digests.len(), 1);
    let right = vec![header(task, digest, len), chunk(&body[..5]), chunk(&body[5..])];
    client.put_piece(tokio_stream::iter(right)).await.unwrap();
    assert!(client.missing(asked).await.unwrap().into_inner().digests.is_empty());
}

#[tokio::test]
async fn identifiers_that_are_none_are_refused() {
    let world = World::start().await;
    let site = world.site("a", Way::Grpc).await;
    let mut client = client(&world, &site).await;
    let beat = v1::BeatRequest { working: vec!["../../etc/passwd".to_owned()], client: String::new() };
    assert_eq!(refused(client.beat(beat).await).0, Code::InvalidArgument);
    let read = v1::ReadVersionRequest { version: None, offset: 0, length: 1 };
    assert_eq!(refused(client.read_version(read).await).0, Code::InvalidArgument);
    let version = v1::Version { run: "0".repeat(16), lineage: "global".to_owned(), version: 0 };
    let read = v1::ReadVersionRequest { version: Some(version), offset: 0, length: 1 };
    assert_eq!(refused(client.read_version(read).await).0, Code::InvalidArgument);
    let version = v1::Version { run: "1".repeat(16), lineage: "global".to_owned(), version: 0 };
    let read = v1::ReadVersionRequest { version: Some(version), offset: 0, length: bounds::READ_LEN_MAX + 1 };
    assert_eq!(refused(client.read_version(read).await).0, Code::InvalidArgument);
    let missing =
        v1::MissingRequest { task: "0".repeat(32), digests: vec!["0".repeat(64); bounds::DIGESTS_MAX + 1] };
    assert_eq!(refused(client.missing(missing).await).0, Code::InvalidArgument);
    let submit = v1::SubmitRequest {
        task: "0".repeat(32),
        slots: vec![v1::SubmittedSlot::default()],
        ..Default::default()
    };
    assert_eq!(refused(client.submit(submit).await).0, Code::InvalidArgument);
}
