//! Manifests: what a model or an update consists of, and where its bytes are.
//!
//! A manifest is an ordered list of tensors, each with the segments of stored objects that hold its bytes. It holds no
//! bytes. A manifest from a peer must pass [`Manifest::check`] before anything is read by it.

use serde::{Deserialize, Serialize};
use sheaf_tensor::TensorSpec;

use crate::{Digest, Error};

/// The length of the pieces our own client cuts a model into, in bytes.
pub const PIECE_LEN_DEFAULT: u64 = 4 * 1024 * 1024;

/// How the stored bytes of a manifest are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Codec {
    /// Little-endian elements in row-major order, nothing else.
    Raw,
}

/// A stretch of a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Segment {
    /// The object.
    pub object: Digest,
    /// Where the stretch begins in it, in bytes.
    pub offset: u64,
    /// How long the stretch is, in bytes.
    pub len: u64,
}

/// A tensor and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ManifestTensor {
    /// Name, dtype and shape.
    #[serde(flatten)]
    pub spec: TensorSpec,
    /// The stretches that, one after another, are its bytes.
    pub segments: Vec<Segment>,
}

/// An ordered set of tensors over stored objects.
///
/// # Examples
/// ```
/// use sheaf_domain::{ByteSpan, Digest, Manifest};
/// use sheaf_tensor::{Dtype, TensorSpec};
///
/// let specs = vec![TensorSpec::new("w", Dtype::F32, [3])?];
/// let manifest = Manifest::over_pieces(specs, 8, &[Digest::of(b"piece 0"), Digest::of(b"piece 1")])?;
/// manifest.check()?;
/// assert_eq!(manifest.byte_len(), 12);
/// assert_eq!(manifest.locate(ByteSpan { offset: 6, len: 4 }).len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Manifest {
    /// How the bytes are to be read.
    pub codec: Codec,
    /// The tensors, in order.
    pub tensors: Vec<ManifestTensor>,
}

/// A stretch of a model's canonical byte stream: all tensors' bytes one after another, in manifest order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSpan {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
}

impl Manifest {
    /// The most tensors a manifest may have.
    pub const TENSORS_MAX: usize = 100_000;
    /// The most segments a manifest may have, over all tensors.
    pub const SEGMENTS_MAX: usize = 1_000_000;

    /// A manifest of no tensors.
    pub fn empty() -> Manifest {
        Manifest { codec: Codec::Raw, tensors: Vec::new() }
    }

    /// Lays `specs` over consecutive pieces of `piece_len` bytes; `pieces` are the digests of those pieces in order.
    ///
    /// # Errors
    /// [`Error::BadManifest`] when the number of pieces does not fit the bytes.
    pub fn over_pieces(specs: Vec<TensorSpec>, piece_len: u64, pieces: &[Digest]) -> Result<Manifest, Error> {
        let total: u64 = specs.iter().map(TensorSpec::byte_len).sum();
        if piece_len == 0 || total.div_ceil(piece_len) != pieces.len() as u64 {
            return Err(Error::BadManifest(format!(
                "{total} bytes in pieces of {piece_len} are not {} pieces",
                pieces.len()
            )));
        }
        let mut position = 0;
        let mut tensors = Vec::with_capacity(specs.len());
        for spec in specs {
            let end = position + spec.byte_len();
            let mut segments = Vec::new();
            while position < end {
                let offset = position % piece_len;
                let len = (piece_len - offset).min(end - position);
                let piece_idx = usize::try_from(position / piece_len).unwrap_or(usize::MAX);
                let object = *pieces
                    .get(piece_idx)
                    .ok_or_else(|| Error::BadManifest("a tensor lies beyond the last piece".to_owned()))?;
                segments.push(Segment { object, offset, len });
                position += len;
            }
            tensors.push(ManifestTensor { spec, segments });
        }
        Ok(Manifest { codec: Codec::Raw, tensors })
    }

    /// Checks counts, names, and that every tensor's segments are as long as its dtype and shape say.
    ///
    /// # Errors
    /// [`Error::BadManifest`] naming the tensor.
    pub fn check(&self) -> Result<(), Error> {
        if self.tensors.len() > Self::TENSORS_MAX {
            return Err(Error::BadManifest(format!(
                "{} tensors exceed the limit of {}",
                self.tensors.len(),
                Self::TENSORS_MAX
            )));
        }
        let mut num_segments = 0usize;
        let mut names = std::collections::HashSet::with_capacity(self.tensors.len());
        let mut total = 0u64;
        for tensor in &self.tensors {
            let spec = &tensor.spec;
            spec.check_name().map_err(|error| Error::BadManifest(error.to_string()))?;
            if !names.insert(spec.name.as_str()) {
                return Err(Error::BadManifest(format!("tensor {:?} appears twice", spec.name)));
            }
            num_segments += tensor.segments.len();
            let mut len = 0u64;
            for segment in &tensor.segments {
                let in_object = segment.offset.checked_add(segment.len);
                if segment.len == 0 || in_object.is_none() {
                    return Err(Error::BadManifest(format!(
                        "tensor {:?} has an empty or overflowing segment",
                        spec.name
                    )));
                }
                len = len.checked_add(segment.len).ok_or_else(|| {
                    Error::BadManifest(format!("the segments of tensor {:?} overflow", spec.name))
                })?;
            }
            if len != spec.byte_len() {
                return Err(Error::BadManifest(format!(
                    "tensor {:?} ({} {}) needs {} bytes, its segments hold {len}",
                    spec.name,
                    spec.dtype,
                    spec.shape,
                    spec.byte_len()
                )));
            }
            total = total
                .checked_add(len)
                .ok_or_else(|| Error::BadManifest("the tensors' sizes overflow".to_owned()))?;
        }
        if num_segments > Self::SEGMENTS_MAX {
            return Err(Error::BadManifest(format!(
                "{num_segments} segments exceed the limit of {}",
                Self::SEGMENTS_MAX
            )));
        }
        Ok(())
    }

