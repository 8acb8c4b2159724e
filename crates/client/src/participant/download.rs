//! Reading the inputs of a task: by ranges, each tried again after a break, checked against the model's digest.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use sheaf_domain::{Digest, ModelHasher, VersionRef};
use sheaf_messages::{Filled, bounds};
use sheaf_runtime::Compute;
use sheaf_tensor::{ParamSet, Tensor, TensorSpec};

use crate::Error;
use crate::transport::{Retry, Transport};

/// The models read last: an evaluation and the training after it work on the same one.
#[derive(Debug, Default)]
pub(crate) struct ModelCache(Mutex<VecDeque<(Digest, ParamSet)>>);

impl ModelCache {
    fn find(&self, digest: &Digest) -> Option<ParamSet> {
        let kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.iter().find(|(kept, _)| kept == digest).map(|(_, params)| params.clone())
    }

    fn keep(&self, digest: Digest, params: ParamSet) {
        let mut kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.iter().all(|(kept, _)| *kept != digest) {
            kept.truncate(MODELS_KEPT - 1);
            kept.push_front((digest, params));
        }
    }
}

/// Reads one input, from memory if it was read just before.
pub(crate) async fn input(
    transport: &dyn Transport,
    retry: &Retry,
    compute: &Compute,
    cache: &ModelCache,
    filled: &Filled,
) -> Result<ParamSet, Error> {
    let expected = filled.input.digest;
    if let Some(params) = cache.find(&expected) {
        return Ok(params);
    }
    let bytes = stream(transport, retry, &filled.input.version, filled.byte_len()).await?;
    let specs = filled.tensors.clone();
    let checked = compute.run(move || checked(specs, bytes)).await;
    let (digest, params) = checked.map_err(|error| Error::Internal(error.to_string()))??;
    if digest != expected {
        let slot = filled.input.slot.to_string();
        return Err(Error::WrongModel { slot, expected: expected.to_string() });
    }
    cache.keep(digest, params.clone());
    Ok(params)
}

async fn stream(
    transport: &dyn Transport,
    retry: &Retry,
    version: &VersionRef,
    total: u64,
) -> Result<Bytes, Error> {
    // Memory follows the bytes that come, not the length that was promised.
    let mut bytes = BytesMut::new();
    let mut offset = 0;
    while offset < total {
        let len = (total - offset).min(bounds::READ_LEN_MAX);
        let part = retry.run(|| transport.read_version(version, offset, len)).await?;
        if u64::try_from(part.len()) != Ok(len) {
            let reason = format!("{} bytes instead of {len}", part.len());
            return Err(Error::bad_answer("read_version", reason));
        }
        bytes.extend_from_slice(&part);
        offset += len;
    }
    Ok(bytes.freeze())
}

/// Cuts a canonical byte stream into its tensors and computes the model's digest.
fn checked(specs: Vec<TensorSpec>, mut bytes: Bytes) -> Result<(Digest, ParamSet), Error> {
    let mut hasher = ModelHasher::new();
    let mut tensors = Vec::with_capacity(specs.len());
    for spec in specs {
        let len = usize::try_from(spec.byte_len()).unwrap_or(usize::MAX);
        if len > bytes.len() {
            return Err(Error::bad_answer("read_version", "the stream is shorter than its tensors"));
        }
        let own = bytes.split_to(len);
        hasher.tensor(&spec);
        hasher.bytes(&own);
        tensors.push(Tensor::new(spec, own)?);
    }
    Ok((hasher.finish(), ParamSet::new(tensors)?))
}

const MODELS_KEPT: usize = 2;
