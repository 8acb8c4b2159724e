//! The routes over a coordinator in memory, called without a network.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sheaf_admin_api::{ROUTES, router};
use sheaf_blob::MemoryBlobs;
use sheaf_coordinator::{Coordinator, Dependencies, Settings};
use sheaf_domain::{ByteSize, Digest, Identity, Manifest, Role, SiteName, Span, Timestamp};
use sheaf_pki::{CertificateAuthority, EnrolmentLimiter, EnrolmentLimits, JournalSigner, Kit, Peer};
use sheaf_runtime::{Clock as _, Compute, ManualClock, OsEntropy, TaskScope};
use sheaf_store::{MailLimits, MemoryStore};
use sheaf_telemetry::Health;
use sheaf_tensor::{Dtype, TensorSpec};
use tower::ServiceExt as _;

const PLAN: &str = "[run]\nname = \"digits\"\nrounds = 2\n";

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Operator,
    Participant,
    Nobody,
}

struct Api {
    router: Router,
    /// Ends the coordinator with the test.
    _coordinator: Coordinator,
}

struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn refusal(&self) -> (u16, String, String) {
        let error = &self.json()["error"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (self.status.as_u16(), text(&error["kind"]), text(&error["message"]))
    }
}

impl Api {
    async fn start() -> Api {
        let clock = ManualClock::starting_at(Timestamp::from_millis(1_800_000_000_000));
        let ca =
            CertificateAuthority::create("study", Span::from_secs(365 * 24 * 3600), clock.now()).unwrap();
        let dependencies = Dependencies {
            store: Arc::new(MemoryStore::new(MailLimits::default())),
            blob: Arc::new(MemoryBlobs::new(ByteSize::from_mib(8))),
            clock,
            entropy: OsEntropy::shared(),
            compute: Compute::new(1),
            ca: Arc::new(ca),
            signer: Arc::new(JournalSigner::generate().unwrap()),
            limiter: EnrolmentLimiter::new(EnrolmentLimits::default()),
            health: Health::new(),
        };
        let settings = Settings { advertised: vec!["localhost:1".to_owned()], ..Settings::default() };
        let coordinator = Coordinator::start(dependencies, settings, &TaskScope::new()).await.unwrap();
        Api { router: router(coordinator.handle()), _coordinator: coordinator }
    }

    async fn send(&self, who: Who, mut request: Request<Body>) -> Answer {
        let peer = |role| Peer {
            identity: Identity {
                trust_domain: "study".to_owned(),
                name: SiteName::new("someone").unwrap(),
                role,
                key_fingerprint: Digest::of(b"key"),
            },
            not_after: Timestamp::from_millis(u64::MAX),
        };
        match who {
            Who::Operator => drop(request.extensions_mut().insert(peer(Role::Operator))),
            Who::Participant => drop(request.extensions_mut().insert(peer(Role::Participant))),
            Who::Nobody => {}
        }
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        Answer { status, body: response.into_body().collect().await.unwrap().to_bytes().to_vec() }
    }

    async fn call(&self, who: Who, method: &str, path: &str, body: Option<Value>) -> Answer {
        let builder =
            Request::builder().method(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap());
        let builder = builder.uri(format!("/admin/v1{path}"));
        let request = match body {
            Some(body) => builder
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(serde_json::to_vec(&body).unwrap())),
            None => builder.body(Body::empty()),
        };
        self.send(who, request.unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Who::Operator, "get", path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Who::Operator, "post", path, Some(body)).await
    }

    async fn put(&self, path: &str, len: Option<usize>, bytes: &[u8]) -> Answer {
        let mut builder = Request::builder().method(Method::PUT).uri(format!("/admin/v1{path}"));
        if let Some(len) = len {
            builder = builder.header(header::CONTENT_LENGTH, len);
        }
        self.send(Who::Operator, builder.body(Body::from(bytes.to_vec())).unwrap()).await
    }
}

/// A body each route would take.
fn body_for(path: &str) -> Option<Value> {
    match path.rsplit('/').next().unwrap() {
        "runs" => Some(json!({ "plan": PLAN })),
        "check" => Some(json!({ "plan": PLAN })),
        "stop" | "revoke" | "remove" => Some(json!({})),
        "extend" => Some(json!({ "rounds": 1 })),
        "invites" => Some(json!({ "site": "ward", "ttl": "1h" })),
        "approve" if path.contains("/logins/") => Some(json!({ "name": "alice", "validity": "1h" })),
        "approve" => Some(json!({ "fingerprint": Digest::of(b"x") })),
        "backups" => Some(json!({ "dir": "/nowhere/backup" })),
        _ => None,
    }
}

