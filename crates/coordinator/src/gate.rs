//! The gate: what a submission must be before it may count. It reads tiles of the stored bytes, never a whole update, and none of
//! those that were looked at on their way in.
//!
//! A refusal names the slot, the tensor and the index; nothing is repaired or dropped silently.

use std::collections::{BTreeSet, HashMap};

use sheaf_domain::{
    Assignment, ByteSpan, Digest, Manifest, Metrics, Refusal, SlotName, SlotRole, Submission,
};

use sheaf_tensor::Dtype;

use crate::models::Layout;
use crate::shared::{Shared, task_hold};
use crate::{Error, models, vetted};

/// How much is read and checked at once, in bytes; a multiple of every element size.
const STRIDE: u64 = 1024 * 1024;
/// The most metrics a submission may carry.
pub const METRICS_MAX: usize = 256;
/// The longest metric name, in bytes.
pub const METRIC_NAME_LEN_MAX: usize = 128;

/// Checks a submission for an open assignment.
///
/// # Errors
/// When bytes cannot be read; a refusal is a value.
pub(crate) async fn check(
    shared: &Shared,
    assignment: &Assignment,
    submission: &Submission,
    examples_max: f64,
) -> Result<Result<(), Refusal>, Error> {
    if let Err(refusal) =
        check_numbers(submission, examples_max).and_then(|()| check_slots(assignment, submission))
    {
        return Ok(Err(refusal));
    }
    let hold = task_hold(submission.task)?;
    let held: HashMap<Digest, u64> = shared.blob.held(&hold).await?.into_iter().collect();
    for submitted in &submission.slots {
        let expected = expected_manifest(shared, assignment, &submitted.slot)?;
        let slot = &submitted.slot;
        let byte_len_max = shared.settings.init_model_max.as_bytes();
        let byte_len_max = expected.as_ref().map_or(byte_len_max, |model| model.byte_len());
        if let Err(refusal) =
            check_manifest(slot, &submitted.manifest, expected.as_deref(), &held, byte_len_max)
        {
            return Ok(Err(refusal));
        }
        if let Some(bad) = find_bad_value(shared, &submitted.manifest).await? {
            return Ok(Err(bad.refusal(slot)));
        }
    }
    Ok(Ok(()))
}

/// The model an output must have the tensors of, if it must.
pub(crate) fn expected_manifest(
    shared: &Shared,
    assignment: &Assignment,
    slot: &SlotName,
) -> Result<Option<std::sync::Arc<Manifest>>, Error> {
    let like =
        assignment.outputs.iter().find(|output| output.slot == *slot).and_then(|output| output.like.clone());
    let Some(like) = like else { return Ok(None) };
    shared.with_run(like.run, |state| {
        state.version(&like.lineage, like.version).map(|version| std::sync::Arc::clone(&version.manifest))
    })
}

fn check_numbers(submission: &Submission, examples_max: f64) -> Result<(), Refusal> {
    let examples = submission.num_examples;
    // A weight need not be whole: sites may count shares of examples. NaN is neither above 0 nor at most anything.
    if !(examples > 0.0 && examples <= examples_max) {
        return Err(Refusal::Weight {
            value: examples.to_string(),
            min: "0".to_owned(),
            max: examples_max.to_string(),
        });
    }
    check_metrics(&submission.metrics)
}

fn check_metrics(metrics: &Metrics) -> Result<(), Refusal> {
    let refusal =
        |name: &str, message: String| Refusal::Metric { name: name.chars().take(64).collect(), message };
    if metrics.len() > METRICS_MAX {
        let message = format!("{} metrics exceed the limit of {METRICS_MAX}", metrics.len());
        return Err(refusal("", message));
    }
    for (name, value) in metrics {
        if name.is_empty() || name.len() > METRIC_NAME_LEN_MAX || name.chars().any(char::is_control) {
            return Err(refusal(name, format!("a name is 1 to {METRIC_NAME_LEN_MAX} printable bytes")));
        }
        if !value.is_finite() {
            return Err(refusal(name, format!("{value} is not a finite number")));
        }
    }
    Ok(())
}

