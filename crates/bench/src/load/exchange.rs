//! Full rounds: every member reads and verifies the global model, sends a whole update and submits it.
//!
//! Members meet between the parts of a round, so that what the server used is known part by part. Models are read, made and sent piece by
//! piece: a member holds three pieces at most.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use sheaf_blob::digests_of_pair;
use sheaf_domain::{Digest, Metrics, ModelHasher, SlotRole, Span, Submission, SubmitOutcome, SubmittedSlot};
use sheaf_messages::{Filled, Order, bounds, outcome_from_wire, submission_to_wire, v1};
use sheaf_runtime::{Clock, Compute, SystemClock, TaskScope};
use sheaf_tensor::TensorSpec;
use tokio::sync::Barrier;

use super::{Member, Party, Way, enrol_all, patiently};
use crate::Error;
use crate::piece::{Origin, Pieces};
use crate::process::{own_usage, usage};

/// What to exchange.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Who takes part.
    pub party: Party,
    /// How many rounds.
    pub rounds: u32,
    /// What the updates derive from.
    pub seed: u64,
}

/// A moment: what both sides had used by then.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The machine's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// CPU seconds of the server.
    pub server_cpu_seconds: f64,
    /// CPU seconds of the load.
    pub client_cpu_seconds: f64,
}

/// The moments of one round, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Every member had its work.
    pub ordered: Mark,
    /// Every member had read and verified the model.
    pub read: Mark,
    /// Every piece of every update had been taken in durably.
    pub uploaded: Mark,
    /// Every submission had been accepted.
    pub submitted: Mark,
}

/// What the load saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The rounds.
    pub rounds: Vec<Round>,
    /// Calls that were made again because the server was busy.
    pub calls_again: u64,
    /// CPU seconds of the load, from its start to its end.
    pub client_cpu_seconds: f64,
    /// The most resident memory of the load, in bytes.
    pub client_peak_rss_bytes: u64,
}

/// Takes part until every round is submitted.
///
/// # Errors
/// The first member's failure; [`Error::Unexpected`] when the server hands out other work than an exchange's.
/// # Cancel safety
/// Dropped, it leaves the server's run waiting for members that are gone.
pub async fn run(job: Job) -> Result<Report, Error> {
    let scope = TaskScope::new();
    let members = enrol_all(&Way::of(&job.party)?, &job.party.kits).await?;
    let clock = SystemClock::shared();
    let shared = Arc::new(Shared {
        meeting: Barrier::new(members.len()),
        server_pid: job.party.server_pid,
        marks: Mutex::default(),
        clock: Arc::clone(&clock),
        compute: Compute::for_this_machine(),
    });
    let mut taking_part = Vec::new();
    for (member, client) in members.into_iter().zip(1..) {
        scope.spawn_until_cancelled(beats(member.clone()));
        let (shared, seed, rounds) = (Arc::clone(&shared), job.seed, job.rounds);
        let part = scope.spawn(take_part(shared, member, Origin { seed, client, round: 0 }, rounds));
        taking_part
            .push(async { part.await.unwrap_or_else(|_| Err(Error::unexpected("a member was cut off"))) });
    }
    let again = try_join_all(taking_part).await;
    scope.cancel();
    let calls_again = again?.into_iter().sum();
    let marks = std::mem::take(&mut *shared.marks.lock().unwrap_or_else(PoisonError::into_inner));
    let (rounds, _) = marks.as_chunks::<4>();
    let rounds = rounds.iter().map(|&[ordered, read, uploaded, submitted]| Round {
        ordered,
        read,
        uploaded,
        submitted,
    });
    let own = own_usage()?;
    Ok(Report {
        rounds: rounds.collect(),
        calls_again,
        client_cpu_seconds: own.cpu_seconds,
        client_peak_rss_bytes: own.peak_rss_bytes,
    })
}

/// What members share.
struct Shared {
    meeting: Barrier,
    server_pid: u32,
    marks: Mutex<Vec<Mark>>,
    clock: Arc<dyn Clock>,
    compute: Compute,
}

impl Shared {
    /// Waits for all members; one of them takes the mark before any goes on.
    async fn meet(&self) -> Result<(), Error> {
        if self.meeting.wait().await.is_leader() {
            let mark = Mark {
                at_ms: self.clock.now().as_millis(),
                server_cpu_seconds: usage(self.server_pid)?.cpu_seconds,
                client_cpu_seconds: own_usage()?.cpu_seconds,
            };
            self.marks.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
        }
        self.meeting.wait().await;
        Ok(())
    }
}