#[tokio::test]
async fn every_route_is_for_operators_only() {
    let api = Api::start().await;
    for (method, path) in ROUTES {
        if path.ends_with("openapi.json") {
            continue;
        }
        let concrete = path
            .trim_start_matches("/admin/v1")
            .replace("{run}", "0000000000000001")
            .replace("{which}", "last")
            .replace("{journal}", "federation")
            .replace("{upload}", "first")
            .replace("{digest}", &Digest::of(b"").to_string())
            .replace("{site}", "ward")
            .replace("{login}", "alice");
        let body = if method == "post" { body_for(path) } else { None };
        for (who, expected) in [(Who::Nobody, 401), (Who::Participant, 403)] {
            let answer = if method == "put" {
                let builder = Request::builder().method(Method::PUT).uri(format!("/admin/v1{concrete}"));
                api.send(who, builder.header(header::CONTENT_LENGTH, 0).body(Body::empty()).unwrap()).await
            } else {
                api.call(who, method, &concrete, body.clone()).await
            };
            assert_eq!(answer.refusal().0, expected, "{who:?} {method} {path}");
        }
        let answer = match method {
            "put" => api.put(&concrete, Some(0), b"").await,
            _ => api.call(Who::Operator, method, &concrete, body).await,
        };
        assert!(
            ![401, 403, 405, 415].contains(&answer.status.as_u16()),
            "{method} {path}: {}",
            answer.status
        );
    }
    let document = api.call(Who::Nobody, "get", "/openapi.json", None).await;
    assert_eq!(document.status, StatusCode::OK);
    assert_eq!(document.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn a_run_is_created_watched_extended_and_stopped() {
    let api = Api::start().await;
    let summary = api.post("/plans/check", json!({ "plan": PLAN })).await.json();
    assert!(summary["summary"].as_str().unwrap().contains("digits"), "{summary}");
    assert_eq!(summary["waits"].as_array().unwrap().len(), 1);

    let created = api.post("/runs", json!({ "plan": PLAN })).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let run = created.json()["run"].as_str().unwrap().to_owned();
    let status = api.get("/runs/digits").await.json();
    assert_eq!((&status["run"], &status["phase"]), (&json!(run), &json!("running")));
    assert_eq!(status["waits"][0]["wait"], "participants");
    assert_eq!(api.get("/runs").await.json().as_array().unwrap().len(), 1);
    let extended = api.post(&format!("/runs/{run}/extend"), json!({ "rounds": 3 })).await.json();
    assert_eq!(extended["rounds"], 5);
    let stopped = api.post(&format!("/runs/{}/stop", &run[..8]), json!({ "reason": "enough" })).await.json();
    assert_eq!(stopped["reason"], "someone: enough");
    let again = api.post(&format!("/runs/{run}/stop"), json!({})).await;
    assert_eq!(again.refusal().0, 409);

    let entries = api.get(&format!("/journals/{run}?after=0&limit=2")).await.json();
    let kinds: Vec<&str> =
        entries["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["created", "extended"]);
    let head = api.get(&format!("/journals/{run}/head")).await.json();
    assert_eq!(head["seq"], 3);
    assert!(head["public_key"].as_str().unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
    let replayed = api.call(Who::Operator, "post", &format!("/runs/{run}/replay"), None).await.json();
    assert_eq!((&replayed["entries"], &replayed["rounds"]), (&json!(3), &json!([])));
    assert_eq!(api.get(&format!("/runs/{run}/models/last")).await.refusal().0, 404);
    assert_eq!(api.get(&format!("/runs/{run}/models/first")).await.refusal().0, 400);
    assert_eq!(api.get("/runs/nobody").await.refusal().0, 404);
}

#[tokio::test]
async fn a_first_model_goes_up_in_pieces_and_comes_back() {
    let api = Api::start().await;
    let bytes: Vec<u8> = [1.0_f32, -2.0, 0.5].iter().flat_map(|value| value.to_le_bytes()).collect();
    let digest = Digest::of(&bytes);
    let path = format!("/uploads/first/pieces/{digest}");
    let missing = api.put(&path, None, &bytes).await.refusal();
    assert_eq!((missing.0, missing.2.contains("Content-Length")), (400, true));
    let lying = api.put(&path, Some(5), &bytes).await.refusal();
    assert_eq!(lying.0, 400, "{lying:?}");
    let other = api.put(&format!("/uploads/first/pieces/{}", Digest::of(b"x")), Some(12), &bytes).await;
    assert_eq!(other.refusal().0, 400);
    assert_eq!(api.put("/uploads/first/pieces/zz", Some(12), &bytes).await.refusal().0, 400);
    assert_eq!(api.put(&format!("/uploads/a.b/pieces/{digest}"), Some(12), &bytes).await.refusal().0, 400);
    assert_eq!(api.put(&path, Some(12), &bytes).await.status, StatusCode::CREATED);

    let spec = TensorSpec::new("w", Dtype::F32, [3]).unwrap();
    let init = Manifest::over_pieces(vec![spec], 12, &[digest]).unwrap();
    let plan = format!("{PLAN}[model]\ninit = \"first.npz\"\n");
    let created = api.post("/runs", json!({ "plan": plan, "init": init, "upload": "first" })).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let model = api.get("/runs/digits/models/0").await.json();
    assert_eq!((&model["bytes"], &model["tensors"][0]["name"]), (&json!(12), &json!("w")));
    assert_eq!(api.get("/runs/digits/models/last/bytes").await.body, bytes);
    assert_eq!(api.get("/runs/digits/models/last/bytes?offset=4").await.body, bytes[4..]);
    assert!(api.get("/runs/digits/models/last/bytes?offset=12").await.body.is_empty());
    assert_eq!(api.get("/runs/digits/models/last/bytes?offset=13").await.refusal().0, 400);
    assert_eq!(api.get("/runs/digits/models/last/bytes?from=4").await.refusal().0, 400);
}

#[tokio::test]
async fn sites_are_invited_and_shut_out() {
    let api = Api::start().await;
    let invited = api.post("/invites", json!({ "site": "ward", "ttl": "2h", "approve": true })).await;
    assert_eq!(invited.status, StatusCode::CREATED);
    let kit = Kit::parse(invited.json()["kit"].as_str().unwrap()).unwrap();
    assert_eq!(kit.site.as_str(), "ward");
    let sites = api.get("/sites").await.json();
    assert_eq!((&sites[0]["name"], &sites[0]["state"]), (&json!("ward"), &json!("invited")));
    let unknown = api.post("/sites/lab/approve", json!({ "fingerprint": Digest::of(b"x") })).await;
    assert_eq!(unknown.refusal().0, 404);
    assert_eq!(api.post("/sites/ward/revoke", json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.get("/sites").await.json(), json!([]));
    assert_eq!(api.post("/sites/ward/revoke", json!({})).await.refusal().0, 404);
    assert_eq!(api.post("/sites/..%2F/revoke", json!({})).await.refusal().0, 400);
    let who = api.get("/whoami").await.json();
    assert_eq!((&who["name"], &who["role"]), (&json!("someone"), &json!("operator")));
}

#[tokio::test]
async fn bodies_that_are_wrong_are_refused_by_name() {
    let api = Api::start().await;
    for (path, body, says) in [
        ("/runs", json!({ "plan": PLAN, "plna": 1 }), "plna"),
        ("/runs", json!({ "plan": "[run]\nronds = 2\n" }), "line"),
        ("/runs", json!({}), "plan"),
        ("/runs/digits/extend", json!({ "rounds": -1 }), "rounds"),
        ("/invites", json!({ "site": "a b", "ttl": "1h" }), "site name"),
        ("/invites", json!({ "site": "ward", "ttl": "soon" }), "duration"),
        ("/invites", json!({ "site": "ward", "ttl": "1h", "role": "operator" }), "role"),
        ("/backups", json!({ "dir": "here" }), "absolute"),
    ] {
        let (status, kind, message) = api.post(path, body).await.refusal();
        assert_eq!((status, kind.as_str()), (400, "invalid_argument"), "{path}: {message}");
        assert!(message.contains(says), "{message} / {says}");
    }
    let raw = |content_type: &str, body: &'static str| {
        let builder = Request::builder().method(Method::POST).uri("/admin/v1/runs");
        builder.header(header::CONTENT_TYPE, content_type).body(Body::from(body)).unwrap()
    };
    assert_eq!(api.send(Who::Operator, raw("application/json", "{\"plan\":")).await.refusal().0, 400);
    assert_eq!(api.send(Who::Operator, raw("text/plain", "{}")).await.refusal().0, 400);
    assert_eq!(api.get("/journals/federation?limit=many").await.refusal().0, 400);
    // The plan that was refused is on record; what was no request at all is not.
    let entries = api.get("/journals/federation").await.json();
    assert_eq!(entries["entries"].as_array().unwrap().len(), 1);
    assert_eq!(entries["entries"][0]["kind"], "plan_refused");
}
