//! The answer to `GetAggregatedTensor`: which version a request means, and the tensor as a message whose bytes may still be in the store.
//!
//! A request names a tensor by round and tags, in any order. What one collaborator handed in is told to it alone. A tensor that is not
//! there yet is waited for; none is ever said not to exist.
//!
//! Source: observed with openfl 1.9, its `get_aggregated_tensor` and what its collaborators ask for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sheaf_coordinator::{READ_LEN_MAX, codec_seed};
use sheaf_domain::{ByteSpan, ErrorKind, LineageName, Manifest, SlotName, VersionRef};
use sheaf_tensor::{Tensor, TensorSpec};

use crate::error::{CallError, Sort};
use crate::federation::{Caller, Federation, Index, Inner};
use crate::program::{MODEL_SLOT, STATE_SLOT, stage_of, trains};
use crate::proto::openfl::aggregator::GetAggregatedTensorRequest;
use crate::proto::{MetadataProto, NamedTensor};
use crate::tensors::{COMPRESSED, Encoded, LOSSY_COMPRESSED, Pipeline, encode};

/// How long a tensor is waited for, as upstream does.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How much is read at once, in bytes: whole numbers of float32 and of base64 groups.
const READ_LEN: u64 = 3 * 256 * 1_024;

/// A tensor to be told.
pub(crate) struct TensorAnswer {
    /// All of it but its bytes.
    pub(crate) head: NamedTensor,
    pub(crate) body: Body,
}

/// Where the bytes of a tensor are.
pub(crate) enum Body {
    Here(Bytes),
    Stored(Stored),
}

/// A stretch of what is stored.
pub(crate) struct Stored {
    federation: Federation,
    from: Origin,
    offset: u64,
    left: u64,
}

#[derive(Clone)]
enum Origin {
    Version(VersionRef),
    /// The first less the second.
    Difference(VersionRef, VersionRef),
    HandedIn(sheaf_domain::Identity, Arc<Manifest>),
}

impl Body {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Body::Here(bytes) => bytes.len() as u64,
            Body::Stored(stored) => stored.left,
        }
    }

    /// The next bytes; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        match self {
            Body::Here(bytes) if bytes.is_empty() => Ok(None),
            Body::Here(bytes) => Ok(Some(std::mem::take(bytes))),
            Body::Stored(stored) => stored.next().await,
        }
    }
}

impl Stored {
    async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        if self.left == 0 {
            return Ok(None);
        }
        let span = ByteSpan { offset: self.offset, len: self.left.min(READ_LEN) };
        let bytes = self.from.read(self.federation.inner(), span).await?;
        if bytes.len() as u64 != span.len {
            return Err(CallError::new(Sort::NotNow, "the tensor ended before its end"));
        }
        self.offset += span.len;
        self.left -= span.len;
        Ok(Some(bytes))
    }
}

impl Origin {
    async fn read(&self, of: &Inner, span: ByteSpan) -> Result<Bytes, CallError> {
        let version = async |version: &VersionRef| of.handle.read_version(&of.operator, version, span).await;
        Ok(match self {
            Origin::Version(found) => version(found).await?,
            Origin::Difference(of, less) => subtract(&version(of).await?, &version(less).await?),
            Origin::HandedIn(who, manifest) => of.handle.read_handed_in(who, manifest, span).await?,
        })
    }