fn check_slots(assignment: &Assignment, submission: &Submission) -> Result<(), Refusal> {
    let expected: BTreeSet<&SlotName> = assignment.outputs.iter().map(|output| &output.slot).collect();
    let mut given = BTreeSet::new();
    for submitted in &submission.slots {
        if !given.insert(&submitted.slot) {
            return Err(Refusal::Slots { message: format!("slot {} is given twice", submitted.slot) });
        }
    }
    let may_lack = |slot: &&&SlotName| {
        let output = assignment.outputs.iter().find(|output| output.slot == ***slot);
        output.is_some_and(|output| output.role == SlotRole::OptimiserState)
    };
    if let Some(missing) = expected.difference(&given).find(|slot| !may_lack(slot)) {
        return Err(Refusal::Slots { message: format!("slot {missing} is missing") });
    }
    match given.difference(&expected).next() {
        Some(extra) => Err(Refusal::Slots { message: format!("slot {extra} was not asked for") }),
        None => Ok(()),
    }
}

fn check_manifest(
    slot: &SlotName,
    manifest: &Manifest,
    expected: Option<&Manifest>,
    held: &HashMap<Digest, u64>,
    byte_len_max: u64,
) -> Result<(), Refusal> {
    let bytes = |message: String| Refusal::Bytes { slot: slot.clone(), message };
    let schema = |message: String| Refusal::Schema { slot: slot.clone(), message };
    manifest.check().map_err(|error| bytes(error.to_string()))?;
    match expected {
        Some(expected) => {
            if let Some(message) = manifest.schema_mismatch(expected) {
                return Err(schema(message));
            }
        }
        None if manifest.tensors.is_empty() => return Err(schema("a model without tensors".to_owned())),
        None => {}
    }
    models::check_cost(manifest, byte_len_max).map_err(bytes)?;
    for tensor in &manifest.tensors {
        for segment in &tensor.segments {
            let Some(len) = held.get(&segment.object) else {
                return Err(bytes(format!(
                    "tensor {:?} lies in object {}, which was not uploaded under this task",
                    tensor.spec.name,
                    segment.object.short()
                )));
            };
            if segment.offset.checked_add(segment.len).is_none_or(|end| end > *len) {
                return Err(bytes(format!(
                    "tensor {:?} reaches beyond the {len} bytes of object {}",
                    tensor.spec.name,
                    segment.object.short()
                )));
            }
        }
    }
    Ok(())
}

/// An element that may not be in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadValue {
    dtype: Dtype,
    tensor: String,
    /// Its flat, row-major index.
    index: u64,
}

impl BadValue {
    fn refusal(self, slot: &SlotName) -> Refusal {
        let slot = slot.clone();
        match self.dtype {
            Dtype::Bool => Refusal::Schema { slot, message: self.to_string() },
            _ => Refusal::NotFinite { slot, tensor: self.tensor, index: self.index },
        }
    }
}

impl std::fmt::Display for BadValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let BadValue { dtype, tensor, index } = self;
        match dtype {
            Dtype::Bool => {
                write!(f, "tensor {tensor:?} holds neither 0 nor 1 at index {index}, but it is bool")
            }
            _ => write!(f, "tensor {tensor:?} is not finite at index {index}"),
        }
    }
}

/// Looks for the first element of a stored model that is not finite, or not a truth value where it must be one.
pub(crate) async fn find_bad_value(shared: &Shared, manifest: &Manifest) -> Result<Option<BadValue>, Error> {
    let layout = Layout::of(manifest);
    let mut base = 0;
    for tensor in &manifest.tensors {
        let len = tensor.spec.byte_len();
        let dtype = tensor.spec.dtype;
        let mut position = 0;
        while vetted::is_checked(dtype) && position < len {
            let span = ByteSpan { offset: base + position, len: STRIDE.min(len - position) };
            let segments = layout.locate(span);
            position += span.len;
            if shared.vetted.covers(dtype, &segments) {
                continue;
            }
            let tile = models::join(shared.blob.read_many(&segments).await?);
            let found = shared.compute.run(move || vetted::first_bad(dtype, &tile)).await?;
            if let Some(index) = found {
                let index = (position - span.len) / dtype.size() as u64 + index;
                return Ok(Some(BadValue { dtype, tensor: tensor.spec.name.clone(), index }));
            }
        }
        base += len;
    }
    Ok(None)
}
