//! The answer of a node, read: what it weighs, its metrics, and its arrays as the update of its task.
//!
//! A reply has one `MetricRecord` and, where arrays were asked for, one `ArrayRecord`, by whatever names. Its arrays are taken in the
//! model's order, whatever theirs is. Refused by name: other records, arrays that are missing, too many, or of another dtype
//! or shape than the model's, weights that are none. Small objects are read whole within bounds, arrays chunk by chunk.

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use sheaf_coordinator::{Found, Handed, Handle, ObjectReader, Relays};
use sheaf_domain::{
    Digest, Identity, Manifest, Metrics, Principal, Refusal, SlotName, Submission, SubmittedSlot, TaskId,
};
use sheaf_tensor::{TensorSpec, npy};

use super::records::{ARRAY_STYPE, measured, shown, split};
use crate::array::ArrayReader;
use crate::proto;
use crate::update::{UpdateError, UpdateWriter};

/// The longest small object that is read, in bytes: records of names, arrays' descriptions, metrics.
const SMALL_LEN_MAX: u64 = 16 << 20;
/// Chunks may be as short as this on average; shorter ones only cost time.
const CHUNK_LEN_LEAST: u64 = 256;

/// Why an answer did not become a submission.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplyError {
    /// The gate would refuse it, for this.
    #[error("{0}")]
    Refused(Refusal),
    /// The coordinator did not take it.
    #[error(transparent)]
    Coordinator(#[from] sheaf_coordinator::Error),
}

/// What is asked of an answer.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) task: TaskId,
    /// The output that its arrays are to fill, with the tensors they must be; none where none were asked for.
    pub(super) output: Option<(&'a SlotName, &'a Manifest)>,
}

/// Reads an answer, in the name of the server.
#[derive(Debug)]
pub(super) struct ReplyReader<'a> {
    handle: &'a Handle,
    relays: &'a Relays,
    handed: &'a Handed,
    /// What lies below each object.
    tree: HashMap<Digest, &'a [Digest]>,
}