async fn beats(member: Member) {
    loop {
        let request = v1::BeatRequest { working: Vec::new(), client: CLIENT.to_owned() };
        if let Err(error) = member.transport.beat(request).await {
            tracing::debug!(%error, "a beat failed");
        }
        tokio::time::sleep(BEAT_EVERY.as_duration()).await;
    }
}

async fn take_part(
    shared: Arc<Shared>,
    member: Member,
    mut origin: Origin,
    rounds: u32,
) -> Result<u64, Error> {
    let mut again = 0;
    let mut pieces: Option<Arc<Pieces>> = None;
    for _ in 0..rounds {
        let order = order(&shared, &member, &mut again).await?;
        shared.meet().await?;
        origin.round = order.assignment.round;
        let specs = read_inputs(&shared, &member, &order, &mut again).await?;
        let made = match pieces.take().filter(|made| made.specs() == specs) {
            Some(made) => made,
            None => Arc::new(Pieces::new(specs)?),
        };
        shared.meet().await?;
        let digests = upload(&shared, &member, &order, &made, origin, &mut again).await?;
        shared.meet().await?;
        submit(&shared, &member, &order, &made, &digests, &mut again).await?;
        shared.meet().await?;
        pieces = Some(made);
    }
    Ok(again)
}

/// Waits for work.
async fn order(shared: &Shared, member: &Member, again: &mut u64) -> Result<Order, Error> {
    loop {
        let request = v1::NextRequest { have: Vec::new(), hold_ms: HOLD.as_millis() };
        let reply = patiently(&*shared.clock, again, || member.transport.next(request.clone())).await?;
        if let Some(work) = reply.work.first() {
            return Order::from_wire(work).map_err(Error::unexpected);
        }
    }
}

/// Reads and verifies every input; returns the tensors the update must have.
async fn read_inputs(
    shared: &Shared,
    member: &Member,
    order: &Order,
    again: &mut u64,
) -> Result<Vec<TensorSpec>, Error> {
    for filled in &order.inputs {
        let found = read(shared, member, filled, again).await?;
        if found != filled.input.digest {
            let (site, expected) = (&member.site, filled.input.digest);
            return Err(Error::unexpected(format!("{site} read a model {found} instead of {expected}")));
        }
    }
    let wanted = order.outputs.first().and_then(|wanted| wanted.tensors.clone());
    wanted.ok_or_else(|| Error::unexpected("the work asks for no tensors; an exchange's plan does"))
}

/// Reads a model and computes its digest; the next part is on its way while one is hashed.
async fn read(shared: &Shared, member: &Member, filled: &Filled, again: &mut u64) -> Result<Digest, Error> {
    let mut walk = Walk::over(filled.tensors.clone());
    let total = filled.byte_len();
    let mut offset = 0;
    let mut arrived = Bytes::new();
    loop {
        let len = (total - offset).min(bounds::READ_LEN_MAX);
        let next = async {
            if len == 0 {
                return Ok(Bytes::new());
            }
            let version = &filled.input.version;
            patiently(&*shared.clock, again, || member.transport.read_version(version, offset, len)).await
        };
        let hashed = shared.compute.run(move || walk.take(&arrived).map(|()| walk));
        let (next, hashed) = tokio::join!(next, hashed);
        walk = hashed??;
        arrived = next?;
        if arrived.len() as u64 != len {
            return Err(Error::unexpected(format!("{} bytes came instead of {len}", arrived.len())));
        }
        offset += len;
        if len == 0 {
            return Ok(walk.finish());
        }
    }
}

/// Hashes a byte stream as the model it is.
struct Walk {
    specs: std::vec::IntoIter<TensorSpec>,
    left: u64,
    hasher: ModelHasher,
}

impl Walk {
    fn over(specs: Vec<TensorSpec>) -> Walk {
        Walk { specs: specs.into_iter(), left: 0, hasher: ModelHasher::new() }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let spec = self.specs.next().ok_or_else(|| Error::unexpected("a model is too long"))?;
                self.hasher.tensor(&spec);
                self.left = spec.byte_len();
                continue;
            }
            let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (own, rest) = bytes.split_at(len);
            self.hasher.bytes(own);
            self.left -= own.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn finish(mut self) -> Digest {
        // Tensors without elements at the end have no bytes that would begin them.
        for spec in self.specs.by_ref() {
            self.hasher.tensor(&spec);
        }
        self.hasher.finish()
    }
}

