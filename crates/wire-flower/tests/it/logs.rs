//! The log of a run as the `flwr` command follows it, by an operator who logged in.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use prost::Message as _;
use sheaf_coordinator::NewRelay;
use sheaf_domain::{SiteName, Span};
use sheaf_wire_flower::frames::grpc_frame;
use sheaf_wire_flower::proto::{StreamLogsRequest, StreamLogsResponse};
use sheaf_wire_flower::{Flower, FlowerSettings, Served, router};
use tower::ServiceExt as _;

use crate::world::World;

fn alice() -> SiteName {
    SiteName::new("alice").unwrap()
}

async fn token(world: &World) -> String {
    let peer = std::net::IpAddr::from([192, 0, 2, 1]);
    let request = world.relays.request_login(peer).unwrap();
    let day = Span::from_secs(86_400);
    world.handle.approve_login(&world.operator, &request.code, alice(), day).unwrap();
    let token = world.relays.complete_login(request.secret.reveal()).await.unwrap().unwrap();
    token.reveal().to_owned()
}

fn served(world: &World) -> Router {
    let settings = FlowerSettings { operator_login: true, ..FlowerSettings::default() };
    let clock = std::sync::Arc::<sheaf_runtime::ManualClock>::clone(&world.clock);
    let flower = Flower::new(world.relays.clone(), clock, settings, SiteName::new("local").unwrap());
    router(flower, Served { fleet: false, control: true, runtime: false })
}

async fn ask(router: &Router, path: &str, kind: &str, token: &str, body: Bytes) -> Response<Body> {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, kind)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::from(body))
        .unwrap();
    router.clone().oneshot(request).await.unwrap()
}

/// The text of the next frame, whose prefix has `prefix_len` bytes.
fn text(frame: http_body::Frame<Bytes>, prefix_len: usize) -> String {
    let mut data = frame.into_data().unwrap();
    StreamLogsResponse::decode(data.split_off(prefix_len)).unwrap().log_output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_ends_by_name_when_the_login_of_its_reader_ends() {
    let world = World::start(None).await;
    let router = served(&world);
    let new = NewRelay { bundle: Bytes::from_static(b"bundle"), header: "demo".to_owned() };
    let run = world.relays.create(&world.operator, new).await.unwrap();
    let asked: Bytes = StreamLogsRequest { run_id: run.get(), after_timestamp: 0.0 }.encode_to_vec().into();

    let (path, kind) = ("/v1/control/stream-logs", "application/protobuf");
    let alices = token(&world).await;
    let answer = ask(&router, path, kind, &alices, asked.clone()).await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    // There is no line, so that the stream waits for one.
    let ended = async {
        world.handle.end_login(&world.operator, &alice()).await.unwrap();
    };
    let (last, ()) = tokio::join!(body.frame(), ended);
    let last = text(last.unwrap().unwrap(), 4);
    assert!(last.contains("not shown any further") && last.contains("this login has ended"), "{last}");
    assert!(body.frame().await.unwrap().is_err(), "it is no log that was read to its end");
    assert_eq!(ask(&router, path, kind, &alices, asked.clone()).await.status(), 401);

    // The same over gRPC, by the clock.
    let (path, kind) = ("/flwr.proto.Control/StreamLogs", "application/grpc");
    let alices = token(&world).await;
    let answer = ask(&router, path, kind, &alices, grpc_frame(&asked).unwrap()).await;
    let mut body = answer.into_body();
    world.clock.advance(Span::from_secs(86_400));
    let last = text(body.frame().await.unwrap().unwrap(), 5);
    assert!(last.contains("this login has ended"), "{last}");
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "16");
    assert!(body.frame().await.is_none());
}
