//! Models on their way to a client, and answers on their way into the store, both in pieces.

use std::collections::BTreeMap;

use bytes::Bytes;
use sheaf_coordinator::WorkOrder;
use sheaf_domain::{ByteSpan, ErrorKind, Identity, Manifest};
use sheaf_tensor::{TensorSpec, npy};
use tokio::sync::SemaphorePermit;

use super::Join;
use super::order::{Order, TENSOR_TYPE, with_parameters};
use super::reply::{Kind, Part, Reply, ReplyReader};
use super::stream::{End, Stream};
use crate::array::{ArrayReader, Fed};
use crate::proto::Scalar;
use sheaf_coordinator::{UpdateError, UpdateWriter};

/// How much of a model is read at once, in bytes.
const READ_LEN: u64 = 1024 * 1024;

/// What came of waiting for an answer.
#[derive(Debug)]
pub(super) enum Received {
    /// The answer, and the tensors it brought.
    Answer { reply: Reply, manifest: Option<Manifest> },
    /// It was read and dropped: why.
    TooLate(String),
}

/// Sends work with its model; an inner error is why it cannot be sent at all.
pub(super) async fn send_model(
    join: &Join,
    stream: &mut Stream,
    who: &Identity,
    work: &WorkOrder,
    order: Order,
    config: BTreeMap<String, Scalar>,
) -> Result<Result<(), String>, End> {
    let (Some(input), Some((_, manifest))) = (work.assignment.inputs.first(), work.inputs.first()) else {
        return Ok(Err("the work hands out no model".to_owned()));
    };
    let framed = match with_parameters(order, manifest.specs(), config, join.settings.message_len_max) {
        Ok(framed) => framed,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let total = manifest.byte_len();
    let (mut offset, mut ready) = (0u64, Bytes::new());
    for (head, len) in framed.heads {
        stream.send(head).await?;
        let mut left = len;
        while left > 0 {
            if ready.is_empty() {
                let span = ByteSpan { offset, len: READ_LEN.min(total.saturating_sub(offset)) };
                let read = join.handle.read_version(who, &input.version, span).await;
                // Half a message is sent: the stream cannot go on.
                ready = read.map_err(|error| End::Refused(error.to_string()))?;
                offset += ready.len() as u64;
                if ready.is_empty() {
                    return Err(End::Refused("the model ended before its end".to_owned()));
                }
            }
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(ready.len());
            stream.send(ready.split_to(part)).await?;
            left -= part as u64;
        }
    }
    stream.send(framed.tail).await?;
    Ok(Ok(()))
}

/// Waits for the answer to work and uploads its tensors as they come.
pub(super) async fn receive(
    join: &Join,
    stream: &mut Stream,
    who: &Identity,
    work: &WorkOrder,
    wanted: Kind,
) -> Result<Received, End> {
    let mut answer = Answer::new(stream, join.settings.message_len_max);
    answer.begin(wanted).await?;
    let mut update = Update::new(join, who, work);
    loop {
        let reply = match answer.part().await? {
            Part::Kind(_) => continue,
            Part::Tensor(len) => {
                update.begin(len);
                continue;
            }
            Part::Bytes(bytes) => {
                update.bytes(bytes).await?;
                continue;
            }
            Part::TensorEnd => {
                update.end()?;
                continue;
            }
            Part::End(reply) => *reply,
        };
        answer.check_silent()?;
        check_tensor_type(&reply, update.num_tensors)?;
        return match update.finish().await? {
            Ok(manifest) => Ok(Received::Answer { reply, manifest }),
            Err(reason) => Ok(Received::TooLate(reason)),
        };
    }
}

/// Waits for an answer without tensors.
pub(super) async fn discard(stream: &mut Stream, wanted: Kind, message_len_max: u64) -> Result<Reply, End> {
    let mut answer = Answer::new(stream, message_len_max);
    answer.begin(wanted).await?;
    loop {
        if let Part::End(reply) = answer.part().await? {
            answer.check_silent()?;
            return Ok(*reply);
        }
    }
}

/// One answer as it comes.
struct Answer<'s> {
    stream: &'s mut Stream,
    reader: ReplyReader,
}

impl Answer<'_> {
    fn new(stream: &mut Stream, message_len_max: u64) -> Answer<'_> {
        Answer { stream, reader: ReplyReader::new(message_len_max) }
    }

    /// Waits for the beginning and checks that it is the answer wanted.
    async fn begin(&mut self, wanted: Kind) -> Result<(), End> {
        self.stream.taken().await?;
        match self.part().await? {
            Part::Kind(found) if found == wanted => Ok(()),
            Part::Kind(found) => {
                Err(End::Broken(format!("it answered with {}, not {}", found.name(), wanted.name())))
            }
            _ => Err(End::Broken("its message holds no answer".to_owned())),
        }
    }

    async fn part(&mut self) -> Result<Part, End> {
        loop {
            let part = self.reader.part().map_err(|error| End::Broken(error.to_string()))?;
            if let Some(part) = part {
                return Ok(part);
            }
            let piece = self.stream.piece(!self.reader.is_fresh()).await?;
            self.reader.feed(piece);
        }
    }

    /// A client that says more than it was asked breaks the turns.
    fn check_silent(&self) -> Result<(), End> {
        match self.reader.has_rest() {
            true => Err(End::Broken("it went on after its answer".to_owned())),
            false => Ok(()),
        }
    }
}