/// Sends a whole update; the next two pieces are made, and hashed side by side, while the one before them is on its way.
async fn upload(
    shared: &Shared,
    member: &Member,
    order: &Order,
    pieces: &Arc<Pieces>,
    origin: Origin,
    again: &mut u64,
) -> Result<Vec<Digest>, Error> {
    let task = order.assignment.task;
    let make = |from: u64| {
        let pieces = Arc::clone(pieces);
        shared.compute.run(move || pair_from(&pieces, origin, from))
    };
    let mut digests = Vec::new();
    let mut ready = VecDeque::from(make(0).await?);
    let mut made = ready.len() as u64;
    while let Some((digest, piece)) = ready.pop_front() {
        digests.push(digest);
        let put =
            patiently(&*shared.clock, again, || member.transport.put_piece(task, digest, piece.clone()));
        if ready.is_empty() {
            let (sent, next) = tokio::join!(put, make(made));
            sent?;
            ready.extend(next?);
            made += ready.len() as u64;
        } else {
            put.await?;
        }
    }
    Ok(digests)
}

/// The two pieces from `from` on with their digests; fewer at the end.
fn pair_from(pieces: &Pieces, origin: Origin, from: u64) -> Vec<(Digest, Bytes)> {
    let made: Vec<Bytes> =
        (from..pieces.count().min(from + 2)).map(|idx| pieces.piece(origin, idx)).collect();
    let digests = match &made[..] {
        [first, second] => {
            let (first, second) = digests_of_pair(first, second);
            vec![first, second]
        }
        others => others.iter().map(|piece| Digest::of(piece)).collect(),
    };
    digests.into_iter().zip(made).collect()
}

async fn submit(
    shared: &Shared,
    member: &Member,
    order: &Order,
    pieces: &Pieces,
    digests: &[Digest],
    again: &mut u64,
) -> Result<(), Error> {
    let output = order.outputs.first().map(|wanted| &wanted.output);
    let output = output.ok_or_else(|| Error::unexpected("the work asks for nothing"))?;
    if output.role == SlotRole::OptimiserState {
        return Err(Error::unexpected("the work asks for an optimiser's state"));
    }
    let submission = Submission {
        task: order.assignment.task,
        slots: vec![SubmittedSlot { slot: output.slot.clone(), manifest: pieces.manifest(digests)? }],
        num_examples: 1.0,
        metrics: Metrics::from([("loss".to_owned(), 0.5)]),
    };
    let request = submission_to_wire(&submission);
    let reply = patiently(&*shared.clock, again, || member.transport.submit(request.clone())).await?;
    match outcome_from_wire(reply).map_err(Error::unexpected)? {
        SubmitOutcome::Accepted | SubmitOutcome::Duplicate => Ok(()),
        other => Err(Error::unexpected(format!("an update of {} was not taken: {other:?}", member.site))),
    }
}

const CLIENT: &str = concat!("sheaf-bench/", env!("CARGO_PKG_VERSION"));
const BEAT_EVERY: Span = Span::from_secs(5);
const HOLD: Span = Span::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_tensor::Dtype;

    #[test]
    fn a_model_read_in_any_parts_has_its_digest() {
        let spec = |name: &str, dims: Vec<u64>| TensorSpec::new(name, Dtype::U8, dims).unwrap();
        let specs = vec![spec("a", vec![3]), spec("none", vec![0]), spec("b", vec![4]), spec("end", vec![0])];
        let digest = |parts: &[&[u8]]| {
            let mut walk = Walk::over(specs.clone());
            parts.iter().for_each(|part| walk.take(part).unwrap());
            walk.finish()
        };
        let mut whole = ModelHasher::new();
        let mut bytes: &[u8] = b"abcdefg";
        for spec in &specs {
            let (own, rest) = bytes.split_at(usize::try_from(spec.byte_len()).unwrap());
            whole.tensor(spec);
            whole.bytes(own);
            bytes = rest;
        }
        let whole = whole.finish();
        assert_eq!(digest(&[b"abcdefg"]), whole);
        assert_eq!(digest(&[b"ab", b"cdef", b"g"]), whole);
        assert!(Walk::over(specs.clone()).take(b"abcdefgh").is_err());
    }
}
