//! The results of a task on their way into the store: decoded as they arrive, differences added to what they are from, durable when answered.
//!
//! A result that nobody waits for (late, repeated, of another round) is read, dropped and answered well, as upstream does. Refused by
//! name: results that cannot be read, tensors that are not the model's, training results of a task that does not train, masked tensors.
//! Invariant: at most one piece of a tensor is held beside what the decoder holds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, Bytes};
use sheaf_coordinator::{Delivery, UpdateError, UpdateWriter, WorkOrder};
use sheaf_domain::{
    ByteSpan, ErrorKind, Manifest, ManifestTensor, Metrics, SlotName, Span, StageName, Submission,
    SubmitOutcome, SubmittedSlot, VersionRef,
};
use sheaf_tensor::{Dtype, TensorSpec};
use tokio::sync::SemaphorePermit;

use crate::error::{CallError, Sort};
use crate::federation::{Caller, Federation, Index};
use crate::header::Peer;
use crate::program::{MODEL_SLOT, STATE_SLOT, stage_of, weight};
use crate::results::{Part, ResultsReader, Sent};
use crate::tensors::{Decoder, Head};

/// How long results of the next round wait for it to begin.
const NEXT_ROUND_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long an upload waits for others of its sender.
const TURN_WAIT_MAX: Duration = Duration::from_secs(30);
/// The most bytes of a decoded stretch that are passed on at once.
const STRETCH_LEN: usize = 1 << 20;

/// Where the pieces of a results message come from.
pub(crate) trait Pieces {
    /// The next piece; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, CallError>;
}

/// What became of results.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(crate) collaborator: String,
    pub(crate) task: String,
    pub(crate) round: i32,
    pub(crate) bytes: u64,
    pub(crate) outcome: &'static str,
}

/// Results that are waited for.
struct Update<'f> {
    federation: &'f Federation,
    order: Box<WorkOrder>,
    /// The model's tensors, and the version they are from; then those of what is shared beside it.
    model: (Index, Option<VersionRef>),
    state: (Index, Option<VersionRef>),
    writer: Option<UpdateWriter>,
    metrics: Metrics,
    tensor: Option<Open>,
}

/// The tensor that is being read.
struct Open {
    head: Head,
    /// None once it is used up.
    decoder: Option<Decoder>,
    what: What,
    /// Decoded bytes that were not passed on yet.
    out: Vec<u8>,
}

enum What {
    Metric,
    /// Weights; where they are a difference, from where on in the base they are next.
    Trained {
        onto: Option<(VersionRef, u64)>,
    },
    /// Read and dropped: nobody reports it, and nobody is handed it.
    Other,
}

fn results(error: impl std::fmt::Display) -> CallError {
    CallError::new(Sort::Results, error)
}

impl Federation {
    /// Takes in the results that a call brings: those of `sender`, where the call names one.
    pub(crate) async fn take_results(
        &self,
        peer: Peer<'_>,
        sender: Option<&str>,
        pieces: &mut impl Pieces,
        taken: &mut Taken,
    ) -> Result<String, CallError> {
        let mut reader = ResultsReader::new(self.inner().limits);
        let mut caller: Option<Caller<'_>> = None;
        let mut sent: Option<Sent> = None;
        let mut update: Option<Update<'_>> = None;
        let mut _turn = None;
        while let Some(mut piece) = pieces.next().await? {
            taken.bytes += piece.remaining() as u64;
            loop {
                let part = match reader.next(&mut piece) {
                    Ok(Some(part)) => part,
                    Ok(None) => break,
                    Err(error) => return Err(self.broken(caller, results(error))),
                };
                if let Part::Sent(first) = part {
                    let who = self.begun(peer, sender, &first, taken)?;
                    _turn = self.turn(who).await?;
                    update = self.wanted(who, &first, taken).await?;
                    (caller, sent) = (Some(who), Some(first));
                } else if let Some(update) = &mut update {
                    update.part(part).await.map_err(|error| self.broken(caller, error))?;
                } else if let Part::Tensor(head) = part {
                    // Also of results that nobody waits for: no codec says what its bytes are.
                    let codec = self.plan().pipeline.of_tags(&head.tags);
                    codec.map_err(|fault| self.broken(caller, results(fault.of(&head.name))))?;
                }
            }
        }
        if let Some(first) = reader.finish().map_err(|error| self.broken(caller, results(error)))? {
            let who = self.begun(peer, sender, &first, taken)?;
            update = self.wanted(who, &first, taken).await?;
            (caller, sent) = (Some(who), Some(first));
        }
        let (Some(caller), Some(sent)) = (caller, sent) else {
            return Err(results("the stream has no results"));
        };
        if let Some(update) = update {
            let outcome = update.hand_in(caller, &sent).await;
            taken.outcome = outcome.map_err(|error| self.broken(Some(caller), error))?;
        }
        Ok(caller.name.to_owned())
    }

