//! Unit tests of the conversions, against the `half` crate and plain arithmetic.

use half::{bf16, f16};

use super::*;

fn widened(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    let mut out = vec![f64::NAN; bytes.len() / dtype.size()];
    to_f64(dtype, bytes, &mut out).unwrap();
    out
}

fn narrowed(dtype: Dtype, values: &[f64]) -> Vec<u8> {
    let mut out = vec![0xaa; values.len() * dtype.size()];
    from_f64(dtype, values, &mut out).unwrap();
    out
}

fn all_halves() -> (Vec<u16>, Vec<u8>) {
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    let bytes = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    (halves, bytes)
}

/// The values next to and halfway between all neighbours of a 16-bit float, where rounding is decided.
fn rounding_cases(dtype: Dtype, largest_finite: u16) -> Vec<f64> {
    let (_, bytes) = all_halves();
    let values = widened(dtype, &bytes[..2 * usize::from(largest_finite) + 2]);
    let step_past = values[values.len() - 1] - values[values.len() - 2];
    let past_largest = values[values.len() - 1] + step_past;
    let uppers = values.iter().skip(1).chain([&past_largest]);
    let mut cases = Vec::new();
    for (low, high) in values.iter().zip(uppers) {
        let middle = low + (high - low) / 2.0;
        cases.extend([*low, middle.next_down(), middle, middle.next_up(), low.next_up(), high.next_down()]);
    }
    cases.extend(cases.clone().iter().map(|value| -value));
    cases.extend([
        0.0,
        -0.0,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        f64::MIN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ]);
    cases
}

/// Rounds by search: the nearest of the two neighbours, the one with the even last bit on a tie.
fn nearest_even(value: f64, finite: &[f64]) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    let low = finite.partition_point(|candidate| *candidate <= magnitude) - 1;
    let step = finite[finite.len() - 1] - finite[finite.len() - 2];
    let high = finite.get(low + 1).copied().unwrap_or(finite[finite.len() - 1] + step);
    // The neighbours are within a factor of two of the value, or 0: the differences are exact.
    let (below, above) = (magnitude - finite[low], high - magnitude);
    let up = usize::from(above < below || (above == below && low % 2 == 1));
    u16::try_from(low + up).unwrap() | sign
}

#[test]
fn every_half_widens_as_the_half_crate_widens_it() {
    let (halves, bytes) = all_halves();
    let pairs = [
        (Dtype::F16, halves.iter().map(|half| f16::from_bits(*half).to_f64()).collect::<Vec<_>>()),
        (Dtype::Bf16, halves.iter().map(|half| bf16::from_bits(*half).to_f64()).collect()),
    ];
    for (dtype, expected) in pairs {
        for (ours, theirs) in widened(dtype, &bytes).iter().zip(&expected) {
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{ours} {theirs}"
            );
        }
    }
}

#[test]
fn every_half_survives_the_way_there_and_back() {
    let (halves, bytes) = all_halves();
    for (dtype, exponent, nan) in [(Dtype::F16, 0x7c00, 0x7e00), (Dtype::Bf16, 0x7f80, 0x7fc0)] {
        let back = narrowed(dtype, &widened(dtype, &bytes));
        for (half, back) in halves.iter().zip(back.as_chunks::<2>().0) {
            let expected = if half & 0x7fff > exponent { nan } else { *half };
            assert_eq!(u16::from_le_bytes(*back), expected, "{dtype} {half:#06x}");
        }
    }
}

#[test]
fn halves_are_rounded_once_to_nearest_even() {
    for (dtype, largest_finite) in [(Dtype::F16, 0x7bff), (Dtype::Bf16, 0x7f7f)] {
        let (_, bytes) = all_halves();
        let finite = widened(dtype, &bytes[..2 * usize::from(largest_finite) + 2]);
        let cases = rounding_cases(dtype, largest_finite);
        for (value, half) in cases.iter().zip(narrowed(dtype, &cases).as_chunks::<2>().0) {
            let bounded = value.clamp(-1e300, 1e300);
            let expected = nearest_even(bounded, &finite);
            assert_eq!(u16::from_le_bytes(*half), expected, "{dtype} of {value:e}");
        }
    }
}

#[test]
fn rounding_over_the_nearest_f32_would_be_wrong() {
    // Just above the middle of two neighbours: the nearest f32 is the middle itself.
    let value = 1.0 + f64::powi(2.0, -11) + f64::powi(2.0, -40);
    assert_eq!(narrowed(Dtype::F16, &[value]), 0x3c01u16.to_le_bytes());
    let value = 1.0 + f64::powi(2.0, -8) + f64::powi(2.0, -40);
    assert_eq!(narrowed(Dtype::Bf16, &[value]), 0x3f81u16.to_le_bytes());
}

