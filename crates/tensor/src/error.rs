//! What can be wrong with tensors and the containers they come in.

/// A tensor, a set of tensors or a container that is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More dimensions than [`crate::RANK_MAX`].
    #[error("a shape of {rank} dimensions exceeds the limit of {}", crate::RANK_MAX)]
    RankTooLarge {
        /// The number of dimensions claimed.
        rank: usize,
    },
    /// The product of the extents does not fit.
    #[error("the shape {dims:?} overflows the size of a tensor")]
    ShapeOverflow {
        /// The extents claimed.
        dims: Vec<u64>,
    },
    /// An empty, over-long or unprintable name.
    #[error("{name:?} is not a usable tensor name")]
    BadName {
        /// The first characters of the name.
        name: String,
    },
    /// Two tensors of one set share a name.
    #[error("tensor {name:?} appears twice")]
    DuplicateName {
        /// The shared name.
        name: String,
    },
    /// The bytes given are not as many as dtype and shape say.
    #[error("tensor {name:?} needs {expected} bytes, got {got}")]
    WrongLength {
        /// The tensor's name.
        name: String,
        /// Bytes that dtype and shape ask for.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
    /// A boolean byte that is neither 0 nor 1.
    #[error("tensor {name:?} has a boolean that is neither 0 nor 1 at index {index}")]
    BadBool {
        /// The tensor's name.
        name: String,
        /// The flat index of the byte.
        index: u64,
    },
    /// A stretch of bytes and a stretch of values that do not belong together.
    #[error("{num_bytes} bytes are not {num_elements} elements of {dtype}")]
    WrongTile {
        /// The element type.
        dtype: crate::Dtype,
        /// Bytes given.
        num_bytes: usize,
        /// Elements given.
        num_elements: usize,
    },
    /// The writer a container was to go to failed.
    #[error("cannot write {format}: {reason}")]
    Write {
        /// The container format.
        format: &'static str,
        /// What sort of failure it was.
        kind: std::io::ErrorKind,
        /// What the writer said.
        reason: String,
    },
    /// A container that breaks its format.
    #[error("not a valid {format} file: {reason}")]
    Malformed {
        /// The container format, such as `npy`.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A container that is valid but holds something refused (object arrays, unknown dtypes).
    #[error("unsupported {format} content: {reason}")]
    Unsupported {
        /// The container format.
        format: &'static str,
        /// What is not supported.
        reason: String,
    },
    /// A bound on size or count was exceeded.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The bound.
        limit: u64,
    },
}

impl Error {
    /// The error of a writer that failed.
    pub(crate) fn write(format: &'static str, error: &std::io::Error) -> Error {
        Error::Write { format, kind: error.kind(), reason: error.to_string() }
    }
}
