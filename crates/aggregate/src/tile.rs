//! Tiles: the same run of elements of every update, as raw little-endian bytes, and how elements are read.
//!
//! Lengths are checked once per tile ([`TileSet::check`]); the kernels then run over whole blocks of one element
//! type, chosen once per tile by [`with_element`], with no decision per element.

use std::ops::RangeInclusive;

use sheaf_tensor::Dtype;

use crate::Error;
use crate::key::Key;

/// One tile of every update of a cohort.
///
/// # Shapes
/// `rows: [K][P]` elements as bytes, in canonical participant order; `base: [P]`.
#[derive(Debug, Clone, Copy)]
pub struct TileSet<'a> {
    /// The element type of the tensor the tile is from.
    pub dtype: Dtype,
    /// The tile of each update.
    pub rows: &'a [&'a [u8]],
    /// The same tile of the current model; only the norm-clipped mean needs it.
    pub base: Option<&'a [u8]>,
}

impl TileSet<'_> {
    /// Checks that there is a tile of each of `num_updates` updates and all are equally long.
    ///
    /// Returns the number of elements.
    pub(crate) fn check(&self, num_updates: usize) -> Result<usize, Error> {
        if self.rows.len() != num_updates {
            return Err(Error::RowCount { expected: num_updates, got: self.rows.len() });
        }
        let first = self.rows.first().map_or(0, |row| row.len());
        let num_elements = first / self.dtype.size();
        let expected = num_elements * self.dtype.size();
        for (idx, row) in self.rows.iter().enumerate() {
            if row.len() != expected {
                return Err(Error::TileLength { what: format!("update {idx}"), expected, got: row.len() });
            }
        }
        match self.base {
            Some(base) if base.len() != expected => {
                Err(Error::TileLength { what: "the current model".to_owned(), expected, got: base.len() })
            }
            _ => Ok(num_elements),
        }
    }

    /// Names the first row and element that is not finite, if there is one (the current model last).
    pub(crate) fn non_finite(&self) -> Option<Error> {
        let position = |row: &[u8]| {
            let element = sheaf_tensor::element::first_non_finite(self.dtype, row)?;
            Some(usize::try_from(element).unwrap_or(usize::MAX))
        };
        for (row, bytes) in self.rows.iter().enumerate() {
            if let Some(element) = position(bytes) {
                return Some(Error::NonFinite { row, element });
            }
        }
        let element = self.base.and_then(position)?;
        Some(Error::BaseNonFinite { element })
    }
}

/// The number of elements of a tile when each takes `element_bytes` of a budget: an odd multiple of 64, at least 64.
///
/// The least tile may exceed the budget. `element_bytes` grows with the cohort, so tiles shrink with it. The multiple is
/// odd so that rows that follow one another in memory do not all begin at the same place of a page: such rows would
/// compete for the same sets of the cache.
pub fn tile_len(budget_bytes: u64, element_bytes: u64) -> usize {
    let steps = (budget_bytes / element_bytes.max(1) / TILE_STEP).max(1);
    let odd = (steps - 1) / 2 * 2 + 1;
    usize::try_from(odd * TILE_STEP).unwrap_or(usize::MAX - 63)
}

/// One element type: its bytes, its value as an f64, and the key values are ordered by.
///
/// # Numerics
/// Exact for every type but the 64-bit integers, which are rounded to the nearest f64 beyond 2^53.
pub(crate) trait Element {
    /// The bytes of one element.
    type Raw: Copy;
    /// What stands for a value where values are put in order.
    type Key: Key;
    /// Whether a float32 holds every value.
    const IS_NARROW: bool;
    /// The keys of finite values.
    const FINITE: RangeInclusive<Self::Key>;
    /// The bytes of a row as elements.
    fn raw(bytes: &[u8]) -> &[Self::Raw];
    /// The value of one element.
    fn value(raw: Self::Raw) -> f64;
    /// The key of one element.
    fn key(raw: Self::Raw) -> Self::Key;
    /// The value of a key, zero always the positive one.
    fn value_of_key(key: Self::Key) -> f64;
}

/// The element types, named as the dtypes.
pub(crate) mod elements {
    use std::ops::RangeInclusive;

    use super::Element;
    use crate::key;