impl<'a> ReplyReader<'a> {
    pub(super) fn new(handle: &'a Handle, relays: &'a Relays, handed: &'a Handed) -> ReplyReader<'a> {
        let tree = handed.objects.iter().map(|object| (object.id, object.children.as_slice())).collect();
        ReplyReader { handle, relays, handed, tree }
    }

    /// Turns the answer into a submission, whose bytes are durable.
    ///
    /// # Errors
    /// [`ReplyError`].
    pub(super) async fn submission(
        &self,
        who: &Identity,
        asked: &Asked<'_>,
    ) -> Result<Submission, ReplyError> {
        let (arrays, metrics) = self.records(asked.output.is_some()).await?;
        let (num_examples, metrics) = self.metrics(&metrics).await?;
        let mut slots = Vec::new();
        if let (Some((slot, model)), Some(arrays)) = (asked.output, arrays) {
            let manifest = self.arrays(who, asked.task, slot, model, arrays).await?;
            slots.push(SubmittedSlot { slot: slot.clone(), manifest });
        }
        Ok(Submission { task: asked.task, slots, num_examples, metrics })
    }

    /// The records of arrays, where they are asked for, and of metrics.
    async fn records(&self, with_arrays: bool) -> Result<(Option<Digest>, Digest), ReplyError> {
        let content = self.children(&self.handed.letter).first().copied();
        let content = content.ok_or_else(|| malformed("it has no content"))?;
        let (type_name, _) = self.small(content).await?;
        if type_name != "RecordDict" {
            return Err(malformed(format!("its content is a {:?}, no RecordDict", shown(&type_name))));
        }
        let mut found: HashMap<String, Vec<Digest>> = HashMap::new();
        for record in self.children(&content) {
            let type_name = self.type_of(*record).await?;
            found.entry(type_name).or_default().push(*record);
        }
        let one = |type_name: &str| match found.get(type_name).map_or(&[][..], Vec::as_slice) {
            [one] => Ok(*one),
            several => Err(malformed(format!("it has {} {type_name}s, expected one", several.len()))),
        };
        let arrays = if with_arrays { Some(one("ArrayRecord")?) } else { None };
        Ok((arrays, one("MetricRecord")?))
    }

    async fn metrics(&self, record: &Digest) -> Result<(f64, Metrics), ReplyError> {
        let (_, body) = self.small(*record).await?;
        let record = proto::MetricRecord::decode(body)
            .map_err(|error| malformed(format!("its MetricRecord cannot be read: {error}")))?;
        measured(record).map_err(malformed)
    }

    async fn arrays(
        &self,
        who: &Identity,
        task: TaskId,
        slot: &SlotName,
        model: &Manifest,
        record: Digest,
    ) -> Result<Manifest, ReplyError> {
        let schema = |message: String| ReplyError::Refused(Refusal::Schema { slot: slot.clone(), message });
        let (_, body) = self.small(record).await?;
        let mut named: BTreeMap<String, String> = serde_json::from_slice(&body)
            .map_err(|error| malformed(format!("its ArrayRecord cannot be read: {error}")))?;
        let mut writer = UpdateWriter::new(self.handle.clone(), who.clone(), task);
        for spec in model.specs() {
            let array = named.remove(&spec.name);
            let array = array.ok_or_else(|| schema(format!("tensor {:?} is missing", spec.name)))?;
            let array = self.known(&array)?;
            self.array(spec, array, &mut writer).await.map_err(|error| match error {
                ArrayError::Other(message) => schema(message),
                ArrayError::Reply(error) => error,
            })?;
        }
        if let Some(extra) = named.keys().next() {
            return Err(schema(format!("tensor {:?} is not part of the model", shown(extra))));
        }
        Ok(writer.finish().await?)
    }

    /// One array into the update.
    async fn array(
        &self,
        spec: &TensorSpec,
        array: Digest,
        writer: &mut UpdateWriter,
    ) -> Result<(), ArrayError> {
        let name = &spec.name;
        let (_, body) = self.small(array).await?;
        let about: About = serde_json::from_slice(&body)
            .map_err(|error| ArrayError::Other(format!("tensor {name:?} cannot be read: {error}")))?;
        if about.stype != ARRAY_STYPE {
            let stype = shown(&about.stype);
            return Err(ArrayError::Other(format!(
                "tensor {name:?} is serialised as {stype:?}; only {ARRAY_STYPE:?} is read"
            )));
        }
        let chunks_max = 16 + spec.byte_len() / CHUNK_LEN_LEAST;
        if about.arraychunk_ids.len() as u64 > chunks_max {
            let count = about.arraychunk_ids.len();
            return Err(ArrayError::Other(format!(
                "tensor {name:?} comes in {count} chunks, at most {chunks_max} are read"
            )));
        }
        writer.tensor(spec.clone()).map_err(ReplyError::from)?;
        let named = |what: &dyn std::fmt::Display| ArrayError::Other(format!("tensor {name:?}: {what}"));
        let mut file = ArrayReader::default();
        let mut is_checked = false;
        for child_idx in about.arraychunk_ids {
            let chunk = self.children(&array).get(child_idx).copied();
            let chunk = chunk.ok_or_else(|| {
                ArrayError::Other(format!("tensor {name:?} names a chunk that is not there"))
            })?;
            let mut reader = self.open(chunk).await?;
            let mut at_header = true;
            while let Some(bytes) = reader.next().await.map_err(ReplyError::from)? {
                let bytes = if std::mem::take(&mut at_header) {
                    split(&bytes, 0).map_err(ArrayError::Other)?.1
                } else {
                    bytes
                };
                let ready = file.feed(bytes).map_err(|error| named(&error))?;
                if let Some(head) = file.head().filter(|_| !is_checked) {
                    check_head(head, spec).map_err(|other| named(&other))?;
                    is_checked = true;
                }
                if !ready.is_empty() {
                    writer.write(ready).await.map_err(ReplyError::from)?;
                }
            }
        }
        file.finish().map_err(|error| named(&error))
    }

    fn children(&self, object: &Digest) -> &[Digest] {
        self.tree.get(object).copied().unwrap_or_default()
    }

    /// An object of the answer by its name in a record.
    fn known(&self, name: &str) -> Result<Digest, ReplyError> {
        let named: Option<Digest> = name.parse().ok();
        let known = named.filter(|object| self.tree.contains_key(object));
        known.ok_or_else(|| malformed(format!("{:?} is no object of the answer", shown(name))))
    }

    async fn open(&self, object: Digest) -> Result<ObjectReader, ReplyError> {
        let run = self.handed.run;
        match self.relays.find(&Principal::ServerApp(run), run, object).await? {
            Found::There(reader) => Ok(reader),
            _ => {
                let message = format!("object {} of an answer is not there", object.short());
                let error = sheaf_coordinator::Error::new(sheaf_domain::ErrorKind::Unavailable, message);
                Err(error.into())
            }
        }
    }

    async fn type_of(&self, object: Digest) -> Result<String, ReplyError> {
        let beginning = self.open(object).await?.next().await?.unwrap_or_default();
        Ok(split(&beginning, self.children(&object).len()).map_err(malformed)?.0)
    }

    /// The name of a small object's type, and its body.
    async fn small(&self, object: Digest) -> Result<(String, Bytes), ReplyError> {
        let mut reader = self.open(object).await?;
        if reader.len() > SMALL_LEN_MAX {
            let len = reader.len();
            return Err(malformed(format!(
                "a record of it has {len} bytes, at most {SMALL_LEN_MAX} are read"
            )));
        }
        let mut whole = BytesMut::new();
        while let Some(bytes) = reader.next().await? {
            whole.extend_from_slice(&bytes);
        }
        split(&whole.freeze(), self.children(&object).len()).map_err(malformed)
    }
}

/// What the body of an `Array` says, as far as it is believed: dtype and shape are those in its file.
#[derive(Debug, serde::Deserialize)]
struct About {
    stype: String,
    arraychunk_ids: Vec<usize>,
}

/// Whether an array is the model's tensor, as its file says.
fn check_head(head: &npy::Head, expected: &TensorSpec) -> Result<(), String> {
    if head.dtype != expected.dtype {
        return Err(format!("it is {}, expected {}", head.dtype, expected.dtype));
    }
    if head.shape != expected.shape {
        return Err(format!("it has shape {}, expected {}", head.shape, expected.shape));
    }
    Ok(())
}

enum ArrayError {
    /// The array is not the model's.
    Other(String),
    Reply(ReplyError),
}

impl From<ReplyError> for ArrayError {
    fn from(error: ReplyError) -> ArrayError {
        ArrayError::Reply(error)
    }
}

impl From<UpdateError> for ReplyError {
    fn from(error: UpdateError) -> ReplyError {
        match error {
            UpdateError::Malformed(message) => malformed(message),
            UpdateError::Coordinator(error) => ReplyError::Coordinator(error),
        }
    }
}

fn malformed(message: impl Into<String>) -> ReplyError {
    ReplyError::Refused(Refusal::Malformed { message: message.into() })
}

#[cfg(test)]
mod tests {
    use sheaf_tensor::{Dtype, Shape};

    use super::*;

    #[test]
    fn another_array_than_the_models_is_told_apart() {
        let shape = |dims: &[u64]| Shape::new(dims.to_vec()).unwrap();
        let head = |dtype, dims| npy::Head {
            dtype,
            shape: shape(dims),
            is_big_endian: false,
            is_fortran: false,
            len: 128,
        };
        let expected = TensorSpec::new("w", Dtype::F32, [2]).unwrap();
        assert_eq!(check_head(&head(Dtype::F32, &[2]), &expected), Ok(()));
        let refused = |dtype, dims| check_head(&head(dtype, dims), &expected).unwrap_err();
        assert_eq!(refused(Dtype::F64, &[2]), "it is f64, expected f32");
        assert_eq!(refused(Dtype::F32, &[1, 2]), "it has shape [1, 2], expected [2]");
    }
}
