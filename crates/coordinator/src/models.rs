//! Reading the bytes of models: stretches of a manifest's canonical byte stream, and digests of whole models.

use bytes::{Bytes, BytesMut};
use sheaf_blob::BlobStore;
use sheaf_domain::{ByteSpan, Digest, Manifest, ModelHasher, Segment};
use sheaf_runtime::Compute;

use crate::Error;

/// How much of a model is read at once when all of it is wanted, in bytes.
const STRIDE: u64 = 1024 * 1024;
/// Above this many bytes hashing leaves the I/O threads.
const HASH_INLINE_MAX: usize = 64 * 1024;
/// Segments may be as short as this on average, beside two a tensor; shorter ones only cost time.
const SEGMENT_LEN_LEAST: u64 = 1024;

/// A manifest laid out for many reads: every segment with where it begins in the canonical byte stream.
#[derive(Debug)]
pub(crate) struct Layout {
    starts: Vec<u64>,
    segments: Vec<Segment>,
}

impl Layout {
    pub(crate) fn of(manifest: &Manifest) -> Layout {
        let segments: Vec<Segment> =
            manifest.tensors.iter().flat_map(|tensor| &tensor.segments).cloned().collect();
        let mut position = 0_u64;
        let starts = segments.iter().map(|segment| {
            let start = position;
            position = position.saturating_add(segment.len);
            start
        });
        Layout { starts: starts.collect(), segments }
    }

    /// The stretches of objects that hold `span`; shorter where the stream ends.
    pub(crate) fn locate(&self, span: ByteSpan) -> Vec<Segment> {
        let end = span.offset.saturating_add(span.len);
        let first = self.starts.partition_point(|start| *start <= span.offset).saturating_sub(1);
        let mut found = Vec::new();
        for (start, segment) in self.starts.iter().zip(&self.segments).skip(first) {
            if *start >= end {
                break;
            }
            let from = span.offset.max(*start);
            let to = end.min(start.saturating_add(segment.len));
            if from < to {
                let offset = segment.offset + (from - start);
                found.push(Segment { object: segment.object, offset, len: to - from });
            }
        }
        found
    }
}

/// Reads a stretch of each of several models, in one request to the store.
pub(crate) async fn read_each(
    blob: &dyn BlobStore,
    stretches: &[(&Layout, ByteSpan)],
) -> Result<Vec<Bytes>, Error> {
    let located: Vec<Vec<Segment>> = stretches.iter().map(|(layout, span)| layout.locate(*span)).collect();
    let counts: Vec<usize> = located.iter().map(Vec::len).collect();
    let segments: Vec<Segment> = located.into_iter().flatten().collect();
    let mut parts = blob.read_many(&segments).await?.into_iter();
    Ok(counts.into_iter().map(|count| join(parts.by_ref().take(count).collect())).collect())
}

/// Reads a stretch of a model's canonical byte stream; shorter where the stream ends.
pub(crate) async fn read(blob: &dyn BlobStore, layout: &Layout, span: ByteSpan) -> Result<Bytes, Error> {
    Ok(join(blob.read_many(&layout.locate(span)).await?))
}

/// The parts of one stretch in one piece.
pub(crate) fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.swap_remove(0);
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        joined.extend_from_slice(&part);
    }
    joined.freeze()
}

/// The digest of a stored model.
pub(crate) async fn digest(
    blob: &dyn BlobStore,
    compute: &Compute,
    manifest: &Manifest,
) -> Result<Digest, Error> {
    let layout = Layout::of(manifest);
    let mut hasher = ModelHasher::new();
    let mut position = 0;
    for tensor in &manifest.tensors {
        hasher.tensor(&tensor.spec);
        let end = position + tensor.spec.byte_len();
        while position < end {
            let len = STRIDE.min(end - position);
            let bytes = read(blob, &layout, ByteSpan { offset: position, len }).await?;
            hasher = hash(compute, hasher, bytes).await?;
            position += len;
        }
    }
    Ok(hasher.finish())
}

/// Hashes the next bytes of a model, off the I/O threads where they are many.
pub(crate) async fn hash(
    compute: &Compute,
    mut hasher: ModelHasher,
    bytes: Bytes,
) -> Result<ModelHasher, Error> {
    if bytes.len() <= HASH_INLINE_MAX {
        hasher.bytes(&bytes);
        return Ok(hasher);
    }
    let hashed = compute.run(move || {
        hasher.bytes(&bytes);
        hasher
    });
    Ok(hashed.await?)
}

/// Checks what a manifest handed in from outside may cost: its bytes, and the number of its segments.
pub(crate) fn check_cost(manifest: &Manifest, byte_len_max: u64) -> Result<(), String> {
    let mut bytes = 0_u64;
    let mut segments = 0_u64;
    for tensor in &manifest.tensors {
        bytes = bytes.saturating_add(tensor.spec.byte_len());
        segments = segments.saturating_add(tensor.segments.len() as u64);
    }
    if bytes > byte_len_max {
        return Err(format!("the model has {bytes} bytes, the limit is {byte_len_max}"));
    }
    let segments_max = (2 * manifest.tensors.len() as u64).saturating_add(bytes / SEGMENT_LEN_LEAST);
    if segments > segments_max {
        return Err(format!("{bytes} bytes lie in {segments} segments, the limit is {segments_max}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_domain::PIECE_LEN_DEFAULT;
    use sheaf_tensor::{Dtype, TensorSpec};

    fn manifest(piece_len: u64) -> Manifest {
        let specs = vec![
            TensorSpec::new("a", Dtype::F32, [3]).unwrap(),
            TensorSpec::new("empty", Dtype::F32, [0]).unwrap(),
            TensorSpec::new("b", Dtype::U8, [7]).unwrap(),
        ];
        let pieces: Vec<Digest> =
            (0..19_u64.div_ceil(piece_len)).map(|i| Digest::of(&i.to_le_bytes())).collect();
        Manifest::over_pieces(specs, piece_len, &pieces).unwrap()
    }

    #[test]
    fn a_layout_locates_what_its_manifest_does() {
        for piece_len in [1, 2, 8, 19, 64] {
            let manifest = manifest(piece_len);
            let layout = Layout::of(&manifest);
            for offset in 0..22 {
                for len in 0..22 {
                    let span = ByteSpan { offset, len };
                    assert_eq!(layout.locate(span), manifest.locate(span), "pieces of {piece_len}, {span:?}");
                }
            }
        }
    }

    #[test]
    fn a_manifest_that_costs_more_than_its_model_is_refused() {
        assert_eq!(check_cost(&manifest(PIECE_LEN_DEFAULT), 19), Ok(()));
        assert!(check_cost(&manifest(PIECE_LEN_DEFAULT), 18).unwrap_err().contains("19 bytes"));
        assert!(check_cost(&manifest(1), 19).unwrap_err().contains("19 segments"));
    }
}