    macro_rules! element {
        ($name:ident, $size:literal, $narrow:expr, $key:ident, $finite:ident, $raw:ident => $value:expr, $key_of:expr, $of_key:expr) => {
            pub(crate) enum $name {}
            impl Element for $name {
                type Raw = [u8; $size];
                type Key = $key;
                const IS_NARROW: bool = $narrow;
                const FINITE: RangeInclusive<$key> = key::$finite;
                #[inline]
                fn raw(bytes: &[u8]) -> &[[u8; $size]] {
                    bytes.as_chunks().0
                }
                #[inline(always)]
                fn value($raw: [u8; $size]) -> f64 {
                    f64::from($value)
                }
                #[inline(always)]
                fn key($raw: [u8; $size]) -> $key {
                    $key_of($value)
                }
                #[inline(always)]
                fn value_of_key(key: $key) -> f64 {
                    f64::from($of_key(key))
                }
            }
        };
        ($name:ident, $size:literal, f32, $raw:ident => $value:expr) => {
            element!($name, $size, true, i32, FINITE_F32, $raw => $value, key::of_f32, key::to_f32);
        };
        ($name:ident, $size:literal, f64, $raw:ident => $value:expr) => {
            element!($name, $size, false, i64, FINITE_F64, $raw => $value, key::of_f64, key::to_f64);
        };
        ($name:ident, $size:literal, i32, $raw:ident => $value:expr) => {
            element!($name, $size, $size <= 2, i32, ALL_32, $raw => $value, i32::from, std::convert::identity::<i32>);
        };
    }

    element!(F16, 2, f32, raw => super::f16_to_f32(u16::from_le_bytes(raw)));
    // A bfloat16 is the upper half of a binary32; widening it is exact, NaN and infinity included.
    element!(Bf16, 2, f32, raw => f32::from_bits(u32::from(u16::from_le_bytes(raw)) << 16));
    element!(F32, 4, f32, raw => f32::from_le_bytes(raw));
    element!(F64, 8, f64, raw => f64::from_le_bytes(raw));
    element!(I8, 1, i32, raw => i8::from_le_bytes(raw));
    element!(I16, 2, i32, raw => i16::from_le_bytes(raw));
    element!(I32, 4, i32, raw => i32::from_le_bytes(raw));
    element!(I64, 8, f64, raw => i64::from_le_bytes(raw) as f64);
    element!(U8, 1, i32, raw => u8::from_le_bytes(raw));
    element!(U16, 2, i32, raw => u16::from_le_bytes(raw));
    element!(U32, 4, f64, raw => f64::from(u32::from_le_bytes(raw)));
    element!(U64, 8, f64, raw => u64::from_le_bytes(raw) as f64);
    element!(Bool, 1, i32, raw => u8::from(raw != [0]));
}

/// Evaluates an expression with `E` bound to the [`Element`] of a dtype.
macro_rules! with_element {
    ($dtype:expr, $element:ident => $body:expr) => {{
        use $crate::tile::elements;
        macro_rules! arm {
            ($name:ident) => {{
                type $element = elements::$name;
                $body
            }};
        }
        match $dtype {
            sheaf_tensor::Dtype::F16 => arm!(F16),
            sheaf_tensor::Dtype::Bf16 => arm!(Bf16),
            sheaf_tensor::Dtype::F32 => arm!(F32),
            sheaf_tensor::Dtype::F64 => arm!(F64),
            sheaf_tensor::Dtype::I8 => arm!(I8),
            sheaf_tensor::Dtype::I16 => arm!(I16),
            sheaf_tensor::Dtype::I32 => arm!(I32),
            sheaf_tensor::Dtype::I64 => arm!(I64),
            sheaf_tensor::Dtype::U8 => arm!(U8),
            sheaf_tensor::Dtype::U16 => arm!(U16),
            sheaf_tensor::Dtype::U32 => arm!(U32),
            sheaf_tensor::Dtype::U64 => arm!(U64),
            sheaf_tensor::Dtype::Bool => arm!(Bool),
        }
    }};
}
pub(crate) use with_element;

