//! Tensors as they travel: a head with one metadata entry for each transformer, and bytes that the transformers made.
//!
//! Pure. Which codec undoes the bytes is decided by the plan's pipeline and the tensor's tags; what the codec needs is
//! in the metadata, which must have the form that codec gives it. Everything is float32 on the wire, whatever it was.
//! Refused by name, with the tensor's: metadata of another form, shapes and tables that lie, bytes that are more or fewer
//! than the shape says, gzip that is none or unfolds to more, tensors over their bound. Memory follows what was received,
//! never what was claimed.
//!
//! Source: observed with openfl 1.9.

use bytes::Bytes;
use sheaf_tensor::{Dtype, Shape, Tensor, TensorSpec};

use crate::fields::FieldError;
use crate::proto::{MetadataProto, NamedTensor};

pub mod decoder;
mod eden;
mod encoder;
mod gunzip;
mod kmeans;
mod metadata;
pub mod reader;
mod sparse;

pub use decoder::Decoder;
pub use encoder::{Encoded, encode};

/// The tag of a tensor that the lossless codec made.
pub const COMPRESSED: &str = "compressed";
/// The tag of a tensor that the plan's lossy pipeline made.
pub const LOSSY_COMPRESSED: &str = "lossy_compressed";

/// A chain of transformers by its name in a plan, with what its settings come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pipeline {
    /// float32, row-major, little-endian.
    NoCompression,
    /// A random number added to each element; the numbers travel in the metadata.
    RandomShift,
    /// The largest magnitudes, then three values, then gzip.
    Stc {
        /// The share of elements kept, above 0 and at most 1.
        p_sparsity: f64,
    },
    /// The largest magnitudes, then k-means, then gzip.
    Skc {
        /// The share of elements kept, above 0 and at most 1.
        p_sparsity: f64,
        /// The most distinct values.
        n_clusters: u32,
    },
    /// k-means, then gzip.
    Kc {
        /// The most distinct values.
        n_clusters: u32,
    },
    /// Random rotation and quantisation to a few bits an element.
    Eden {
        /// Bits for each element, 1 to 8.
        n_bits: u8,
        /// Tensors of fewer elements are left as they are.
        dim_threshold: u64,
    },
}

impl Pipeline {
    /// The longest metadata of one transformer that tensors of at most so many elements have, in bytes: only a shift tells something of each.
    pub fn metadata_len_max(self, num_elements: u64) -> u64 {
        match self {
            Pipeline::RandomShift => {
                METADATA_LEN.saturating_add(SHIFT_LEN.saturating_mul(num_elements)).min(SHIFTS_LEN_MAX)
            }
            _ => METADATA_LEN,
        }
    }

    /// The name of its class in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Pipeline::NoCompression => "NoCompressionPipeline",
            Pipeline::RandomShift => "RandomShiftPipeline",
            Pipeline::Stc { .. } => "STCPipeline",
            Pipeline::Skc { .. } => "SKCPipeline",
            Pipeline::Kc { .. } => "KCPipeline",
            Pipeline::Eden { .. } => "EdenPipeline",
        }
    }

    /// Whether what comes out may differ from what went in, other than by rounding.
    pub fn is_lossy(self) -> bool {
        !matches!(self, Pipeline::NoCompression | Pipeline::RandomShift)
    }

    /// Whether what comes out may differ from what went in by a single bit.
    pub fn is_inexact(self) -> bool {
        self != Pipeline::NoCompression
    }

    /// What encodes where no loss is allowed: itself, or no compression.
    pub fn lossless(self) -> Pipeline {
        if self.is_lossy() { Pipeline::NoCompression } else { self }
    }

    /// The codec that made a tensor of these tags, where this is the plan's pipeline.
    ///
    /// # Errors
    /// [`Fault::NoCodec`] without either tag.
    pub fn of_tags<T: AsRef<str>>(self, tags: &[T]) -> Result<Pipeline, Fault> {
        let has = |wanted: &str| tags.iter().any(|tag| tag.as_ref() == wanted);
        if has(COMPRESSED) {
            Ok(self.lossless())
        } else if has(LOSSY_COMPRESSED) {
            Ok(self)
        } else {
            Err(Fault::NoCodec)
        }
    }
}