    /// The length of the canonical byte stream.
    pub fn byte_len(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.spec.byte_len()).sum()
    }

    /// The distinct objects referred to, in order of first use.
    pub fn objects(&self) -> Vec<Digest> {
        let mut seen = std::collections::HashSet::new();
        self.tensors
            .iter()
            .flat_map(|tensor| &tensor.segments)
            .filter(|segment| seen.insert(segment.object))
            .map(|segment| segment.object)
            .collect()
    }

    /// The stretches of objects that hold `span` of the canonical byte stream; shorter where the stream ends.
    pub fn locate(&self, span: ByteSpan) -> Vec<Segment> {
        let end = span.offset.saturating_add(span.len);
        let mut position = 0u64;
        let mut found = Vec::new();
        for segment in self.tensors.iter().flat_map(|tensor| &tensor.segments) {
            let segment_end = position + segment.len;
            let from = span.offset.max(position);
            let to = end.min(segment_end);
            if from < to {
                found.push(Segment {
                    object: segment.object,
                    offset: segment.offset + (from - position),
                    len: to - from,
                });
            }
            position = segment_end;
            if position >= end {
                break;
            }
        }
        found
    }

    /// The specifications of the tensors, in order.
    pub fn specs(&self) -> impl Iterator<Item = &TensorSpec> {
        self.tensors.iter().map(|tensor| &tensor.spec)
    }

    /// The first way in which this manifest's tensors are not those of `expected` (names, order, dtypes, shapes).
    pub fn schema_mismatch(&self, expected: &Manifest) -> Option<String> {
        for (idx, want) in expected.tensors.iter().enumerate() {
            let want = &want.spec;
            let Some(got) = self.tensors.get(idx).map(|tensor| &tensor.spec) else {
                return Some(format!("tensor {:?} is missing", want.name));
            };
            if got.name != want.name {
                return Some(format!("tensor {idx} is {:?}, expected {:?}", got.name, want.name));
            }
            if got.dtype != want.dtype {
                return Some(format!("tensor {:?} is {}, expected {}", want.name, got.dtype, want.dtype));
            }
            if got.shape != want.shape {
                return Some(format!(
                    "tensor {:?} has shape {}, expected {}",
                    want.name, got.shape, want.shape
                ));
            }
        }
        self.tensors
            .get(expected.tensors.len())
            .map(|extra| format!("tensor {:?} is not part of the model", extra.spec.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_tensor::Dtype;

    fn manifest() -> Manifest {
        let specs = vec![
            TensorSpec::new("a", Dtype::F32, [3]).unwrap(),
            TensorSpec::new("empty", Dtype::F32, [0]).unwrap(),
            TensorSpec::new("b", Dtype::U8, [7]).unwrap(),
        ];
        let pieces: Vec<Digest> = (0..3u8).map(|i| Digest::of(&[i])).collect();
        Manifest::over_pieces(specs, 8, &pieces).unwrap()
    }

    #[test]
    fn tensors_lie_over_pieces_without_gaps() {
        let manifest = manifest();
        assert_eq!(manifest.check(), Ok(()));
        assert_eq!(manifest.byte_len(), 19);
        assert_eq!(manifest.objects().len(), 3);
        let lens: Vec<u64> = manifest.locate(ByteSpan { offset: 6, len: 12 }).iter().map(|s| s.len).collect();
        assert_eq!(lens, [2, 4, 4, 2]);
        assert!(manifest.locate(ByteSpan { offset: 19, len: 5 }).is_empty());
    }

    #[test]
    fn lying_segments_are_refused() {
        let mut short = manifest();
        short.tensors[0].segments.pop();
        assert!(short.check().is_err());
        let mut huge = manifest();
        huge.tensors[0].segments[0].offset = u64::MAX;
        assert!(huge.check().is_err());
        let mut twice = manifest();
        twice.tensors[1].spec.name = "a".into();
        assert!(twice.check().is_err());
    }

    #[test]
    fn a_schema_mismatch_names_the_tensor() {
        let model = manifest();
        let mut other = manifest();
        other.tensors[2].spec.dtype = Dtype::I8;
        assert_eq!(other.schema_mismatch(&model).as_deref(), Some("tensor \"b\" is i8, expected u8"));
        other.tensors.pop();
        assert_eq!(other.schema_mismatch(&model).as_deref(), Some("tensor \"b\" is missing"));
        assert_eq!(model.schema_mismatch(&model), None);
    }
}
