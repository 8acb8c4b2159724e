//! The messages of the native protocol: one list for both transports, with what each means to the domain.
//!
//! The meaning of a message is its translation to the domain and back: its canonical form. It is a fixed point: the canonical
//! form means itself.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sheaf_domain::{Assignment, InputSlot, OutputSlot, Span};
use sheaf_domain::{
    ConfigMap, ConfigValue, Digest, LineageName, Manifest, Metrics, Refusal, RunId, SiteName,
};
use sheaf_domain::{
    SlotName, SlotRole, StageName, Submission, SubmitOutcome, SubmittedSlot, TaskId, VersionRef,
};
use sheaf_messages::{self as messages, Error, Filled, Listed, Order, Wanted, Withdrawal, bounds, v1};
use sheaf_tensor::{Dtype, TensorSpec};

use crate::target::Verdict;

/// Anything that travels.
pub(super) trait Travels: Message + Default + Clone + Listed + Serialize + DeserializeOwned {}
impl<M: Message + Default + Clone + Listed + Serialize + DeserializeOwned> Travels for M {}

/// Something done once for each message; `meaning` gives its canonical form.
pub(super) trait Visitor {
    /// Does it for one.
    fn visit<M: Travels>(&mut self, meaning: fn(&M) -> Result<M, Error>) -> Verdict;
}

/// How many messages there are.
pub(super) const COUNT: usize = 18;

/// Does it for the message `chosen`.
pub(super) fn visit(chosen: usize, visitor: &mut impl Visitor) -> Verdict {
    match chosen {
        0 => visitor.visit::<v1::SubmitRequest>(|m| {
            Ok(messages::submission_to_wire(&messages::submission_from_wire(m.clone())?))
        }),
        1 => visitor.visit::<v1::NextReply>(next_reply),
        2 => visitor.visit::<v1::WorkOrder>(|m| Order::from_wire(m)?.to_wire()),
        3 => visitor.visit::<v1::MissingRequest>(|m| {
            Ok(v1::MissingRequest {
                task: messages::task(&m.task)?.to_string(),
                digests: digests(&m.digests)?,
            })
        }),
        4 => visitor.visit::<v1::MissingReply>(|m| Ok(v1::MissingReply { digests: digests(&m.digests)? })),
        5 => visitor.visit::<v1::SubmitReply>(|m| {
            Ok(messages::outcome_to_wire(&messages::outcome_from_wire(m.clone())?))
        }),
        6 => visitor.visit::<v1::ReadVersionRequest>(|m| {
            let version = messages::version_from_wire(m.version.as_ref())?;
            Ok(v1::ReadVersionRequest { version: Some(messages::version_to_wire(&version)), ..*m })
        }),
        7 => visitor.visit::<v1::BeatRequest>(|m| {
            let client = messages::bounded("client", &m.client, bounds::CLIENT_LEN_MAX)?.to_owned();
            Ok(v1::BeatRequest { working: tasks(&m.working)?, client })
        }),
        8 => visitor
            .visit::<v1::NextRequest>(|m| Ok(v1::NextRequest { have: tasks(&m.have)?, hold_ms: m.hold_ms })),
        9 => visitor.visit::<v1::FailRequest>(|m| {
            let reason = messages::bounded("reason", &m.reason, bounds::REASON_LEN_MAX)?.to_owned();
            Ok(v1::FailRequest { task: messages::task(&m.task)?.to_string(), reason })
        }),
        10 => visitor.visit::<v1::PutPieceRequest>(piece),
        11 => visitor.visit::<v1::BeatReply>(|m| {
            Ok(v1::BeatReply { beat_every_ms: m.beat_every_ms, withdrawn: withdrawn(&m.withdrawn)? })
        }),
        12 => visitor.visit::<v1::EnrolRequest>(|m| {
            messages::bounded("token", &m.token, bounds::TOKEN_LEN_MAX)?;
            messages::bounded("csr_pem", &m.csr_pem, bounds::CSR_LEN_MAX)?;
            Ok(m.clone())
        }),
        13 => visitor.visit::<v1::EnrolReply>(|m| Ok(m.clone())),
        14 => visitor.visit::<v1::RenewRequest>(|m| Ok(m.clone())),
        15 => visitor.visit::<v1::RenewReply>(|m| Ok(m.clone())),
        16 => visitor.visit::<v1::ReadVersionReply>(|m| Ok(m.clone())),
        _ => visitor
            .visit::<v1::Manifest>(|m| Ok(messages::manifest_to_wire(&messages::manifest_from_wire(m)?))),
    }
}