/// What a transformer's metadata may come to that tells nothing of each element: shapes, tables of codes.
const METADATA_LEN: u64 = 64 * 1_024;
/// What a shift tells of an element: an entry of a map, with its place and a float32.
const SHIFT_LEN: u64 = 16;
/// The most that shifts of one tensor come to.
const SHIFTS_LEN_MAX: u64 = 64 << 20;

/// How much of a tensor is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes a tensor may unfold to, at four bytes an element.
    pub tensor_bytes_max: u64,
    /// The same of one that a codec unfolds: few bytes of it may come to a thousand times as many.
    pub unfolded_bytes_max: u64,
    /// The longest metadata of one transformer, in bytes. A shift takes about twelve for each element.
    pub metadata_len_max: u64,
}

impl Default for Limits {
    /// What upstream's limit of 1 GiB a message leaves for one tensor.
    fn default() -> Limits {
        Limits { tensor_bytes_max: 1 << 30, unfolded_bytes_max: 1 << 30, metadata_len_max: 1 << 20 }
    }
}

/// All of a tensor but its bytes.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Head {
    pub name: String,
    pub round_number: i32,
    pub lossless: bool,
    pub report: bool,
    pub tags: Vec<String>,
    /// In the order the transformers were applied.
    pub metadata: Vec<MetadataProto>,
}

impl Head {
    /// The head and the bytes of a tensor that was read whole.
    pub fn split(tensor: NamedTensor) -> (Head, Bytes) {
        let NamedTensor { name, round_number, lossless, report, tags, transformer_metadata, data_bytes } =
            tensor;
        (Head { name, round_number, lossless, report, tags, metadata: transformer_metadata }, data_bytes)
    }
}

/// Why a tensor is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("tensor {tensor:?} is refused: {fault}")]
pub struct Refusal {
    /// The first characters of the tensor's name; empty when it had none yet.
    pub tensor: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What can be wrong with a tensor.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fault {
    #[error("it has neither the tag compressed nor lossy_compressed")]
    NoCodec,
    #[error("its metadata is not what {codec} makes: {reason}")]
    Transformers { codec: &'static str, reason: &'static str },
    #[error("its shape {dims:?} is none")]
    Shape { dims: Vec<i32> },
    #[error("it unfolds to {len} bytes, and at most {max} are taken")]
    TooLarge { len: u64, max: u64 },
    #[error("its bytes are more than its shape of {expected} says")]
    TooManyBytes { expected: u64 },
    #[error("it has {got} bytes where its shape says {expected}")]
    TooFewBytes { expected: u64, got: u64 },
    #[error("its table of values lies: {reason}")]
    Table { reason: &'static str },
    #[error("it has the code {code}, and its table has {len} values")]
    Code { code: f32, len: usize },
    #[error("its gzip is not valid: {reason}")]
    Gzip { reason: String },
    #[error("its name cannot be used")]
    Name,
    #[error("{field} claims {len} bytes, and at most {max} are read")]
    TooLong { field: &'static str, len: u64, max: u64 },
    #[error("{field} is not valid")]
    Malformed { field: &'static str },
    #[error("{field} comes where it may not")]
    Misplaced { field: &'static str },
    #[error("it has more than {max} {field}")]
    TooMany { field: &'static str, max: usize },
    #[error("its message is not valid: {0}")]
    Encoding(FieldError),
}

impl Fault {
    /// The refusal of the tensor of this name.
    pub fn of(self, name: &str) -> Refusal {
        Refusal { tensor: name.chars().take(64).collect(), fault: self }
    }
}

/// Decodes a tensor whose message was read whole.
///
/// # Errors
/// [`Refusal`].
pub fn decode(codec: Pipeline, head: &Head, bytes: &[u8], limits: &Limits) -> Result<Tensor, Refusal> {
    let mut out = Vec::new();
    let mut decoder = Decoder::new(codec, head, limits)?;
    decoder.push(bytes, &mut out)?;
    let shape = decoder.finish(&mut out)?;
    tensor(&head.name, shape, out.into())
}

/// A float32 tensor of what a decoder gave.
///
/// # Errors
/// [`Fault::Name`].
pub fn tensor(name: &str, shape: Shape, bytes: Bytes) -> Result<Tensor, Refusal> {
    let spec = TensorSpec { name: name.to_owned(), dtype: Dtype::F32, shape };
    Tensor::new(spec, bytes).map_err(|_| Fault::Name.of(name))
}
