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
use tokio::sync::{Semaphore, SemaphorePermit};

use super::records::{ARRAY_STYPE, ID_LEN, measured, shown, split};
use crate::array::{ArrayReader, Fed};
use crate::proto;
use sheaf_coordinator::{UpdateError, UpdateWriter};

/// The longest record of records, and of metrics, that is read, in bytes: more than the metrics that a result may have.
const RECORD_LEN_MAX: u64 = 128 * 1024;
/// What a name takes at most in a record of arrays beside its own bytes, each of which may be escaped; and an array's description.
const ENTRY_LEN: u64 = 128;
const ESCAPED_LEN: u64 = 6;
const DESCRIPTION_LEN: u64 = 4096;
/// The longest number of a chunk in a description, with what is around it.
const CHUNK_NUMBER_LEN: u64 = 24;
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
    /// For arrays that are held while they are turned.
    conversions: &'a Semaphore,
    /// What lies below each object.
    tree: HashMap<Digest, &'a [Digest]>,
}

impl<'a> ReplyReader<'a> {
    pub(super) fn new(
        handle: &'a Handle,
        relays: &'a Relays,
        handed: &'a Handed,
        conversions: &'a Semaphore,
    ) -> ReplyReader<'a> {
        let tree = handed.objects.iter().map(|object| (object.id, object.children.as_slice())).collect();
        ReplyReader { handle, relays, handed, conversions, tree }
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
        let (type_name, _) = self.small(content, RECORD_LEN_MAX).await?;
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
        let (_, body) = self.small(*record, RECORD_LEN_MAX).await?;
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
        let names_len = |spec: &TensorSpec| ENTRY_LEN + ESCAPED_LEN * spec.name.len() as u64;
        let (_, body) =
            self.small(record, DESCRIPTION_LEN + model.specs().map(names_len).sum::<u64>()).await?;
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
        let chunks_max = 16 + spec.byte_len() / CHUNK_LEN_LEAST;
        let (_, body) = self.small(array, DESCRIPTION_LEN + CHUNK_NUMBER_LEN * chunks_max).await?;
        let about: About = serde_json::from_slice(&body)
            .map_err(|error| ArrayError::Other(format!("tensor {name:?} cannot be read: {error}")))?;
        if about.stype != ARRAY_STYPE {
            let stype = shown(&about.stype);
            return Err(ArrayError::Other(format!(
                "tensor {name:?} is serialised as {stype:?}; only {ARRAY_STYPE:?} is read"
            )));
        }
        if about.arraychunk_ids.len() as u64 > chunks_max {
            let count = about.arraychunk_ids.len();
            return Err(ArrayError::Other(format!(
                "tensor {name:?} comes in {count} chunks, at most {chunks_max} are read"
            )));
        }
        writer.tensor(spec.clone()).await.map_err(ReplyError::from)?;
        let named = |what: &dyn std::fmt::Display| ArrayError::Other(format!("tensor {name:?}: {what}"));
        let mut file = ArrayReader::default();
        // Held while the array is, where it is held.
        let mut _conversion = None;
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
                let mut bytes = Some(bytes);
                while let Some(next) = bytes.take() {
                    match file.feed(next).map_err(|error| named(&error))? {
                        Fed::Head(head) => {
                            check_head(&head, spec).map_err(|other| named(&other))?;
                            if head.is_fortran {
                                _conversion = Some(self.conversion().await?);
                            }
                            bytes = Some(Bytes::new());
                        }
                        Fed::Elements(ready) if ready.is_empty() => {}
                        Fed::Elements(ready) => writer.write(ready).await.map_err(ReplyError::from)?,
                        Fed::Columns(columns) => {
                            let turned = self.handle.compute().run(|| columns.turned()).await;
                            let turned = turned.map_err(sheaf_coordinator::Error::from);
                            let turned = turned.map_err(ReplyError::from)?.map_err(|error| named(&error))?;
                            writer.write(turned).await.map_err(ReplyError::from)?;
                        }
                    }
                }
            }
        }
        file.finish().map_err(|error| named(&error))
    }

    async fn conversion(&self) -> Result<SemaphorePermit<'_>, ReplyError> {
        let ended =
            |_| sheaf_coordinator::Error::new(sheaf_domain::ErrorKind::Unavailable, "the server ends");
        Ok(self.conversions.acquire().await.map_err(ended)?)
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

    /// The name of a small object's type, and its body, of `body_len_max` bytes at most.
    async fn small(&self, object: Digest, body_len_max: u64) -> Result<(String, Bytes), ReplyError> {
        let mut reader = self.open(object).await?;
        let ids_len = self.children(&object).len() as u64 * (ID_LEN as u64 + 1);
        let (len, len_max) = (reader.len(), body_len_max + ids_len + DESCRIPTION_LEN);
        if len > len_max {
            return Err(malformed(format!("a record of it has {len} bytes, at most {len_max} are read")));
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
