//! What no client of ours sends: requests written by hand over a bare TLS connection.

use sheaf_domain::{Digest, TaskId};
use sheaf_messages::v1;
use sheaf_pki::{RequestParts, sign_request};
use sheaf_runtime::{Clock as _, OsEntropy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{Site, Way, World, order};

/// Sends `head` and `body` as they are, and reads one answer: its status, head and body.
async fn exchange(world: &World, site: Option<&Site>, head: &str, body: &[u8]) -> (u16, String, String) {
    let mut stream = world.raw(site, b"http/1.1").await;
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may refuse before it has read everything.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
        answer.push(byte[0]);
    }
    let text = String::from_utf8(answer).unwrap();
    let status = text.split(' ').nth(1).unwrap_or("0").parse().unwrap();
    let len = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; len.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (status, text, String::from_utf8_lossy(&body).into_owned())
}

async fn piece(world: &World, site: &Site, task: TaskId, digest: Digest, len: &str, body: &[u8]) -> u16 {
    let head = format!("PUT /native/v1/tasks/{task}/pieces/{digest} HTTP/1.1\r\nHost: x\r\n{len}\r\n");
    exchange(world, Some(site), &head, body).await.0
}

pub(crate) async fn post(
    world: &World,
    site: Option<&Site>,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    let len = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n{headers}\r\n");
    let (status, _, body) = exchange(world, site, &head, body.as_bytes()).await;
    (status, body)
}

async fn is_missing(world: &World, site: &Site, task: TaskId, digest: Digest) -> bool {
    let request = v1::MissingRequest { task: task.to_string(), digests: vec![digest.to_string()] };
    let reply = world.connect(site, Way::Https).missing(request).await.unwrap();
    !reply.digests.is_empty()
}

#[tokio::test]
async fn an_upload_is_what_it_declares_or_nothing() {
    let world = World::start().await;
    let site = world.site("a", Way::Https).await;
    world.run(1, 1).await;
    let task = order(&*world.connect(&site, Way::Https)).await.assignment.task;
    let body = b"a piece of a model".as_slice();
    let digest = Digest::of(body);
    let len = |len: usize| format!("Content-Length: {len}\r\n");
    assert_eq!(piece(&world, &site, task, digest, "", b"").await, 411);
    let chunked = "Transfer-Encoding: chunked\r\n";
    assert_eq!(piece(&world, &site, task, digest, chunked, b"1\r\na\r\n0\r\n\r\n").await, 411);
    assert_eq!(piece(&world, &site, task, digest, &len(body.len() - 1), body).await, 400);
    assert_eq!(piece(&world, &site, task, digest, &len(1 << 40), body).await, 400);
    assert_eq!(
        piece(&world, &site, task, digest, "Content-Length: 18446744073709551616\r\n", body).await,
        400
    );
    assert_eq!(piece(&world, &site, task, Digest::of(b"x"), &len(body.len()), body).await, 400);
    assert!(is_missing(&world, &site, task, digest).await);
    assert_eq!(piece(&world, &site, task, digest, &len(body.len()), body).await, 200);
    assert!(!is_missing(&world, &site, task, digest).await);
}