    /// Reads a whole tensor.
    async fn read_all(&self, of: &Inner, offset: u64, len: u64) -> Result<Bytes, CallError> {
        let mut whole = BytesMut::new();
        while (whole.len() as u64) < len {
            let at = whole.len() as u64;
            let span = ByteSpan { offset: offset + at, len: (len - at).min(READ_LEN_MAX) };
            let bytes = self.read(of, span).await?;
            if bytes.is_empty() {
                return Err(CallError::new(Sort::NotNow, "the tensor ended before its end"));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }
}

fn subtract(from: &[u8], less: &[u8]) -> Bytes {
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
    };
    let differences = floats(from).into_iter().zip(floats(less)).map(|(from, less)| from - less);
    differences.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into()
}

/// What a request comes to.
struct Wanted {
    tags: Vec<String>,
    is_lossless: bool,
    codec: Pipeline,
}

impl Federation {
    /// The tensor that a collaborator asks for.
    pub(crate) async fn tensor(
        &self,
        caller: Caller<'_>,
        request: &GetAggregatedTensorRequest,
    ) -> Result<TensorAnswer, CallError> {
        let of = self.inner();
        let nobody_elses = |tag: &&String| of.is_collaborator(tag) && tag.as_str() != caller.name;
        if let Some(other) = request.tags.iter().find(nobody_elses) {
            tracing::warn!(sender = caller.name, other, "it asked for what another collaborator handed in");
            return Ok(TensorAnswer { head: NamedTensor::default(), body: Body::Here(Bytes::new()) });
        }
        let mut news = of.news()?;
        let deadline = tokio::time::Instant::now() + WAIT_MAX;
        loop {
            news.mark_unchanged();
            if let Some(answer) = self.look_for(caller, request).await? {
                return Ok(answer);
            }
            if !matches!(tokio::time::timeout_at(deadline, news.changed()).await, Ok(Ok(()))) {
                let message = format!(
                    "Aggregator does not have an aggregated tensor for {:?} of round {} with tags {:?}",
                    request.tensor_name, request.round_number, request.tags
                );
                return Err(CallError::new(Sort::NoTensor, message));
            }
            // What an entry brings is there when the writer has looked up again.
            of.handle.progress(&of.operator, of.run).await?;
        }
    }

    async fn look_for(
        &self,
        caller: Caller<'_>,
        request: &GetAggregatedTensorRequest,
    ) -> Result<Option<TensorAnswer>, CallError> {
        let of = self.inner();
        let mut tags: BTreeSet<&str> = request.tags.iter().map(String::as_str).collect();
        let is_lossless = tags.remove(COMPRESSED) || request.require_lossless;
        tags.remove(LOSSY_COMPRESSED);
        let round = request.round_number;
        let is_own = tags.len() == 2 && tags.contains(caller.name) && tags.contains("trained");
        let is = |wanted: &[&str]| tags.iter().copied().eq(wanted.iter().copied());
        let state = LineageName::new(STATE_SLOT).map_err(|error| CallError::new(Sort::NoTensor, error))?;
        let mut candidates = Vec::new();
        for (slot, lineage) in [(MODEL_SLOT, LineageName::global()), (STATE_SLOT, state)] {
            candidates.extend(if is(&["model"]) {
                of.version_of(lineage, round).map(Origin::Version)
            } else if is(&["aggregated", "delta"]) {
                self.difference(&lineage, round)?
            } else if is_own {
                self.handed_in(caller, slot, round).await?
            } else {
                None
            });
        }
        let mut found = None;
        for from in candidates {
            let Some(index) = self.index(&from).await? else { continue };
            if let Some((offset, spec)) = index.find(&request.tensor_name) {
                found = Some((from, *offset, spec.clone()));
                break;
            }
        }
        let Some((from, offset, spec)) = found else { return Ok(None) };
        // Whatever is no difference goes without loss.
        let pipeline = of.plan.pipeline;
        let codec = if is_lossless || !tags.contains("delta") { pipeline.lossless() } else { pipeline };
        let by = if codec == pipeline.lossless() { COMPRESSED } else { LOSSY_COMPRESSED };
        let mut tags: Vec<String> = tags.into_iter().chain([by]).map(str::to_owned).collect();
        tags.sort_unstable();
        let wanted = Wanted { tags, is_lossless, codec };
        self.encode(request, wanted, from, (offset, &spec)).await.map(Some)
    }

    /// What a version differs by from the one before, as all are told it.
    fn difference(&self, lineage: &LineageName, round: i32) -> Result<Option<Origin>, CallError> {
        let of = self.inner();
        let version = of.version_of(lineage.clone(), round).filter(|version| version.version > 0);
        let Some(version) = version else { return Ok(None) };
        if of.plan.aggregator.use_delta_updates {
            let lineage =
                LineageName::difference(lineage).map_err(|error| CallError::new(Sort::NoTensor, error))?;
            return Ok(Some(Origin::Version(VersionRef { lineage, ..version })));
        }
        let before = VersionRef { version: version.version - 1, ..version.clone() };
        Ok(Some(Origin::Difference(version, before)))
    }

