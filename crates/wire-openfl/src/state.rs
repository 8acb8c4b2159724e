//! Model files: the one a federation begins with, and those it leaves behind.
//!
//! A file holds each tensor as the plan's pipeline encodes it, lossy or not, whatever its tags say; all are of one round. It is read in pieces, and
//! replaced as a whole or not at all: written beside its place, flushed, then renamed. Refused by name: files that are none, tensors that
//! a pipeline refuses, tensors of different rounds, names that occur twice, files without tensors.
//!
//! Source: observed with openfl 1.9, its `construct_model_proto` and `deconstruct_model_proto`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use sheaf_tensor::{ParamSet, Tensor, TensorSpec, safetensors};

use crate::fields::{Event, FieldError, Fields};
use crate::proto::{MetadataProto, NamedTensor};
use crate::tensors::reader::{Part, TensorReader};
use crate::tensors::{Decoder, Fault, Head, Limits, Pipeline, Refusal, encode, tensor};

/// The tag of every tensor of a model file.
const MODEL: &str = "model";
/// How much of a file is read at once, in bytes.
const PIECE_LEN: usize = 256 * 1_024;

/// A model, and the round it is of.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Model {
    pub round_number: i32,
    pub params: ParamSet,
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StateError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Tensor(Refusal),
    #[error("it is no model file: {0}")]
    Encoding(FieldError),
    #[error("its tensors unfold to more than {max} bytes")]
    TooLarge { max: u64 },
    #[error("tensor {tensor:?} is of round {round}, and those before it are of round {before}")]
    Rounds { tensor: String, round: i32, before: i32 },
    #[error("its tensors are no set: {0}")]
    Set(sheaf_tensor::Error),
    #[error("it holds no tensor")]
    Empty,
}

/// Reads a model file from pieces of any size.
#[derive(Debug)]
pub struct ModelReader {
    pipeline: Pipeline,
    limits: Limits,
    /// The most bytes that all tensors may unfold to.
    total_bytes_max: u64,
    total_bytes: u64,
    fields: Fields,
    open: Option<TensorReader>,
    decoder: Option<(String, Decoder, Vec<u8>)>,
    round_number: Option<i32>,
    tensors: Vec<Tensor>,
}

impl ModelReader {
    /// A reader of files that this pipeline wrote.
    pub fn new(pipeline: Pipeline, limits: Limits, total_bytes_max: u64) -> ModelReader {
        ModelReader {
            pipeline,
            limits,
            total_bytes_max,
            total_bytes: 0,
            fields: Fields::default(),
            open: None,
            decoder: None,
            round_number: None,
            tensors: Vec::new(),
        }
    }

    /// Takes the next piece of the file.
    ///
    /// # Errors
    /// [`StateError`]; the reader is of no use afterwards.
    pub fn feed(&mut self, mut piece: Bytes) -> Result<(), StateError> {
        while let Some(event) = self.fields.next(&mut piece).map_err(StateError::Encoding)? {
            match event {
                Event::Begin(1, _, true) => {
                    if self.tensors.len() >= ParamSet::TENSORS_MAX {
                        return Err(StateError::TooLarge { max: self.total_bytes_max });
                    }
                    self.open = Some(TensorReader::new(self.limits));
                }
                Event::Bytes(mut bytes) => self.within(&mut bytes)?,
                Event::End => self.end()?,
                Event::Begin(..) | Event::Varint(..) => {}
            }
        }
        Ok(())
    }