/// Widens a binary16, exactly, without a branch and without meeting a binary32 subnormal (which would be slow).
///
/// The bits, moved to the place of a binary32, lack the difference of the exponent biases, 112; infinity and NaN
/// lack twice that. A subnormal is read as the fraction above 2^-14, which is then taken off.
/// No sum here can overflow; `wrapping_add` leaves out the check, which would keep the loop from being vectorised.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let normal = magnitude.wrapping_add(BIAS);
    let subnormal = (f32::from_bits(normal.wrapping_add(EXPONENT_ONE)) - TWO_TO_MINUS_14).to_bits();
    let widened = if magnitude < EXPONENT_ONE { subnormal } else { normal };
    let special = if magnitude < EXPONENT_ALL { 0 } else { BIAS };
    f32::from_bits(widened.wrapping_add(special) | u32::from(bits & 0x8000) << 16)
}

const TILE_STEP: u64 = 64;
/// The least exponent of a binary32, the greatest of a moved binary16, and the difference of the biases.
const EXPONENT_ONE: u32 = 1 << 23;
const EXPONENT_ALL: u32 = 31 << 23;
const BIAS: u32 = 112 << 23;
const TWO_TO_MINUS_14: f32 = f32::from_bits(113 << 23);

#[cfg(test)]
mod tests {
    use super::*;

    fn value(dtype: Dtype, bytes: &[u8]) -> f64 {
        with_element!(dtype, E => E::value(E::raw(bytes)[0]))
    }

    #[test]
    fn every_dtype_reads_its_little_endian_bytes() {
        assert_eq!(value(Dtype::F16, &0xc100u16.to_le_bytes()), -2.5);
        assert_eq!(value(Dtype::Bf16, &0xc020u16.to_le_bytes()), -2.5);
        assert_eq!(value(Dtype::F32, &(-2.5f32).to_le_bytes()), -2.5);
        assert_eq!(value(Dtype::F64, &(-2.5f64).to_le_bytes()), -2.5);
        assert_eq!(value(Dtype::I8, &[0x80]), -128.0);
        assert_eq!(value(Dtype::I16, &(-300i16).to_le_bytes()), -300.0);
        assert_eq!(value(Dtype::I32, &(-70_000i32).to_le_bytes()), -70_000.0);
        assert_eq!(value(Dtype::I64, &(-5_000_000_000i64).to_le_bytes()), -5_000_000_000.0);
        assert_eq!(value(Dtype::U8, &[0x80]), 128.0);
        assert_eq!(value(Dtype::U16, &60_000u16.to_le_bytes()), 60_000.0);
        assert_eq!(value(Dtype::U32, &4_000_000_000u32.to_le_bytes()), 4_000_000_000.0);
        assert_eq!(value(Dtype::U64, &(1u64 << 63).to_le_bytes()), 9_223_372_036_854_775_808.0);
        assert_eq!(value(Dtype::Bool, &[1]), 1.0);
        assert!(value(Dtype::Bf16, &0x7f80u16.to_le_bytes()).is_infinite());
        assert!(value(Dtype::F16, &0x7e00u16.to_le_bytes()).is_nan());
    }

    /// The kernels read elements by themselves, for speed; they must not read them otherwise than the rest does.
    #[test]
    fn sixteen_bit_floats_are_read_as_everywhere() {
        for bits in 0..=u16::MAX {
            for dtype in [Dtype::F16, Dtype::Bf16] {
                let mut expected = [0.0];
                sheaf_tensor::element::to_f64(dtype, &bits.to_le_bytes(), &mut expected).unwrap();
                let value = value(dtype, &bits.to_le_bytes());
                let same = value.to_bits() == expected[0].to_bits() || value.is_nan() && expected[0].is_nan();
                assert!(same, "{dtype} {bits:#x}: {value}, {}", expected[0]);
            }
        }
    }

    #[test]
    fn tiles_fit_the_budget_and_shrink_as_elements_grow() {
        let mut last = usize::MAX;
        for element_bytes in [16, 48, 480, 4800, 40_000] {
            let len = tile_len(8 << 20, element_bytes);
            assert!(len % 128 == 64 && len < last, "{element_bytes} bytes an element: {len}");
            assert!(len == 64 || len as u64 * element_bytes <= 8 << 20);
            last = len;
        }
        assert_eq!(tile_len(0, 8), 64);
        assert_eq!(tile_len(1 << 20, u64::MAX), 64);
        assert_eq!(tile_len(u64::MAX, 0) % 64, 0);
    }
}
