//! The bytes of models and updates, made piece by piece: nobody holds a whole model.
//!
//! Every element is a small finite value of its dtype: a fixed block of normal numbers, repeated, whose lowest bits are changed
//! by who makes it, in which round, and which piece it is. So no two pieces are alike and nothing is stored once for two; making a
//! piece costs about as much as copying it.

use bytes::Bytes;
use sheaf_domain::rng::SeededRng;
use sheaf_domain::{Digest, Manifest, PIECE_LEN_DEFAULT};
use sheaf_tensor::{Dtype, TensorSpec, element};

use crate::Error;

/// Elements of the repeated block; odd, so that it meets pieces at changing places.
const BLOCK_ELEMENTS: usize = 32_749;
/// The spread of the values.
const SCALE: f64 = 0.02;

/// Whose bytes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// What all pseudo-randomness derives from.
    pub seed: u64,
    /// Which client; 0 is the operator's first model.
    pub client: u32,
    /// Which round.
    pub round: u32,
}

/// Makes the pieces of one model.
#[derive(Debug, Clone)]
pub struct Pieces {
    specs: Vec<TensorSpec>,
    /// The repeated block of each dtype that occurs.
    blocks: Vec<(Dtype, Vec<u8>)>,
    byte_len: u64,
}

impl Pieces {
    /// Pieces of a model of these tensors.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a dtype without values; there is none.
    pub fn new(specs: Vec<TensorSpec>) -> Result<Pieces, Error> {
        let mut blocks: Vec<(Dtype, Vec<u8>)> = Vec::new();
        for spec in &specs {
            if blocks.iter().all(|(dtype, _)| *dtype != spec.dtype) {
                blocks.push((spec.dtype, block(spec.dtype)?));
            }
        }
        let byte_len = crate::model::byte_len(&specs);
        Ok(Pieces { specs, blocks, byte_len })
    }

    /// The tensors.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// How many bytes the model has.
    pub fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// How many pieces it is cut into.
    pub fn count(&self) -> u64 {
        self.byte_len.div_ceil(PIECE_LEN_DEFAULT)
    }

    /// The bytes of one piece.
    pub fn piece(&self, origin: Origin, piece_idx: u64) -> Bytes {
        let start = piece_idx * PIECE_LEN_DEFAULT;
        let end = (start + PIECE_LEN_DEFAULT).min(self.byte_len);
        let mut out = Vec::with_capacity(usize::try_from(end.saturating_sub(start)).unwrap_or(0));
        let mut tensor_start = 0;
        for spec in &self.specs {
            let tensor_end = tensor_start + spec.byte_len();
            let (from, to) = (start.max(tensor_start), end.min(tensor_end));
            if from < to {
                let stamp = stamp(origin, piece_idx, spec.dtype);
                self.fill(&mut out, spec.dtype, from - tensor_start, to - tensor_start, stamp);
            }
            tensor_start = tensor_end;
        }
        Bytes::from(out)
    }

    /// The manifest over pieces of these digests.
    ///
    /// # Errors
    /// [`Error::Domain`] when there are not as many as pieces.
    pub fn manifest(&self, digests: &[Digest]) -> Result<Manifest, Error> {
        Ok(Manifest::over_pieces(self.specs.clone(), PIECE_LEN_DEFAULT, digests)?)
    }

    /// Appends the bytes from `from` to `to` of a tensor.
    fn fill(&self, out: &mut Vec<u8>, dtype: Dtype, from: u64, to: u64, stamp: [u8; 8]) {
        let Some((_, block)) = self.blocks.iter().find(|(of, _)| *of == dtype) else { return };
        let begin = out.len();
        let mut at = usize::try_from(from % block.len() as u64).unwrap_or(0);
        let mut left = usize::try_from(to - from).unwrap_or(0);
        while left > 0 {
            let part = block.get(at..(at + left).min(block.len())).unwrap_or_default();
            out.extend_from_slice(part);
            left -= part.len();
            at = 0;
        }
        // The stamp repeats every eight bytes of the tensor, which keeps it on the lowest bytes of every element.
        let mut turned = stamp;
        turned.rotate_left(usize::try_from(from % 8).unwrap_or(0));
        let mask = u64::from_le_bytes(turned);
        let mut words = out.get_mut(begin..).unwrap_or_default().chunks_exact_mut(8);
        for word in words.by_ref() {
            let mut value = [0; 8];
            value.copy_from_slice(word);
            word.copy_from_slice(&(u64::from_le_bytes(value) ^ mask).to_le_bytes());
        }
        for (byte, mask) in words.into_remainder().iter_mut().zip(turned) {
            *byte ^= mask;
        }
    }
}

