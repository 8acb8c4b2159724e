//! A coordinator in this process, and clients of the oldest kind that speak to its service.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use prost::Message as _;
use sheaf_blob::MemoryBlobs;
use sheaf_coordinator::{Coordinator, CreateRun, Dependencies, Handle, Relays, Settings};
use sheaf_domain::{
    ByteSize, Digest, Identity, JournalId, Role, RunId, RunStatus, SiteName, Span, Timestamp,
};
use sheaf_pki::{CertificateAuthority, EnrolmentLimiter, EnrolmentLimits, JournalSigner};
use sheaf_runtime::{Clock as _, Compute, ManualClock, OsEntropy, TaskScope};
use sheaf_store::{MailLimits, MemoryStore};
use sheaf_telemetry::Health;
use sheaf_tensor::{Dtype, TensorSpec, npy};
use sheaf_wire_flower::frames::{MessageFrames, grpc_frame};
use sheaf_wire_flower::legacy::{Join, JoinSettings, join_router};
use sheaf_wire_flower::proto::client_message::{
    DisconnectRes, EvaluateRes, FitRes, GetParametersRes, GetPropertiesRes, Msg as Answer,
};
use sheaf_wire_flower::proto::scalar::Scalar as Value;
use sheaf_wire_flower::proto::server_message::Msg as Order;
use sheaf_wire_flower::proto::{ClientMessage, Parameters, Scalar, ServerMessage, Status};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

/// The longest message in these tests, in bytes.
pub(crate) const MESSAGE_LEN_MAX: u64 = 8 << 20;

pub(crate) struct World {
    pub(crate) handle: Handle,
    pub(crate) operator: Identity,
    pub(crate) join: Join,
    pub(crate) relays: Relays,
    pub(crate) clock: Arc<ManualClock>,
    router: Router,
    _scope: TaskScope,
}

impl World {
    pub(crate) async fn start(name_property: Option<&str>) -> World {
        let clock = ManualClock::starting_at(Timestamp::from_millis(1_800_000_000_000));
        let ca = CertificateAuthority::create("study", Span::from_secs(86_400), clock.now()).unwrap();
        let scope = TaskScope::new();
        let dependencies = Dependencies {
            store: Arc::new(MemoryStore::new(MailLimits::default())),
            blob: Arc::new(MemoryBlobs::new(ByteSize::from_mib(256))),
            clock: Arc::<ManualClock>::clone(&clock),
            entropy: OsEntropy::shared(),
            compute: Compute::new(2),
            ca: Arc::new(ca),
            signer: Arc::new(JournalSigner::generate().unwrap()),
            limiter: EnrolmentLimiter::new(EnrolmentLimits::default()),
            health: Health::new(),
        };
        let coordinator = Coordinator::start(dependencies, Settings::default(), &scope).await.unwrap();
        let handle = coordinator.handle();
        let settings = JoinSettings {
            message_len_max: MESSAGE_LEN_MAX,
            name_property: name_property.map(str::to_owned),
        };
        let join = Join::new(handle.clone(), SiteName::new("local").unwrap(), settings);
        let operator = Identity {
            trust_domain: "study".to_owned(),
            name: SiteName::new("op").unwrap(),
            role: Role::Operator,
            key_fingerprint: Digest::of(b"operator"),
        };
        let (relays, router) = (coordinator.relays(), join_router(join.clone()));
        World { handle, operator, router, join, relays, clock, _scope: scope }
    }

    /// Starts a run; `plan` is what stands behind its first section.
    pub(crate) async fn run(&self, rounds: u32, plan: &str) -> RunId {
        let plan = format!("[run]\nname = \"x\"\nrounds = {rounds}\n{plan}");
        let request = CreateRun { plan, init: None, upload: None, from: None, app: None };
        self.handle.create_run(&self.operator, request).await.unwrap()
    }

    pub(crate) async fn status(&self, run: RunId) -> RunStatus {
        self.handle.status(&self.operator, run).await.unwrap()
    }

    /// Waits until something holds of a run.
    pub(crate) async fn until(&self, run: RunId, holds: impl Fn(&RunStatus) -> bool) -> RunStatus {
        let (mut after, hold) = (0, Span::from_secs(30));
        loop {
            let status = self.status(run).await;
            if holds(&status) {
                return status;
            }
            assert!(!status.phase.is_over(), "{status:?}");
            let journal = JournalId::Run(run);
            let entries = self.handle.journal(&self.operator, journal, after, 1, hold).await.unwrap();
            after = entries.last().map_or(after, |entry| entry.seq);
        }
    }

    pub(crate) async fn ended(&self, run: RunId) -> RunStatus {
        self.until(run, |status| status.phase.is_over()).await
    }

    /// A client that has opened its stream.
    pub(crate) async fn client(&self) -> Client {
        let (to, from) = mpsc::channel::<Bytes>(4);
        let pieces = futures_util::stream::unfold(from, |mut from| async move {
            Some((Ok::<_, std::io::Error>(from.recv().await?), from))
        });
        let request = Request::post("/flwr.proto.FlowerService/Join")
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .body(Body::from_stream(pieces))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let early = response.headers().clone();
        Client { to: Some(to), body: response.into_body(), frames: MessageFrames::new(1 << 30), early }
    }
}