    fn within(&mut self, bytes: &mut Bytes) -> Result<(), StateError> {
        while let Some(reader) = &mut self.open {
            match reader.next(bytes).map_err(StateError::Tensor)? {
                None => break,
                Some(Part::Head(head)) => self.head(head)?,
                Some(Part::Bytes(bytes)) => {
                    if let Some((_, decoder, out)) = &mut self.decoder {
                        decoder.push(&bytes, out).map_err(StateError::Tensor)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn head(&mut self, head: Head) -> Result<(), StateError> {
        let before = *self.round_number.get_or_insert(head.round_number);
        if before != head.round_number {
            return Err(StateError::Rounds { tensor: head.name, round: head.round_number, before });
        }
        let decoder = Decoder::new(self.pipeline, &head, &self.limits).map_err(StateError::Tensor)?;
        self.total_bytes = self.total_bytes.saturating_add(decoder.shape().num_elements().saturating_mul(4));
        if self.total_bytes > self.total_bytes_max {
            return Err(StateError::TooLarge { max: self.total_bytes_max });
        }
        self.decoder = Some((head.name, decoder, Vec::new()));
        Ok(())
    }

    fn end(&mut self) -> Result<(), StateError> {
        let Some(reader) = self.open.take() else { return Ok(()) };
        if let Some(head) = reader.finish().map_err(StateError::Tensor)? {
            self.head(head)?;
        }
        let Some((name, decoder, mut out)) = self.decoder.take() else { return Ok(()) };
        let shape = decoder.finish(&mut out).map_err(StateError::Tensor)?;
        self.tensors.push(tensor(&name, shape, out.into()).map_err(StateError::Tensor)?);
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`StateError`] for a file that ends early or holds no set of tensors.
    pub fn finish(self) -> Result<Model, StateError> {
        self.fields.finish().map_err(StateError::Encoding)?;
        let round_number = self.round_number.ok_or(StateError::Empty)?;
        let params = ParamSet::new(self.tensors).map_err(StateError::Set)?;
        Ok(Model { round_number, params })
    }
}

/// Reads a model file.
///
/// # Errors
/// [`StateError`].
pub fn read(path: &Path, pipeline: Pipeline, total_bytes_max: u64) -> Result<Model, StateError> {
    let failed = |source| StateError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let limits = Limits {
        tensor_bytes_max: total_bytes_max,
        unfolded_bytes_max: total_bytes_max,
        metadata_len_max: total_bytes_max.saturating_mul(4),
    };
    let mut reader = ModelReader::new(pipeline, limits, total_bytes_max);
    loop {
        let mut piece = BytesMut::zeroed(PIECE_LEN);
        let len = file.read(&mut piece).map_err(failed)?;
        if len == 0 {
            return reader.finish();
        }
        piece.truncate(len);
        reader.feed(piece.freeze())?;
    }
}

/// Writes a model file as upstream does; the seed decides what a pipeline draws.
///
/// # Errors
/// [`StateError::Write`], [`StateError::Tensor`]; the file is then what it was.
pub fn write(path: &Path, model: &Model, pipeline: Pipeline, seed: u64) -> Result<(), StateError> {
    replace(path, |file| {
        for (tensor, number) in model.params.iter().zip(0u64..) {
            let encoded = encode(pipeline, tensor, seed.wrapping_add(number)).map_err(StateError::Tensor)?;
            let message = NamedTensor {
                name: tensor.name().to_owned(),
                round_number: model.round_number,
                lossless: true,
                report: false,
                tags: vec![MODEL.to_owned()],
                transformer_metadata: encoded.metadata,
                data_bytes: encoded.bytes,
            };
            let mut bytes = Vec::new();
            prost::encoding::message::encode(1, &message, &mut bytes);
            file.write_all(&bytes).map_err(|source| StateError::Write { path: path.to_owned(), source })?;
        }
        Ok(())
    })
}

/// Writes a model as safetensors, without loss.
///
/// # Errors
/// [`StateError::Write`], [`StateError::Set`]; the file is then what it was.
pub fn write_safetensors(path: &Path, model: &Model) -> Result<(), StateError> {
    let words = [("round_number".to_owned(), model.round_number.to_string())];
    let words = safetensors::Metadata::from(words);
    replace(path, |file| safetensors::write(&model.params, &words, file).map_err(StateError::Set))
}

/// A model file that is written tensor by tensor, of models that no pipeline changes.
#[derive(Debug)]
pub struct ModelFile(Replacement);

impl ModelFile {
    /// Begins to write; until [`ModelFile::finish`] the file is what it was.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn begin(path: &Path) -> Result<ModelFile, StateError> {
        Replacement::begin(path).map(ModelFile)
    }

    /// Begins the next tensor; its bytes follow, as many as it has.
    ///
    /// # Errors
    /// [`StateError::Write`]; [`StateError::Tensor`] for a shape that cannot be written.
    pub fn tensor(&mut self, spec: &TensorSpec, round_number: i32) -> Result<(), StateError> {
        let dims = spec.shape.dims().iter().map(|dim| i32::try_from(*dim));
        let dims: Result<Vec<i32>, _> = dims.collect();
        let fault = |_| StateError::Tensor(Fault::Shape { dims: Vec::new() }.of(&spec.name));
        let head = NamedTensor {
            name: spec.name.clone(),
            round_number,
            lossless: true,
            report: false,
            tags: vec![MODEL.to_owned()],
            transformer_metadata: vec![MetadataProto {
                int_list: dims.map_err(fault)?,
                ..MetadataProto::default()
            }],
            data_bytes: Bytes::new(),
        };
        let len = spec.byte_len();
        let mut tensor = head.encode_to_vec();
        if len > 0 {
            // data_bytes: field 7, length-delimited.
            tensor.push(0x3a);
            prost::encoding::encode_varint(len, &mut tensor);
        }
        // tensors: field 1, length-delimited.
        let mut before = vec![0x0a];
        prost::encoding::encode_varint(tensor.len() as u64 + len, &mut before);
        self.bytes(&before)?;
        self.bytes(&tensor)
    }

    /// Writes the next bytes of the tensor begun last.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.0.fill(|file| file.write_all(bytes))
    }

    /// Ends the file and puts it in place.
    ///
    /// # Errors
    /// [`StateError::Write`]; the file is then what it was.
    pub fn finish(self) -> Result<(), StateError> {
        self.0.commit()
    }
}

/// A file written beside its place; dropped before it is committed, it leaves nothing behind.
#[derive(Debug)]
struct Replacement {
    path: PathBuf,
    folder: PathBuf,
    beside: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Replacement {
    fn begin(path: &Path) -> Result<Replacement, StateError> {
        let failed = |source| StateError::Write { path: path.to_owned(), source };
        let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(".partial");
        let beside = folder.join(beside);
        let file = Some(BufWriter::new(File::create(&beside).map_err(failed)?));
        Ok(Replacement { path: path.to_owned(), folder: folder.to_owned(), beside, file })
    }

    fn failed(&self, source: io::Error) -> StateError {
        StateError::Write { path: self.path.clone(), source }
    }

    fn fill(&mut self, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), StateError> {
        let filled = match &mut self.file {
            Some(file) => fill(file),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        filled.map_err(|source| self.failed(source))
    }

    /// Flushes, then takes the place.
    fn commit(mut self) -> Result<(), StateError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let put = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| {
            file.sync_all()?;
            std::fs::rename(&self.beside, &self.path)?;
            File::open(&self.folder)?.sync_all()
        });
        put.map_err(|source| self.failed(source))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Once it has taken its place nothing is left there; what is left of a broken one helps nobody.
        drop(std::fs::remove_file(&self.beside));
    }
}

/// Writes beside the place, flushes, then takes the place.
fn replace(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), StateError>,
) -> Result<(), StateError> {
    let mut beside = Replacement::begin(path)?;
    if let Some(file) = &mut beside.file {
        fill(file)?;
    }
    beside.commit()
}

#[cfg(test)]
mod tests;