    fn begun(
        &self,
        peer: Peer<'_>,
        sender: Option<&str>,
        sent: &Sent,
        taken: &mut Taken,
    ) -> Result<Caller<'_>, CallError> {
        taken.collaborator.clone_from(&sent.header.sender);
        taken.task.clone_from(&sent.task_name);
        taken.round = sent.round_number;
        if sender.is_some_and(|sender| sender != sent.header.sender) {
            return Err(results("the results are another collaborator's"));
        }
        self.inner().admit(Some(&sent.header), peer)
    }

    /// Waits until the caller has no other uploads too many under way.
    async fn turn(&self, caller: Caller<'_>) -> Result<Option<SemaphorePermit<'_>>, CallError> {
        let Some(uploading) = self.inner().uploading_of(caller.name) else { return Ok(None) };
        match tokio::time::timeout(TURN_WAIT_MAX, uploading.acquire()).await {
            Ok(permit) => permit.map(Some).map_err(|error| CallError::new(Sort::NotNow, error)),
            Err(_) => Err(CallError::new(
                Sort::NotNow,
                format!("{} has too many uploads under way that do not go on", caller.name),
            )),
        }
    }

    /// A refusal, told to operators.
    fn broken(&self, caller: Option<Caller<'_>>, error: CallError) -> CallError {
        if let Some(caller) = caller
            && error.sort == Sort::Results
            && self.inner().is_news(&format!("{}: {error}", caller.name))
        {
            self.inner().handle.note_malformed(caller.who, &error.message);
        }
        error
    }

    /// The work of a collaborator on a stage of a round, as upstream counts them.
    async fn work_on(
        &self,
        caller: Caller<'_>,
        stage: &StageName,
        round: i32,
    ) -> Result<Option<Box<WorkOrder>>, CallError> {
        let of = self.inner();
        let found = of.handle.next(caller.who, &[], Span::from_millis(0)).await?;
        Ok(found.into_iter().find_map(|delivery| match delivery {
            Delivery::Work(order)
                if order.assignment.stage == *stage && of.told_round(order.assignment.round) == round =>
            {
                Some(order)
            }
            _ => None,
        }))
    }

    /// The work that results answer; none where nobody waits for them.
    async fn wanted(
        &self,
        caller: Caller<'_>,
        sent: &Sent,
        taken: &mut Taken,
    ) -> Result<Option<Update<'_>>, CallError> {
        let of = self.inner();
        taken.outcome = "ignored";
        if !of.plan.tasks.iter().any(|task| task.name == sent.task_name) {
            tracing::warn!(
                sender = caller.name,
                task = sent.task_name,
                "results of a task that the plan does not have"
            );
            return Ok(None);
        }
        let stage = stage_of(&sent.task_name).map_err(results)?;
        let mut news = of.news()?;
        let mut order = self.work_on(caller, &stage, sent.round_number).await?;
        let deadline = tokio::time::Instant::now() + NEXT_ROUND_WAIT_MAX;
        while order.is_none() {
            news.mark_unchanged();
            // It may be the first that is heard of anybody: what that sets going is there when the writer has looked up again.
            let progress = of.handle.progress(&of.operator, of.run).await?;
            order = self.work_on(caller, &stage, sent.round_number).await?;
            // Or of a round that begins when the one before is folded.
            let is_next = of.told_round(progress.round.saturating_add(1)) == sent.round_number;
            if order.is_some() || progress.phase.is_over() || !is_next {
                break;
            }
            if !matches!(tokio::time::timeout_at(deadline, news.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
        let Some(order) = order else {
            tracing::info!(
                sender = caller.name,
                task = sent.task_name,
                round = sent.round_number,
                "results that nobody waits for"
            );
            return Ok(None);
        };
        let handed_out = |slot: &str| {
            let manifest = order.inputs.iter().find(|(of, _)| of.as_str() == slot);
            let index = manifest.map_or_else(Index::none, |(_, manifest)| Index::of(manifest));
            let input = order.assignment.inputs.iter().find(|input| input.slot.as_str() == slot);
            (index, input.map(|input| input.version.clone()))
        };
        let asked = !order.assignment.outputs.is_empty();
        let writer = || UpdateWriter::new(of.handle.clone(), caller.who.clone(), order.assignment.task);
        Ok(Some(Update {
            federation: self,
            model: handed_out(MODEL_SLOT),
            state: handed_out(STATE_SLOT),
            writer: asked.then(writer),
            metrics: BTreeMap::new(),
            tensor: None,
            order,
        }))
    }
}

impl Update<'_> {
    async fn part(&mut self, part: Part) -> Result<(), CallError> {
        match part {
            Part::Sent(_) => Ok(()),
            Part::Tensor(head) => self.begin(head).await,
            Part::Bytes(bytes) => {
                let mut bytes = bytes;
                let decoder = self.tensor.as_ref().and_then(|open| open.decoder.as_ref());
                let stretch_len = decoder.map_or(STRETCH_LEN, Decoder::stretch_len);
                while !bytes.is_empty() {
                    let stretch = bytes.split_to(bytes.len().min(stretch_len));
                    self.bytes(&stretch).await?;
                }
                Ok(())
            }
            Part::End => self.end().await,
        }
    }

    async fn begin(&mut self, head: Head) -> Result<(), CallError> {
        let has = |wanted: &str| head.tags.iter().any(|tag| tag == wanted);
        if has("secagg") {
            return Err(results("secure aggregation is not served"));
        }
        let of = self.federation.inner();
        let codec = of.plan.pipeline.of_tags(&head.tags).map_err(|fault| results(fault.of(&head.name)))?;
        let decoder = Decoder::new(codec, &head, &of.limits).map_err(results)?;
        let shape = decoder.shape().clone();
        let what = if head.report {
            if shape.num_elements() != 1 {
                return Err(results(format!("metric {:?} is not one number", head.name)));
            }
            What::Metric
        } else if has("trained") {
            let Some(writer) = &mut self.writer else {
                let stage = &self.order.assignment.stage;
                return Err(results(format!(
                    "task {stage} does not train, and brings tensor {:?}",
                    head.name
                )));
            };
            let found = |of: &(Index, Option<VersionRef>)| {
                let (offset, spec) = of.0.find(&head.name)?;
                Some((of.1.clone()?, *offset, spec.shape.clone()))
            };
            let model = found(&self.model);
            if let Some((.., expected)) = model.as_ref().filter(|(.., expected)| *expected != shape) {
                let name = &head.name;
                return Err(results(format!("tensor {name:?} is {shape}, and the model's is {expected}")));
            }
            let base = model.or_else(|| found(&self.state).filter(|(.., expected)| *expected == shape));
            let onto = base.filter(|_| has("delta")).map(|(version, offset, _)| (version, offset));
            if onto.is_none() && has("delta") {
                return Err(results(format!("tensor {:?} is a difference from nothing", head.name)));
            }
            let spec =
                TensorSpec::new(head.name.clone(), Dtype::F32, shape.dims().to_vec()).map_err(results)?;
            writer.tensor(spec).await.map_err(refused)?;
            What::Trained { onto }
        } else {
            What::Other
        };
        self.tensor = Some(Open { head, decoder: Some(decoder), what, out: Vec::new() });
        Ok(())
    }

    async fn bytes(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        let Some(open) = &mut self.tensor else { return Ok(()) };
        if let Some(decoder) = &mut open.decoder {
            decoder.push(bytes, &mut open.out).map_err(results)?;
        }
        self.pass_on().await
    }

    /// Passes on what was decoded, as far as it is whole numbers.
    async fn pass_on(&mut self) -> Result<(), CallError> {
        let Some(open) = &mut self.tensor else { return Ok(()) };
        let What::Trained { onto } = &mut open.what else {
            if !matches!(open.what, What::Metric) {
                open.out.clear();
            }
            return Ok(());
        };
        let whole = open.out.len() - open.out.len() % 4;
        let rest = open.out.split_off(whole);
        let mut decoded = Bytes::from(std::mem::replace(&mut open.out, rest));
        while !decoded.is_empty() {
            let mut stretch = decoded.split_to(decoded.len().min(STRETCH_LEN));
            if let Some((base, offset)) = onto.as_mut() {
                let of = self.federation.inner();
                let span = ByteSpan { offset: *offset, len: stretch.len() as u64 };
                let base = of.handle.read_version(&of.operator, base, span).await?;
                *offset += span.len;
                stretch = add(&base, &stretch);
            }
            if let Some(writer) = &mut self.writer {
                writer.write(stretch).await.map_err(refused)?;
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), CallError> {
        let Some(Open { head, decoder: Some(decoder), what, mut out }) = self.tensor.take() else {
            return Ok(());
        };
        // What a rotation left to do takes long for large tensors, and comes to the whole of one.
        let of = self.federation.inner();
        let _turn = if decoder.is_rotated() { Some(of.whole_tensors.acquire().await) } else { None };
        let finishing = of.compute.run(move || decoder.finish(&mut out).map(|_| out));
        let out = finishing.await.map_err(|error| CallError::new(Sort::NotNow, error))?.map_err(results)?;
        if let What::Metric = what {
            let value = out.first_chunk().map_or(f32::NAN, |raw| f32::from_le_bytes(*raw));
            if value.is_finite() {
                self.metrics.insert(head.name, f64::from(value));
            } else {
                let stage = &self.order.assignment.stage;
                tracing::warn!(site = %self.order.assignment.site, %stage, metric = head.name, value, "a metric is no finite number and is left out");
            }
            return Ok(());
        }
        self.tensor = Some(Open { decoder: None, head, what, out });
        self.pass_on().await?;
        self.tensor = None;
        Ok(())
    }

    /// Hands in what was read; what became of it, for the log.
    async fn hand_in(mut self, caller: Caller<'_>, sent: &Sent) -> Result<&'static str, CallError> {
        let mut slots = Vec::new();
        if let Some(writer) = self.writer.take() {
            let manifest = writer.finish().await.map_err(refused)?;
            let is_model = |tensor: &ManifestTensor| self.model.0.find(&tensor.spec.name).is_some();
            let codec = manifest.codec;
            let (model, state): (Vec<_>, Vec<_>) = manifest.tensors.into_iter().partition(is_model);
            let expected = self.order.expects.iter().find_map(|(_, expected)| expected.as_deref());
            let slot = |name: &str| SlotName::new(name).map_err(results);
            let manifest = in_order(Manifest { codec, tensors: model }, expected);
            slots.push(SubmittedSlot { slot: slot(MODEL_SLOT)?, manifest });
            if !state.is_empty() {
                let manifest = Manifest { codec, tensors: state };
                slots.push(SubmittedSlot { slot: slot(STATE_SLOT)?, manifest });
            }
        }
        let submission = Submission {
            task: self.order.assignment.task,
            slots,
            num_examples: weight(sent.data_size),
            metrics: self.metrics,
        };
        match self.federation.inner().handle.submit(caller.who, submission).await? {
            SubmitOutcome::Accepted => Ok("accepted"),
            SubmitOutcome::Duplicate => Ok("duplicate"),
            SubmitOutcome::TooLate { .. } => Ok("too late"),
            SubmitOutcome::Refused { refusal } => Err(results(refusal)),
        }
    }
}

/// The tensors in the model's order; collaborators send them in any.
fn in_order(mut manifest: Manifest, expected: Option<&Manifest>) -> Manifest {
    let places: BTreeMap<&str, usize> =
        expected.into_iter().flat_map(Manifest::specs).map(|spec| spec.name.as_str()).zip(0..).collect();
    manifest.tensors.sort_by_key(|tensor| places.get(tensor.spec.name.as_str()).copied());
    manifest
}

fn add(base: &[u8], difference: &[u8]) -> Bytes {
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
    };
    let sums = floats(base).into_iter().zip(floats(difference)).map(|(base, by)| base + by);
    sums.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into()
}

fn refused(error: UpdateError) -> CallError {
    match error {
        UpdateError::Malformed(detail) => results(detail),
        UpdateError::Coordinator(error) if error.kind() == ErrorKind::InvalidArgument => results(error),
        UpdateError::Coordinator(error) => error.into(),
    }
}
