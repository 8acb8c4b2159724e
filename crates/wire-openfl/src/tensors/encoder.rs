//! Makes of a tensor what stock decodes.
//!
//! Invariant: a tensor and a seed always give the same bytes. What comes out is not always what stock would send (it draws shifts,
//! clusters and rotations at random), but [`super::decode`] and stock's own decoder make the same float32 of it.
//! Refused: tensors that are not float32.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sheaf_tensor::{Dtype, Tensor};

use super::{Fault, Pipeline, Refusal, eden, kmeans, metadata, sparse};
use crate::proto::MetadataProto;

/// A tensor's metadata and bytes on the wire.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Encoded {
    pub metadata: Vec<MetadataProto>,
    pub bytes: Bytes,
}

/// Encodes a float32 tensor; the seed decides what a codec draws.
///
/// # Errors
/// [`Fault::Malformed`] for another type of elements; [`Fault::Shape`] for an extent beyond 31 bits.
pub fn encode(codec: Pipeline, tensor: &Tensor, seed: u64) -> Result<Encoded, Refusal> {
    let shape = shape(tensor).map_err(|fault| fault.of(tensor.name()))?;
    let values = || -> Vec<f32> {
        let (words, _) = tensor.bytes.as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    let count = tensor.spec.shape.num_elements();
    Ok(match codec {
        Pipeline::NoCompression => raw(shape, tensor),
        Pipeline::RandomShift => shifted(shape, &values(), seed),
        Pipeline::Stc { p_sparsity } => {
            let (codes, table) = sparse::ternary(&sparse::sparse(values(), p_sparsity));
            coded(vec![of_shape(shape), of_table(apart(table, true)), MetadataProto::default()], &codes)
        }
        Pipeline::Skc { p_sparsity, n_clusters } => {
            let (codes, table) = kmeans::cluster(&sparse::sparse(values(), p_sparsity), n_clusters);
            coded(vec![of_shape(shape), of_table(apart(table, false)), MetadataProto::default()], &codes)
        }
        Pipeline::Kc { n_clusters } => {
            let (codes, table) = kmeans::cluster(&values(), n_clusters);
            let first = MetadataProto { int_list: shape, ..of_table(apart(table, false)) };
            coded(vec![first, MetadataProto::default()], &codes)
        }
        // From this size on: a reader takes a tensor of exactly so many elements for rotated.
        Pipeline::Eden { n_bits, dim_threshold } if count >= dim_threshold && count > 0 => {
            let (int_to_float, bits) = eden::encode(&values(), n_bits, seed);
            let metadata = MetadataProto { int_to_float, ..of_shape(shape) };
            Encoded { metadata: vec![metadata], bytes: bits.into() }
        }
        Pipeline::Eden { .. } => raw(shape, tensor),
    })
}

fn shape(tensor: &Tensor) -> Result<Vec<i32>, Fault> {
    if tensor.spec.dtype != Dtype::F32 {
        return Err(Fault::Malformed { field: "its type, which is not float32," });
    }
    let dims = tensor.spec.shape.dims().iter().map(|dim| i32::try_from(*dim));
    dims.collect::<Result<_, _>>().map_err(|_| Fault::Shape { dims: Vec::new() })
}

fn raw(shape: Vec<i32>, tensor: &Tensor) -> Encoded {
    Encoded { metadata: vec![of_shape(shape)], bytes: tensor.bytes.clone() }
}

fn shifted(shape: Vec<i32>, values: &[f32], seed: u64) -> Encoded {
    let mut state = seed;
    let shifts: Vec<f32> = values.iter().map(|_| draw(&mut state)).collect();
    let bytes: Vec<u8> =
        values.iter().zip(&shifts).flat_map(|(value, shift)| (value + shift).to_le_bytes()).collect();
    let shift = MetadataProto { int_list: shape.clone(), ..of_table(shifts) };
    Encoded { metadata: vec![shift, of_shape(shape)], bytes: bytes.into() }
}

/// A number from -20 up to 20, by SplitMix64.
fn draw(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    #[expect(clippy::cast_precision_loss, reason = "24 bits")]
    let unit = ((z ^ (z >> 31)) >> 40) as f32 / 16_777_216.0;
    unit.mul_add(40.0, -20.0)
}

fn coded(metadata: Vec<MetadataProto>, codes: &[u32]) -> Encoded {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    for some in codes.chunks(16 * 1_024) {
        #[expect(clippy::cast_precision_loss, reason = "codes are fewer than 2^24")]
        let words: Vec<u8> = some.iter().flat_map(|code| (*code as f32).to_le_bytes()).collect();
        // Writing to memory does not fail.
        let written = gzip.write_all(&words);
        debug_assert!(written.is_ok());
    }
    Encoded { metadata, bytes: gzip.finish().unwrap_or_default().into() }
}

/// Values of which none is a code of the table: those that are move by their last bit.
///
/// The wire requires it: a reader puts values for codes in place one code after the other, in an order of its own, and a value that equals
/// a later code would be replaced once more. Of ternary tables the zero stays: it equals code 0, which is put in place first.
fn apart(mut table: Vec<f32>, keeps_zero: bool) -> Vec<f32> {
    let len = table.len();
    for value in &mut table {
        let is_code = metadata::index(*value).is_some_and(|code| code < len);
        if is_code && !(keeps_zero && *value == 0.0) {
            *value = f32::from_bits(value.to_bits() + 1);
        }
    }
    table
}

fn of_shape(int_list: Vec<i32>) -> MetadataProto {
    MetadataProto { int_list, ..MetadataProto::default() }
}

fn of_table(table: Vec<f32>) -> MetadataProto {
    MetadataProto { int_to_float: (0..).zip(table).collect(), ..MetadataProto::default() }
}