    /// What the caller itself handed in to the round going on.
    async fn handed_in(
        &self,
        caller: Caller<'_>,
        slot: &str,
        round: i32,
    ) -> Result<Option<Origin>, CallError> {
        let of = self.inner();
        let slot = SlotName::new(slot).map_err(|error| CallError::new(Sort::NoTensor, error))?;
        let round = of.version_of(LineageName::global(), round).map(|version| version.version + 1);
        let Some(round) = round else { return Ok(None) };
        for task in of.plan.tasks.iter().filter(|task| trains(task)) {
            let Ok(stage) = stage_of(&task.name) else { continue };
            let found = of.handle.handed_in(caller.who, of.run, (round, &stage), &slot).await?;
            if let Some(manifest) = found {
                return Ok(Some(Origin::HandedIn(caller.who.clone(), manifest)));
            }
        }
        Ok(None)
    }

    async fn index(&self, from: &Origin) -> Result<Option<Arc<Index>>, CallError> {
        let of = self.inner();
        let version = match from {
            Origin::HandedIn(_, manifest) => return Ok(Some(Arc::new(Index::of(manifest)))),
            Origin::Version(version) | Origin::Difference(version, _) => version,
        };
        if let Some(index) = of.indices().get(version) {
            return Ok(Some(index));
        }
        match of.handle.manifest(&of.operator, version).await {
            Ok(manifest) => Ok(Some(of.indices().put(version.clone(), &manifest))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn encode(
        &self,
        request: &GetAggregatedTensorRequest,
        wanted: Wanted,
        from: Origin,
        (offset, spec): (u64, &TensorSpec),
    ) -> Result<TensorAnswer, CallError> {
        let shape: Result<Vec<i32>, _> = spec.shape.dims().iter().map(|dim| i32::try_from(*dim)).collect();
        let shape = shape.map_err(|error| CallError::new(Sort::NoTensor, error))?;
        let (metadata, body) = if wanted.codec == Pipeline::NoCompression {
            let stored = Stored { federation: self.clone(), from, offset, left: spec.byte_len() };
            (vec![MetadataProto { int_list: shape, ..MetadataProto::default() }], Body::Stored(stored))
        } else {
            let encoded = self.encoded(wanted.codec, from, offset, spec).await?;
            (encoded.metadata.clone(), Body::Here(encoded.bytes.clone()))
        };
        let head = NamedTensor {
            name: request.tensor_name.clone(),
            round_number: request.round_number,
            lossless: wanted.is_lossless,
            report: request.report,
            tags: wanted.tags,
            transformer_metadata: metadata,
            data_bytes: Bytes::new(),
        };
        Ok(TensorAnswer { head, body })
    }

    /// A tensor through the pipeline: once for all who are told the same.
    async fn encoded(
        &self,
        codec: Pipeline,
        from: Origin,
        offset: u64,
        spec: &TensorSpec,
    ) -> Result<Arc<Encoded>, CallError> {
        let of = self.inner();
        let make = async || {
            let number = match &from {
                Origin::Version(version) | Origin::Difference(version, _) => version.version,
                Origin::HandedIn(..) => 0,
            };
            let _turn = of.whole_tensors.acquire().await;
            let bytes = from.read_all(of, offset, spec.byte_len()).await?;
            let seed = codec_seed(of.run, number, &spec.name);
            let spec = spec.clone();
            let encoding = of.compute.run(move || {
                let tensor = Tensor::new(spec, bytes).map_err(|error| error.to_string())?;
                encode(codec, &tensor, seed).map_err(|error| error.to_string())
            });
            let encoded = encoding.await.map_err(|error| CallError::new(Sort::NotNow, error))?;
            encoded.map_err(|error| CallError::new(Sort::NoTensor, error))
        };
        match &from {
            Origin::Version(version) => {
                let key = (version.to_string(), spec.name.clone(), codec.name());
                of.encoded.get(key, make).await
            }
            _ => make().await.map(Arc::new),
        }
    }
}
