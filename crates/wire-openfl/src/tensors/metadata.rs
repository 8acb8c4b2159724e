//! What a codec is told by the metadata, checked against the form that the codec gives it.
//!
//! Refused: another number of entries, values in places that codec leaves empty, keys that do not count from zero,
//! shapes with negative extents or over the bound.

use sheaf_tensor::Shape;

use super::eden::Params;
use super::{Fault, Limits, Pipeline};
use crate::proto::MetadataProto;

/// The most values of a table.
const TABLE_LEN_MAX: usize = 65_536;

/// How the bytes are to be read.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// float32 as it is.
    Raw,
    /// float32, from each of which its number is taken.
    Shifted(Vec<f32>),
    /// gzip of float32 codes; what each stands for.
    Coded(Vec<f32>),
    /// Planes of bits.
    Eden(Params),
}

/// The shape a tensor says it has, and how its bytes are to be read.
pub(super) fn read(
    codec: Pipeline,
    metadata: &[MetadataProto],
    limits: &Limits,
) -> Result<(Shape, Plan), Fault> {
    let wrong = |reason| Fault::Transformers { codec: codec.name(), reason };
    if metadata.iter().any(|entry| !entry.bool_list.is_empty()) {
        return Err(wrong("it has truth values"));
    }
    let plain = |entry: &MetadataProto| entry.int_to_float.is_empty();
    let bare = |entry: &MetadataProto| entry.int_list.is_empty();
    match (codec, metadata) {
        (Pipeline::NoCompression, [one]) if plain(one) => {
            Ok((shape(&one.int_list, limits.tensor_bytes_max)?, Plan::Raw))
        }
        (Pipeline::RandomShift, [shift, last]) if plain(last) && shift.int_list == last.int_list => {
            let shape = shape(&last.int_list, limits.unfolded_bytes_max)?;
            let shifts = counted(shift).ok_or_else(|| wrong("its shifts do not count from zero"))?;
            if shifts.len() as u64 != shape.num_elements() {
                return Err(wrong("it has not as many shifts as elements"));
            }
            Ok((shape, Plan::Shifted(shifts)))
        }
        (Pipeline::Stc { .. } | Pipeline::Skc { .. }, [first, codes, last])
            if plain(first) && bare(codes) && plain(last) && bare(last) =>
        {
            let shape = shape(&first.int_list, limits.unfolded_bytes_max)?;
            Ok((shape, Plan::Coded(table(codes)?)))
        }
        (Pipeline::Kc { .. }, [codes, last]) if plain(last) && bare(last) => {
            let shape = shape(&codes.int_list, limits.unfolded_bytes_max)?;
            Ok((shape, Plan::Coded(table(codes)?)))
        }
        (Pipeline::Eden { n_bits, .. }, [one]) => {
            // Small tensors are left as they are. Observed: one of exactly `dim_threshold` elements too.
            if plain(one) {
                return Ok((shape(&one.int_list, limits.tensor_bytes_max)?, Plan::Raw));
            }
            let shape = shape(&one.int_list, limits.unfolded_bytes_max)?;
            let values = counted(one).ok_or_else(|| wrong("its numbers do not count from zero"))?;
            let params = Params::read(&values, n_bits, shape.num_elements()).map_err(wrong)?;
            Ok((shape, Plan::Eden(params)))
        }
        _ => Err(wrong("the entries are others")),
    }
}

fn shape(int_list: &[i32], max: u64) -> Result<Shape, Fault> {
    let wrong = || Fault::Shape { dims: int_list.iter().copied().take(8).collect() };
    let dims: Option<Vec<u64>> = int_list.iter().map(|dim| u64::try_from(*dim).ok()).collect();
    let shape = Shape::new(dims.ok_or_else(wrong)?).map_err(|_| wrong())?;
    let len = shape.num_elements().saturating_mul(4);
    if len > max {
        return Err(Fault::TooLarge { len, max });
    }
    Ok(shape)
}