fn tasks(texts: &[String]) -> Result<Vec<String>, Error> {
    Ok(messages::tasks(texts)?.iter().map(TaskId::to_string).collect())
}

fn digests(texts: &[String]) -> Result<Vec<String>, Error> {
    Ok(messages::digests(texts)?.iter().map(Digest::to_string).collect())
}

fn withdrawn(list: &[v1::Withdrawn]) -> Result<Vec<v1::Withdrawn>, Error> {
    list.iter().map(|one| Ok(Withdrawal::from_wire(one)?.to_wire())).collect()
}

fn next_reply(m: &v1::NextReply) -> Result<v1::NextReply, Error> {
    let work = m.work.iter().map(|order| Order::from_wire(order)?.to_wire()).collect::<Result<_, _>>()?;
    Ok(v1::NextReply { work, withdrawn: withdrawn(&m.withdrawn)? })
}

fn piece(m: &v1::PutPieceRequest) -> Result<v1::PutPieceRequest, Error> {
    if let Some(header) = &m.header {
        messages::task(&header.task)?;
        messages::digest(&header.digest)?;
    }
    Ok(m.clone())
}

/// Encodes the samples of every message, with its number.
pub(super) fn samples(encode: impl Encode) -> Vec<Vec<u8>> {
    let mut samples = Samples { encode, made: Vec::new() };
    let submission = submission();
    samples.add(0, &messages::submission_to_wire(&submission));
    let order = order().to_wire().unwrap_or_default();
    let gone = v1::Withdrawn { task: task().to_string(), reason: "the stage closed".to_owned() };
    samples.add(1, &v1::NextReply { work: vec![order.clone()], withdrawn: vec![gone.clone()] });
    samples.add(2, &order);
    let (task, digest) = (task().to_string(), Digest::of(b"piece").to_string());
    samples.add(3, &v1::MissingRequest { task: task.clone(), digests: vec![digest.clone(); 2] });
    samples.add(4, &v1::MissingReply { digests: vec![digest.clone()] });
    for outcome in outcomes() {
        samples.add(5, &messages::outcome_to_wire(&outcome));
    }
    let version = Some(messages::version_to_wire(&version()));
    samples.add(6, &v1::ReadVersionRequest { version, offset: 4_096, length: 1 << 20 });
    samples.add(7, &v1::BeatRequest { working: vec![task.clone()], client: "sheaf 1".to_owned() });
    samples.add(8, &v1::NextRequest { have: vec![task.clone()], hold_ms: 30_000 });
    samples.add(9, &v1::FailRequest { task: task.clone(), reason: "out of memory".to_owned() });
    let header = Some(v1::PieceHeader { task, digest, length: 3 });
    samples.add(10, &v1::PutPieceRequest { header, chunk: bytes::Bytes::new() });
    samples.add(10, &v1::PutPieceRequest { header: None, chunk: bytes::Bytes::from_static(b"abc") });
    samples.add(11, &v1::BeatReply { beat_every_ms: 5_000, withdrawn: vec![gone] });
    samples.add(12, &v1::EnrolRequest { token: "sheaf1-x".to_owned(), csr_pem: "-----BEGIN".to_owned() });
    let certificate = Some(v1::Certificate { not_after_ms: 1, ..v1::Certificate::default() });
    let state = "issued".to_owned();
    samples.add(13, &v1::EnrolReply { state, certificate: certificate.clone(), fingerprint: String::new() });
    samples.add(14, &v1::RenewRequest { csr_pem: "-----BEGIN".to_owned() });
    samples.add(15, &v1::RenewReply { certificate });
    samples.add(16, &v1::ReadVersionReply { content: bytes::Bytes::from_static(&[0, 1, 2, 255]) });
    if let Some(slot) = submission.slots.first() {
        samples.add(17, &messages::manifest_to_wire(&slot.manifest));
    }
    samples.made
}