/// One block of values: rows to fold are made of it, too.
pub(crate) fn block(dtype: Dtype) -> Result<Vec<u8>, Error> {
    let mut rng = SeededRng::new(0, "bench/block");
    let whole = matches!(
        dtype,
        Dtype::Bool
            | Dtype::U8
            | Dtype::I8
            | Dtype::U16
            | Dtype::I16
            | Dtype::U32
            | Dtype::I32
            | Dtype::U64
            | Dtype::I64
    );
    let value = |rng: &mut SeededRng| match dtype {
        Dtype::Bool => f64::from(u8::try_from(rng.below(2)).unwrap_or(0)),
        _ if whole => f64::from(u8::try_from(rng.below(64)).unwrap_or(0)),
        _ => rng.normal() * SCALE,
    };
    let values: Vec<f64> = (0..BLOCK_ELEMENTS).map(|_| value(&mut rng)).collect();
    let mut bytes = vec![0; BLOCK_ELEMENTS * dtype.size()];
    element::from_f64(dtype, &values, &mut bytes)?;
    Ok(bytes)
}

/// Which bits of eight bytes of a tensor are changed: only such as leave every element finite and small.
fn stamp(origin: Origin, piece_idx: u64, dtype: Dtype) -> [u8; 8] {
    let who = u64::from(origin.client) << 32 | u64::from(origin.round);
    let mixed = mix(mix(mix(origin.seed) ^ who) ^ piece_idx);
    let allowed: u64 = match dtype {
        Dtype::F64 | Dtype::I64 | Dtype::U64 => 0x0000_0000_0000_ffff,
        Dtype::F32 => 0x0000_ffff_0000_ffff,
        Dtype::I32 | Dtype::U32 => 0x0000_00ff_0000_00ff,
        Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 0x001f_001f_001f_001f,
        Dtype::U8 | Dtype::I8 => 0x0f0f_0f0f_0f0f_0f0f,
        _ => 0,
    };
    (mixed & allowed).to_le_bytes()
}

/// Spreads a number over all bits (the finaliser of SplitMix64, Steele 2014).
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_tensor::{Tensor, raw};

    fn specs() -> Vec<TensorSpec> {
        let spec = |name: &str, dtype, dims: Vec<u64>| TensorSpec::new(name, dtype, dims).unwrap();
        vec![
            spec("bytes", Dtype::U8, vec![5]),
            spec("floats", Dtype::F32, vec![1_500, 1_000]),
            spec("halves", Dtype::F16, vec![77]),
            spec("count", Dtype::I64, vec![]),
            spec("flags", Dtype::Bool, vec![9]),
            spec("doubles", Dtype::F64, vec![33]),
        ]
    }

    fn stream(pieces: &Pieces, origin: Origin) -> Vec<u8> {
        (0..pieces.count()).flat_map(|idx| pieces.piece(origin, idx)).collect()
    }

    #[test]
    fn pieces_are_a_model_of_finite_values_and_never_alike() {
        let pieces = Pieces::new(specs()).unwrap();
        let origin = Origin { seed: 1, client: 2, round: 3 };
        let bytes = stream(&pieces, origin);
        assert_eq!(bytes.len() as u64, pieces.byte_len());
        assert!(pieces.count() > 1);
        let params = raw::split(&specs(), Bytes::from(bytes.clone())).unwrap();
        for tensor in params.iter() {
            let Tensor { spec, bytes } = tensor;
            assert_eq!(element::first_non_finite(spec.dtype, bytes), None, "{}", spec.name);
            let values = tensor.to_f64().unwrap();
            assert!(values.iter().all(|value| value.abs() < 70_000.0), "{}", spec.name);
        }
        let mut digests: Vec<Digest> = Vec::new();
        for client in 0..3 {
            for round in 0..3 {
                let origin = Origin { seed: 1, client, round };
                digests.extend((0..pieces.count()).map(|idx| Digest::of(&pieces.piece(origin, idx))));
            }
        }
        let all = digests.len();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), all);
        assert_eq!(stream(&pieces, origin), bytes);
    }
}
