//! The two 16-bit floats: binary16 and bfloat16, to `f32` exactly and from `f64` with one rounding.
//!
//! Branch-free integer and float arithmetic, without instructions of one processor: the same bits on every target.
//! Needs the default floating-point environment (no flushing of subnormals), as all of Rust does.
//!
//! # Source
//! Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd".

/// Widens a binary16, exactly.
#[inline(always)]
pub(super) fn f16_to_f32(half: u16) -> f32 {
    // Exponent and mantissa moved into place are off by the difference of the biases; a product with a power of two
    // mends that, for subnormals too.
    const BIAS_DIFFERENCE: f32 = f32::from_bits((127 + 127 - 15) << 23);
    let magnitude = f32::from_bits(u32::from(half & 0x7fff) << 13) * BIAS_DIFFERENCE;
    let special = if half & 0x7c00 == 0x7c00 { F32_EXPONENT } else { 0 };
    let sign = u32::from(half & 0x8000) << 16;
    f32::from_bits(magnitude.to_bits() | special | sign)
}

/// Widens a bfloat16, exactly: it is the upper half of an `f32`.
#[inline(always)]
pub(super) fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// Rounds to binary16, to nearest, ties to even. Every NaN becomes the same quiet one.
#[inline(always)]
pub(super) fn f16_from_f64(value: f64) -> u16 {
    const NORMAL_MIN: u32 = (127 - 14) << 23;
    const OVERFLOW: u32 = (127 + 16) << 23;
    // Adding it to a subnormal leaves the rounded mantissa in the lowest bits.
    const SUBNORMAL_MAGIC: f32 = f32::from_bits((127 - 15 + 23 - 10 + 1) << 23);

    let bits = round_to_odd(value).to_bits();
    let magnitude = bits & !F32_SIGN;
    let subnormal =
        (f32::from_bits(magnitude) + SUBNORMAL_MAGIC).to_bits().wrapping_sub(SUBNORMAL_MAGIC.to_bits());
    let is_odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub((127 - 15) << 23).wrapping_add(0xfff_u32.wrapping_add(is_odd)) >> 13;
    let finite = if magnitude < NORMAL_MIN { subnormal } else { normal };
    let rounded = if magnitude < OVERFLOW { finite } else { 0x7c00 };
    low_half(if magnitude > F32_EXPONENT { 0x7e00 } else { rounded | (bits & F32_SIGN) >> 16 })
}

/// Rounds to bfloat16, to nearest, ties to even. Every NaN becomes the same quiet one.
#[inline(always)]
pub(super) fn bf16_from_f64(value: f64) -> u16 {
    let bits = round_to_odd(value).to_bits();
    let is_odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff_u32.wrapping_add(is_odd)) >> 16;
    low_half(if bits & !F32_SIGN > F32_EXPONENT { 0x7fc0 } else { rounded })
}

/// Narrows to `f32`, an inexact result to whichever neighbour has an odd mantissa.
///
/// Rounding that once more, to at most 22 bits, gives what rounding `value` directly would, where the way
/// over a nearest `f32` may round twice.
#[expect(clippy::cast_possible_truncation, reason = "the rounding this function corrects")]
#[inline(always)]
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let widened = f64::from(nearest);
    let bits = nearest.to_bits();
    let is_even_and_inexact = u32::from(widened != value) & u32::from(!value.is_nan()) & !bits & 1;
    let is_beyond = u32::from(widened.abs() > value.abs());
    // The other neighbour is one step towards zero or away from it.
    let step_back = is_even_and_inexact & is_beyond;
    let step_on = is_even_and_inexact & (1 ^ is_beyond);
    f32::from_bits(bits.wrapping_sub(step_back).wrapping_add(step_on))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the upper half is zero: callers shift their result down"
)]
#[inline(always)]
fn low_half(bits: u32) -> u16 {
    bits as u16
}

const F32_SIGN: u32 = 0x8000_0000;
const F32_EXPONENT: u32 = 0x7f80_0000;