fn check_tensor_type(reply: &Reply, num_tensors: usize) -> Result<(), End> {
    let parameters = match reply {
        Reply::Fit(res) => res.parameters.as_ref(),
        Reply::Parameters(res) => res.parameters.as_ref(),
        _ => None,
    };
    match parameters {
        Some(parameters) if num_tensors > 0 && parameters.tensor_type != TENSOR_TYPE => {
            let found: String = parameters.tensor_type.chars().take(64).collect();
            Err(End::Broken(format!("its tensors are {found:?}; only {TENSOR_TYPE} can be averaged here")))
        }
        _ => Ok(()),
    }
}

/// An update in the making, or the rest of one that is not wanted any more.
struct Update<'j> {
    join: &'j Join,
    writer: Option<UpdateWriter>,
    /// Why the tensors are dropped, once they are.
    dropped: Option<String>,
    /// The names that the model's tensors have.
    names: Vec<String>,
    num_tensors: usize,
    /// The array under way, and the bytes of its file that were announced.
    array: Option<(ArrayReader, u64)>,
    /// Held while a column-major array is.
    conversion: Option<SemaphorePermit<'j>>,
}

impl<'j> Update<'j> {
    fn new(join: &'j Join, who: &Identity, work: &WorkOrder) -> Update<'j> {
        let expected = work.expects.first().and_then(|(_, manifest)| manifest.as_ref());
        let names = expected.map(|model| model.specs().map(|spec| spec.name.clone()).collect());
        let asked = !work.assignment.outputs.is_empty();
        Update {
            join,
            writer: asked.then(|| UpdateWriter::new(join.handle.clone(), who.clone(), work.assignment.task)),
            dropped: None,
            names: names.unwrap_or_default(),
            num_tensors: 0,
            array: None,
            conversion: None,
        }
    }

    fn begin(&mut self, len: u64) {
        self.array = Some((ArrayReader::default(), len));
    }

    async fn bytes(&mut self, bytes: Bytes) -> Result<(), End> {
        let mut bytes = Some(bytes);
        while let Some(next) = bytes.take() {
            let broken = self.broken();
            let Some((array, len)) = self.array.as_mut().filter(|_| self.dropped.is_none()) else {
                return Ok(());
            };
            match array.feed(next).map_err(|error| broken(error.to_string()))? {
                Fed::Head(head) => {
                    let (needed, len) = (head.file_len(), *len);
                    if needed != len {
                        let detail = format!("the array needs a file of {needed} bytes and has one of {len}");
                        return Err(broken(detail));
                    }
                    self.head(head).await?;
                    // What came with it.
                    bytes = Some(Bytes::new());
                }
                Fed::Elements(elements) if elements.is_empty() => {}
                Fed::Elements(elements) => self.write(elements).await?,
                Fed::Columns(columns) => {
                    let turned = self.join.handle.compute().run(|| columns.turned()).await;
                    let turned = turned.map_err(|error| End::Refused(error.to_string()))?;
                    self.write(turned.map_err(|error| broken(error.to_string()))?).await?;
                }
            }
        }
        Ok(())
    }

    async fn head(&mut self, head: npy::Head) -> Result<(), End> {
        let named = self.names.get(self.num_tensors).cloned();
        let name = named.unwrap_or_else(|| self.num_tensors.to_string());
        if let Some(writer) = &mut self.writer {
            let begun = writer.tensor(TensorSpec { name, dtype: head.dtype, shape: head.shape }).await;
            self.settle(begun)?;
        }
        if head.is_fortran {
            let permit = self.join.conversions.acquire().await;
            self.conversion = Some(permit.map_err(|_| End::Refused("the server stops".to_owned()))?);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), End> {
        let broken = self.broken();
        let Some((array, _)) = self.array.take().filter(|_| self.dropped.is_none()) else { return Ok(()) };
        array.finish().map_err(|error| broken(error.to_string()))?;
        self.conversion = None;
        self.num_tensors += 1;
        Ok(())
    }

    async fn write(&mut self, elements: Bytes) -> Result<(), End> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let written = writer.write(elements).await;
        self.settle(written)
    }

    /// The update; an inner error is why there is none.
    async fn finish(mut self) -> Result<Result<Option<Manifest>, String>, End> {
        if let Some(reason) = self.dropped {
            return Ok(Err(reason));
        }
        let Some(writer) = self.writer.take() else { return Ok(Ok(None)) };
        match writer.finish().await {
            Ok(manifest) => Ok(Ok(Some(manifest))),
            Err(UpdateError::Malformed(detail)) => Err(End::Broken(detail)),
            Err(UpdateError::Coordinator(error)) => Ok(Err(error.to_string())),
        }
    }

    /// What became of a step: a broken update ends the stream; one that is not taken is read on and dropped.
    fn settle(&mut self, step: Result<(), UpdateError>) -> Result<(), End> {
        match step {
            Ok(()) => Ok(()),
            Err(UpdateError::Malformed(detail)) => Err(End::Broken(detail)),
            // More than the model has is the client's fault; the rest is not.
            Err(UpdateError::Coordinator(error)) if error.kind() == ErrorKind::InvalidArgument => {
                Err(End::Broken(error.to_string()))
            }
            Err(UpdateError::Coordinator(error)) => {
                self.writer = None;
                self.dropped = Some(error.to_string());
                Ok(())
            }
        }
    }

    fn broken(&self) -> impl Fn(String) -> End + use<> {
        let number = self.num_tensors;
        move |detail| End::Broken(format!("tensor {number}: {detail}"))
    }
}