/// An encoding of messages.
pub(super) trait Encode {
    /// The bytes of one.
    fn encode<M: Travels>(&self, message: &M) -> Vec<u8>;
}

struct Samples<E> {
    encode: E,
    made: Vec<Vec<u8>>,
}

impl<E: Encode> Samples<E> {
    fn add<M: Travels>(&mut self, number: usize, message: &M) {
        self.made.push(super::chosen(number, &self.encode.encode(message)));
    }
}

#[expect(clippy::expect_used, reason = "fixed names and shapes that are known to be good")]
mod fixed {
    //! Values of the domain that samples are made of.

    use super::*;

    pub(super) fn run() -> RunId {
        RunId::new(7).expect("it is not zero")
    }

    pub(super) fn stage() -> StageName {
        StageName::new("train").expect("it is a name")
    }

    pub(super) fn site() -> SiteName {
        SiteName::new("berlin").expect("it is a name")
    }

    pub(super) fn task() -> TaskId {
        TaskId::derive(run(), 4, &stage(), &site(), 1)
    }

    pub(super) fn slot() -> SlotName {
        SlotName::new("model").expect("it is a name")
    }

    pub(super) fn specs() -> Vec<TensorSpec> {
        let of = |name, dtype, dims: &[u64]| TensorSpec::new(name, dtype, dims).expect("it is a tensor");
        vec![of("w", Dtype::F32, &[2, 3]), of("scale", Dtype::Bf16, &[]), of("none", Dtype::U8, &[0])]
    }

    pub(super) fn manifest() -> Manifest {
        Manifest::over_pieces(specs(), 16, &[Digest::of(b"a"), Digest::of(b"b")])
            .expect("26 bytes in two pieces")
    }
}
use fixed::{manifest, run, site, slot, specs, stage, task};

fn version() -> VersionRef {
    VersionRef { run: run(), lineage: LineageName::global(), version: 3 }
}

fn submission() -> Submission {
    Submission {
        task: task(),
        slots: vec![SubmittedSlot { slot: slot(), manifest: manifest() }],
        num_examples: 12.5,
        metrics: Metrics::from([("loss".to_owned(), 0.25), ("accuracy".to_owned(), 1.0)]),
    }
}

fn outcomes() -> Vec<SubmitOutcome> {
    let text = || "words".to_owned();
    let refusals = [
        Refusal::Slots { message: text() },
        Refusal::Schema { slot: slot(), message: text() },
        Refusal::NotFinite { slot: slot(), tensor: text(), index: 7 },
        Refusal::Weight { value: text(), min: text(), max: text() },
        Refusal::Metric { name: text(), message: text() },
        Refusal::Bytes { slot: slot(), message: text() },
    ];
    let mut outcomes =
        vec![SubmitOutcome::Accepted, SubmitOutcome::Duplicate, SubmitOutcome::TooLate { reason: text() }];
    outcomes.extend(refusals.map(|refusal| SubmitOutcome::Refused { refusal }));
    outcomes
}

fn order() -> Order {
    let (version, digest) = (version(), Digest::of(b"model"));
    let input = InputSlot { slot: slot(), role: SlotRole::Weights, version: version.clone(), digest };
    let output = OutputSlot { slot: slot(), role: SlotRole::Delta, like: Some(version) };
    let list = ConfigValue::List(vec![ConfigValue::Int(64), ConfigValue::Text("relu".to_owned())]);
    let config = ConfigMap::from([
        ("epochs".to_owned(), ConfigValue::Int(5)),
        ("rate".to_owned(), ConfigValue::Float(0.5)),
        ("shuffle".to_owned(), ConfigValue::Bool(true)),
        ("layers".to_owned(), list),
    ]);
    let assignment = Assignment {
        task: task(),
        run: run(),
        run_name: "digits".to_owned(),
        round: 4,
        stage: stage(),
        site: site(),
        attempt: 1,
        inputs: vec![input.clone()],
        outputs: vec![output.clone()],
        config,
        seed: 11,
        deadline: None,
    };
    Order {
        assignment,
        inputs: vec![Filled { input, tensors: specs() }],
        outputs: vec![Wanted { output, tensors: Some(specs()) }],
        remaining: Some(Span::from_secs(60)),
    }
}