/// The values, when their keys are 0, 1, 2 and so on.
fn counted(entry: &MetadataProto) -> Option<Vec<f32>> {
    let is_counted = entry.int_to_float.keys().zip(0..).all(|(key, wanted)| *key == wanted);
    is_counted.then(|| entry.int_to_float.values().copied().collect())
}

/// What each code stands for.
///
/// Each code is its value, also where that value equals a code.
fn table(entry: &MetadataProto) -> Result<Vec<f32>, Fault> {
    if entry.int_to_float.len() > TABLE_LEN_MAX {
        return Err(Fault::Table { reason: "it is too long" });
    }
    counted(entry).ok_or(Fault::Table { reason: "its codes do not count from zero" })
}

/// A float as the place of a table, when it is one.
pub(super) fn index(code: f32) -> Option<usize> {
    // Beyond this floats are no longer every whole number, and no table is as long.
    let is_whole = (0.0..16_777_216.0).contains(&code) && code.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within bounds")]
    is_whole.then_some(code as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(values: &[(i32, f32)], int_list: &[i32]) -> MetadataProto {
        let int_to_float = values.iter().copied().collect();
        MetadataProto { int_to_float, int_list: int_list.to_vec(), bool_list: Vec::new() }
    }

    const KC: Pipeline = Pipeline::Kc { n_clusters: 6 };

    fn fault(codec: Pipeline, metadata: &[MetadataProto]) -> Fault {
        read(codec, metadata, &Limits::default()).expect_err("it is refused")
    }

    #[test]
    fn metadata_of_another_codec_is_refused() {
        let shaped = entry(&[], &[2, 2]);
        let both = entry(&[(0, 1.0)], &[2, 2]);
        let none = entry(&[], &[]);
        let eden = Pipeline::Eden { n_bits: 4, dim_threshold: 100 };
        for (codec, metadata) in [
            (Pipeline::NoCompression, vec![]),
            (Pipeline::NoCompression, vec![shaped.clone(), none.clone()]),
            (Pipeline::NoCompression, vec![both.clone()]),
            (Pipeline::RandomShift, vec![shaped.clone()]),
            (Pipeline::RandomShift, vec![both.clone(), shaped.clone()]),
            (KC, vec![shaped.clone(), none.clone(), none.clone()]),
            (KC, vec![both.clone(), shaped.clone()]),
            (Pipeline::Stc { p_sparsity: 0.1 }, vec![both.clone(), none]),
            (eden, vec![both]),
            (eden, vec![]),
        ] {
            let fault = fault(codec, &metadata);
            assert!(matches!(fault, Fault::Transformers { .. }), "{codec:?} {metadata:?} {fault:?}");
        }
        let truth = MetadataProto { bool_list: vec![true], ..shaped };
        assert!(matches!(fault(Pipeline::NoCompression, &[truth]), Fault::Transformers { .. }));
    }

    #[test]
    fn shapes_and_tables_that_lie_are_refused() {
        let none = entry(&[], &[]);
        let of = |dims: &[i32]| fault(Pipeline::NoCompression, &[entry(&[], dims)]);
        assert!(matches!(of(&[-1]), Fault::Shape { .. }));
        assert!(matches!(of(&[i32::MAX, i32::MAX, i32::MAX, 0]), Fault::Shape { .. }));
        assert!(matches!(of(&[1; 33]), Fault::Shape { .. }));
        assert_eq!(of(&[1 << 20, 1 << 20]), Fault::TooLarge { len: 1 << 42, max: 1 << 30 });
        let holes = entry(&[(0, 1.0), (2, 2.0)], &[4]);
        assert!(matches!(fault(KC, &[holes, none.clone()]), Fault::Table { .. }));
        let below = entry(&[(-1, 1.0), (0, 2.0)], &[4]);
        assert!(matches!(fault(KC, &[below, none]), Fault::Table { .. }));
    }
}