#[tokio::test]
async fn a_truncated_upload_leaves_nothing() {
    let world = World::start().await;
    let site = world.site("a", Way::Https).await;
    world.run(1, 1).await;
    let task = order(&*world.connect(&site, Way::Https)).await.assignment.task;
    let body = vec![7u8; 1 << 20];
    let digest = Digest::of(&body);
    let mut stream = world.raw(Some(&site), b"http/1.1").await;
    let head = format!(
        "PUT /native/v1/tasks/{task}/pieces/{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body[..body.len() / 2]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert!(is_missing(&world, &site, task, digest).await);
    // The bytes it had reserved are free again: the whole piece fits.
    let transport = world.connect(&site, Way::Https);
    transport.put_piece(task, digest, bytes::Bytes::from(body)).await.unwrap();
}

#[tokio::test]
async fn control_messages_are_bounded_and_named_when_wrong() {
    let world = World::start().await;
    let site = world.site("a", Way::Https).await;
    for bad in ["", "{", "[]", "[[], \"x\"]", "null", "{\"working\": 5}", "\u{0}"] {
        let (status, body) = post(&world, Some(&site), "/native/v1/beat", "", bad).await;
        assert_eq!(status, 400, "{bad:?}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["error"]["kind"], "invalid_argument");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    let (status, _) = post(&world, Some(&site), "/native/v1/beat", "", "{\"field_of_tomorrow\": 1}").await;
    assert_eq!(status, 200);
    let head = "POST /native/v1/beat HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n";
    assert_eq!(exchange(&world, Some(&site), head, b"").await.0, 413);
    let head = "POST /native/v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n";
    assert_eq!(exchange(&world, None, head, b"").await.0, 413);
    let head = "GET /native/v1/beat HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(exchange(&world, Some(&site), head, b"").await.0, 405);
    let head = "GET /native/v2/anything HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(exchange(&world, Some(&site), head, b"").await.0, 404);
}

#[tokio::test]
async fn ranges_are_served_as_http_has_them() {
    let world = World::start().await;
    let site = world.site("a", Way::Https).await;
    world.run(1, 1).await;
    let version = order(&*world.connect(&site, Way::Https)).await.inputs[0].input.version.clone();
    let total = crate::world::model_spec().byte_len();
    let path = format!("/native/v1/versions/{}/{}/{}/bytes", version.run, version.lineage, version.version);
    let get = async |range: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{range}\r\n");
        let (status, head, body) = exchange(&world, Some(&site), &head, b"").await;
        let content_range =
            head.lines().find_map(|line| line.strip_prefix("content-range: ")).map(str::to_owned);
        (status, content_range, body.len() as u64)
    };
    assert_eq!(get("").await, (200, None, total));
    assert_eq!(get("Range: bytes=5-9\r\n").await, (206, Some(format!("bytes 5-9/{total}")), 5));
    let last = format!("bytes {}-{}/{total}", total - 3, total - 1);
    assert_eq!(get("Range: bytes=-3\r\n").await, (206, Some(last), 3));
    let beyond = format!("Range: bytes={total}-\r\n");
    let (status, content_range, _) = get(&beyond).await;
    assert_eq!((status, content_range), (416, Some(format!("bytes */{total}"))));
}

/// The headers of a request signed by `site`.
fn signed(world: &World, site: &Site, method: &str, path: &str, body: &[u8]) -> Vec<(&'static str, String)> {
    let parts = RequestParts { trust_domain: "study", method, path_and_query: path };
    sign_request(&site.key, &site.name, &parts, &Digest::of(body), world.clock.now(), &OsEntropy).unwrap()
}

fn text(headers: &[(&'static str, String)]) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

#[tokio::test]
async fn a_signature_covers_method_path_body_and_is_good_once() {
    let world = World::start().await;
    let (site, other) = (world.site("a", Way::Https).await, world.site("b", Way::Https).await);
    let path = "/native/v1/beat";
    let beat = async |headers: String, body: &str| post(&world, None, path, &headers, body).await;
    let good = text(&signed(&world, &site, "POST", path, b"{}"));
    assert_eq!(beat(good.clone(), "{}").await.0, 200);
    assert_eq!(beat(good, "{}").await.0, 401, "the same request twice");
    let signed_for_other_body = text(&signed(&world, &site, "POST", path, b"{ }"));
    assert_eq!(beat(signed_for_other_body, "{}").await.0, 400);
    for (method, path) in [("PUT", path), ("POST", "/native/v1/leave"), ("POST", "/native/v1/beat?x")] {
        let headers = text(&signed(&world, &site, method, path, b"{}"));
        assert_eq!(beat(headers, "{}").await.0, 401, "signed for {method} {path}");
    }
    let mut as_other = signed(&world, &site, "POST", path, b"{}");
    as_other[0].1 = other.name.to_string();
    assert_eq!(beat(text(&as_other), "{}").await.0, 401, "another site's name");
    let mut tampered = signed(&world, &site, "POST", path, b"{}");
    let signature = &mut tampered.last_mut().unwrap().1;
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    signature.replace_range(..1, flipped);
    assert_eq!(beat(text(&tampered), "{}").await.0, 401, "another signature");
    let mut partial = signed(&world, &site, "POST", path, b"{}");
    partial.pop();
    assert_eq!(beat(text(&partial), "{}").await.0, 400, "a header is missing");
    let mut twice = signed(&world, &site, "POST", path, b"{}");
    twice.push(twice[0].clone());
    assert_eq!(beat(text(&twice), "{}").await.0, 400, "a header comes twice");
    world.revoke(&site.name).await;
    assert_eq!(beat(text(&signed(&world, &site, "POST", path, b"{}")), "{}").await.0, 403, "revoked");
}