#[test]
fn integers_round_half_to_even_and_saturate() {
    let values = [0.5, 1.5, 2.5, -0.5, -1.5, 1e300, -1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let check = |dtype: Dtype, expected: [f64; 10]| {
        assert_eq!(widened(dtype, &narrowed(dtype, &values)), expected, "{dtype}");
    };
    let signed = |min: f64, max: f64| [0.0, 2.0, 2.0, 0.0, -2.0, max, min, max, min, 0.0];
    check(Dtype::I8, signed(i8::MIN.into(), i8::MAX.into()));
    check(Dtype::I16, signed(i16::MIN.into(), i16::MAX.into()));
    check(Dtype::I32, signed(i32::MIN.into(), i32::MAX.into()));
    check(Dtype::I64, signed(i64::MIN as f64, i64::MAX as f64));
    let unsigned = |max: f64| [0.0, 2.0, 2.0, 0.0, 0.0, max, 0.0, max, 0.0, 0.0];
    check(Dtype::U8, unsigned(u8::MAX.into()));
    check(Dtype::U16, unsigned(u16::MAX.into()));
    check(Dtype::U32, unsigned(u32::MAX.into()));
    check(Dtype::U64, unsigned(u64::MAX as f64));
}

#[test]
fn booleans_are_split_at_one_half() {
    let values = [0.0, 0.49, 0.5, 1.0, 7.0, -3.0, f64::NAN];
    assert_eq!(narrowed(Dtype::Bool, &values), [0, 0, 1, 1, 1, 0, 0]);
    assert_eq!(widened(Dtype::Bool, &[0, 1, 255]), [0.0, 1.0, 1.0]);
}

#[test]
fn floats_keep_their_values() {
    let values = [0.0, -0.0, 1.0 / 3.0, 1e-310, f64::MAX, f64::NEG_INFINITY];
    assert_eq!(widened(Dtype::F64, &narrowed(Dtype::F64, &values)), values);
    let singles = [0.1f32, f32::MAX, f32::from_bits(1), f32::INFINITY].map(f64::from);
    assert_eq!(widened(Dtype::F32, &narrowed(Dtype::F32, &singles)), singles);
    assert_eq!(widened(Dtype::F32, &narrowed(Dtype::F32, &[1e39])), [f64::INFINITY]);
}

#[test]
fn lengths_must_match() {
    for dtype in Dtype::ALL {
        let num_bytes = 3 * dtype.size();
        for wrong in [0, 2, 4] {
            let error = Error::WrongTile { dtype, num_bytes, num_elements: wrong };
            assert_eq!(to_f64(dtype, &vec![0; num_bytes], &mut vec![0.0; wrong]), Err(error.clone()));
            assert_eq!(from_f64(dtype, &vec![0.0; wrong], &mut vec![0; num_bytes]), Err(error));
        }
    }
    assert!(to_f64(Dtype::F32, &[0; 5], &mut [0.0]).is_err());
}

#[test]
fn what_is_not_finite_is_found_wherever_it_is() {
    let bads = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for dtype in [Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::F64] {
        let mut values = vec![1.0; 5000];
        values[17] = -0.0;
        assert_eq!(first_non_finite(dtype, &narrowed(dtype, &values)), None);
        for (place, bad) in [0, 1023, 1024, 4999].into_iter().zip(bads) {
            let mut values = values.clone();
            values[place] = bad;
            assert_eq!(
                first_non_finite(dtype, &narrowed(dtype, &values)),
                Some(place as u64),
                "{dtype} {bad}"
            );
            values[4999] = f64::NAN;
            assert_eq!(
                first_non_finite(dtype, &narrowed(dtype, &values)),
                Some(place as u64),
                "{dtype} {bad}"
            );
        }
    }
}

#[test]
fn the_largest_floats_are_finite_and_the_smallest_nan_is_not() {
    let cases: [(Dtype, &[u8], &[u8]); 4] = [
        (Dtype::F16, &[0xff, 0xfb], &[0x01, 0x7c]),
        (Dtype::Bf16, &[0x7f, 0xff], &[0x81, 0xff]),
        (Dtype::F32, &f32::MIN.to_le_bytes(), &[1, 0, 0x80, 0x7f]),
        (Dtype::F64, &f64::MAX.to_le_bytes(), &[1, 0, 0, 0, 0, 0, 0xf0, 0xff]),
    ];
    for (dtype, finite, nan) in cases {
        assert_eq!(first_non_finite(dtype, finite), None, "{dtype}");
        assert_eq!(first_non_finite(dtype, nan), Some(0), "{dtype}");
    }
    for dtype in [Dtype::I8, Dtype::U64, Dtype::Bool] {
        assert_eq!(first_non_finite(dtype, &[0xff; 64]), None, "{dtype}");
    }
}

#[test]
fn the_first_bad_boolean_is_found() {
    let mut bytes = vec![1; 3000];
    assert_eq!(first_bad_bool(&bytes), None);
    bytes[2999] = 2;
    assert_eq!(first_bad_bool(&bytes), Some(2999));
    bytes[1024] = 255;
    assert_eq!(first_bad_bool(&bytes), Some(1024));
}