/// A client by hand. Dropped, it is gone.
pub(crate) struct Client {
    pub(crate) to: Option<mpsc::Sender<Bytes>>,
    body: Body,
    frames: MessageFrames,
    early: HeaderMap,
}

impl Client {
    /// What it is told next.
    pub(crate) async fn told(&mut self) -> Order {
        loop {
            if let Some(message) = self.frames.take().unwrap() {
                return ServerMessage::decode(message).unwrap().msg.unwrap();
            }
            let frame = self.body.frame().await.expect("the stream goes on").unwrap();
            self.frames.feed(&frame.into_data().expect("no trailers yet"));
        }
    }

    /// The status its stream ends with, and what it says.
    pub(crate) async fn end(mut self) -> (String, String) {
        let mut trailers = self.early.clone();
        while let Some(frame) = self.body.frame().await {
            match frame.unwrap().into_trailers() {
                Ok(found) => trailers = found,
                Err(frame) => assert!(frame.into_data().unwrap().is_empty(), "it is told no more"),
            }
        }
        let text = |name: &str| {
            trailers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        (text("grpc-status"), text("grpc-message"))
    }

    pub(crate) async fn say(&self, answer: Answer) {
        let message = ClientMessage { msg: Some(answer) }.encode_to_vec();
        self.send(grpc_frame(&message).unwrap()).await;
    }

    /// Sends bytes in pieces of an odd length.
    pub(crate) async fn send(&self, bytes: Bytes) {
        let to = self.to.as_ref().unwrap();
        for piece in bytes.chunks(70_001) {
            if to.send(Bytes::copy_from_slice(piece)).await.is_err() {
                return;
            }
        }
    }

    /// Takes part with an addition of `step` and a loss of the first element, until it is sent away.
    pub(crate) async fn take_part(mut self, step: f32, examples: i64) {
        loop {
            match self.told().await {
                Order::GetParametersIns(_) => self.say(parameters(&[array(&[0.0, 1.0, 2.0])])).await,
                Order::FitIns(ins) => {
                    let moved: Vec<f32> = floats(&ins.parameters.unwrap().tensors[0]);
                    let moved: Vec<f32> = moved.into_iter().map(|value| value + step).collect();
                    self.say(fit(&[array(&moved)], examples)).await;
                }
                Order::EvaluateIns(ins) => {
                    let loss = floats(&ins.parameters.unwrap().tensors[0])[0];
                    self.say(evaluate(loss, examples, &[("accuracy", f64::from(step))])).await;
                }
                Order::ReconnectIns(ins) => {
                    assert_eq!(ins.seconds, 0);
                    self.say(Answer::DisconnectRes(DisconnectRes { reason: 4 })).await;
                    assert_eq!(self.end().await.0, "0");
                    return;
                }
                Order::GetPropertiesIns(_) => {
                    panic!("nobody asked for properties")
                }
            }
        }
    }
}

pub(crate) fn array(values: &[f32]) -> Bytes {
    let spec = TensorSpec::new("x", Dtype::F32, [values.len() as u64]).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut file = Vec::new();
    npy::write(&spec, &bytes, &mut file).unwrap();
    file.into()
}

pub(crate) fn floats(file: &Bytes) -> Vec<f32> {
    let (dtype, _, bytes) = npy::read(file.clone()).unwrap();
    assert_eq!(dtype, Dtype::F32);
    bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

fn of(tensors: &[Bytes]) -> Option<Parameters> {
    Some(Parameters { tensors: tensors.to_vec(), tensor_type: "numpy.ndarray".to_owned() })
}

pub(crate) fn parameters(tensors: &[Bytes]) -> Answer {
    Answer::GetParametersRes(GetParametersRes { status: ok(), parameters: of(tensors) })
}

pub(crate) fn fit(tensors: &[Bytes], num_examples: i64) -> Answer {
    let metrics = [("half".to_owned(), Scalar { scalar: Some(Value::Double(0.5)) })].into();
    Answer::FitRes(FitRes { status: ok(), parameters: of(tensors), num_examples, metrics })
}

pub(crate) fn evaluate(loss: f32, num_examples: i64, metrics: &[(&str, f64)]) -> Answer {
    let scalar = |value: f64| Scalar { scalar: Some(Value::Double(value)) };
    let metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), scalar(*value))).collect();
    Answer::EvaluateRes(EvaluateRes { status: ok(), loss, num_examples, metrics })
}

pub(crate) fn properties(name: &str) -> Answer {
    let name = Scalar { scalar: Some(Value::String(name.to_owned())) };
    Answer::GetPropertiesRes(GetPropertiesRes {
        status: ok(),
        properties: [("site".to_owned(), name)].into(),
    })
}

fn ok() -> Option<Status> {
    Some(Status { code: 0, message: "Success".to_owned() })
}
