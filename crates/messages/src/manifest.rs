//! Manifests and tensor lists on the wire.

use std::collections::HashSet;

use sheaf_domain::{Codec, Manifest, ManifestTensor, Segment};
use sheaf_tensor::{Dtype, TensorSpec};

use crate::text::{digest, limit};
use crate::{Error, v1};

/// A manifest for the wire.
pub fn manifest_to_wire(manifest: &Manifest) -> v1::Manifest {
    let tensors = manifest.tensors.iter().map(|tensor| v1::PlacedTensor {
        name: tensor.spec.name.clone(),
        dtype: tensor.spec.dtype.name().to_owned(),
        shape: tensor.spec.shape.dims().to_vec(),
        segments: tensor.segments.iter().map(segment_to_wire).collect(),
    });
    v1::Manifest { codec: RAW.to_owned(), tensors: tensors.collect() }
}

/// A manifest from the wire that passes [`Manifest::check`].
///
/// # Errors
/// [`Error`] naming the first field that is wrong.
pub fn manifest_from_wire(manifest: &v1::Manifest) -> Result<Manifest, Error> {
    if manifest.codec != RAW {
        return Err(Error::unknown("codec", &manifest.codec, "\"raw\""));
    }
    limit("tensors", manifest.tensors.len(), Manifest::TENSORS_MAX)?;
    let num_segments: usize = manifest.tensors.iter().map(|tensor| tensor.segments.len()).sum();
    limit("segments", num_segments, Manifest::SEGMENTS_MAX)?;
    let tensors = manifest.tensors.iter().map(|tensor| {
        let spec = spec(&tensor.name, &tensor.dtype, &tensor.shape)?;
        let segments = tensor.segments.iter().map(segment_from_wire).collect::<Result<_, _>>()?;
        Ok(ManifestTensor { spec, segments })
    });
    let manifest = Manifest { codec: Codec::Raw, tensors: tensors.collect::<Result<_, Error>>()? };
    manifest.check().map_err(|error| Error::bad("manifest", error))?;
    Ok(manifest)
}

/// Tensor specifications for the wire, in order.
pub fn specs_to_wire<'a>(specs: impl Iterator<Item = &'a TensorSpec>) -> Vec<v1::Tensor> {
    specs
        .map(|spec| v1::Tensor {
            name: spec.name.clone(),
            dtype: spec.dtype.name().to_owned(),
            shape: spec.shape.dims().to_vec(),
        })
        .collect()
}

/// Tensor specifications from the wire: unique names, and a total length that fits in 63 bits.
///
/// # Errors
/// [`Error`] naming the first field that is wrong.
pub fn specs_from_wire(tensors: &[v1::Tensor]) -> Result<Vec<TensorSpec>, Error> {
    limit("tensors", tensors.len(), Manifest::TENSORS_MAX)?;
    let mut names = HashSet::with_capacity(tensors.len());
    let mut total = 0u64;
    let mut specs = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let spec = spec(&tensor.name, &tensor.dtype, &tensor.shape)?;
        if !names.insert(tensor.name.as_str()) {
            return Err(Error::bad("tensors", format!("tensor {:?} appears twice", tensor.name)));
        }
        total = total
            .checked_add(spec.byte_len())
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or_else(|| Error::bad("tensors", "their sizes overflow"))?;
        specs.push(spec);
    }
    Ok(specs)
}

fn spec(name: &str, dtype: &str, shape: &[u64]) -> Result<TensorSpec, Error> {
    let dtype = Dtype::from_name(dtype).ok_or_else(|| Error::unknown("dtype", dtype, DTYPES))?;
    TensorSpec::new(name, dtype, shape).map_err(|error| Error::bad("tensor", error))
}

fn segment_to_wire(segment: &Segment) -> v1::Segment {
    v1::Segment { object: segment.object.to_string(), offset: segment.offset, length: segment.len }
}

fn segment_from_wire(segment: &v1::Segment) -> Result<Segment, Error> {
    Ok(Segment { object: digest(&segment.object)?, offset: segment.offset, len: segment.length })
}

const RAW: &str = "raw";
const DTYPES: &str = "f16 bf16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 bool";

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_domain::Digest;

    fn sample() -> Manifest {
        let specs = vec![
            TensorSpec::new("w", Dtype::F32, [2, 3]).unwrap(),
            TensorSpec::new("scale", Dtype::Bf16, []).unwrap(),
        ];
        let pieces = [Digest::of(b"a"), Digest::of(b"b")];
        Manifest::over_pieces(specs, 16, &pieces).unwrap()
    }

    #[test]
    fn a_manifest_survives_the_wire() {
        let wire = manifest_to_wire(&sample());
        assert_eq!(manifest_from_wire(&wire), Ok(sample()));
        let specs: Vec<TensorSpec> = sample().specs().cloned().collect();
        assert_eq!(specs_from_wire(&specs_to_wire(specs.iter())), Ok(specs));
    }

    #[test]
    fn what_a_peer_may_get_wrong_is_refused() {
        let break_it = |change: fn(&mut v1::Manifest)| {
            let mut wire = manifest_to_wire(&sample());
            change(&mut wire);
            manifest_from_wire(&wire).unwrap_err().to_string()
        };
        assert!(break_it(|wire| wire.codec = "zip".into()).contains("codec"));
        assert!(break_it(|wire| wire.tensors[0].dtype = "complex".into()).contains("complex"));
        assert!(break_it(|wire| wire.tensors[0].shape = vec![u64::MAX, 2]).contains("overflow"));
        assert!(break_it(|wire| wire.tensors[0].name = "a\nb".into()).contains("name"));
        assert!(break_it(|wire| wire.tensors[1].name = "w".into()).contains("twice"));
        assert!(break_it(|wire| wire.tensors[0].segments[0].object = "00".into()).contains("digest"));
        assert!(break_it(|wire| wire.tensors[0].segments[0].length = u64::MAX).contains("manifest"));
    }

    #[test]
    fn specs_that_overflow_together_are_refused() {
        let tensor = |name: &str| v1::Tensor { name: name.into(), dtype: "u8".into(), shape: vec![1 << 59] };
        let tensors: Vec<v1::Tensor> = (0..16).map(|idx| tensor(&idx.to_string())).collect();
        assert!(specs_from_wire(&tensors).unwrap_err().to_string().contains("overflow"));
        assert!(specs_from_wire(&tensors[..2]).is_ok());
    }
}
