//! Conversions between raw little-endian elements and `f64`, and the checks on element values.
//!
//! Works on any byte slice, aligned or not, and never panics: a length that does not fit is an error. Every loop is a
//! plain pass over fixed-size chunks that the compiler can vectorise, for the best [`Level`] the processor has.

mod float16;

use crate::cpu::{Kernel, Level};
use crate::{Dtype, Error};

/// Converts elements to `f64`.
///
/// # Numerics
/// Exact for every dtype but `i64` and `u64`, which round to the nearest `f64`, ties to even. A boolean is 1 when its
/// byte is not 0. NaN and infinities stay what they are.
/// # Errors
/// [`Error::WrongTile`] when `bytes` does not hold exactly `out.len()` elements; `out` is unchanged.
/// # Examples
/// ```
/// use sheaf_tensor::{Dtype, element};
///
/// let mut out = [0.0; 2];
/// element::to_f64(Dtype::I16, &[1, 0, 255, 255], &mut out)?;
/// assert_eq!(out, [1.0, -1.0]);
/// # Ok::<(), sheaf_tensor::Error>(())
/// ```
pub fn to_f64(dtype: Dtype, bytes: &[u8], out: &mut [f64]) -> Result<(), Error> {
    check_len(dtype, bytes.len(), out.len())?;
    match dtype {
        Dtype::F16 => decode(bytes, out, |b| f64::from(float16::f16_to_f32(u16::from_le_bytes(b)))),
        Dtype::Bf16 => decode(bytes, out, |b| f64::from(float16::bf16_to_f32(u16::from_le_bytes(b)))),
        Dtype::F32 => decode(bytes, out, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => decode(bytes, out, f64::from_le_bytes),
        Dtype::I8 => decode(bytes, out, |b| f64::from(i8::from_le_bytes(b))),
        Dtype::I16 => decode(bytes, out, |b| f64::from(i16::from_le_bytes(b))),
        Dtype::I32 => decode(bytes, out, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::I64 => decode(bytes, out, |b| i64::from_le_bytes(b) as f64),
        Dtype::U8 => decode(bytes, out, |b| f64::from(u8::from_le_bytes(b))),
        Dtype::U16 => decode(bytes, out, |b| f64::from(u16::from_le_bytes(b))),
        Dtype::U32 => decode(bytes, out, |b| f64::from(u32::from_le_bytes(b))),
        Dtype::U64 => decode(bytes, out, |b| u64::from_le_bytes(b) as f64),
        Dtype::Bool => decode(bytes, out, |b: [u8; 1]| f64::from(u8::from(b != [0]))),
    }
    Ok(())
}

/// Converts `f64` values to elements.
///
/// # Numerics
/// Floats round once, to nearest, ties to even; what is too large becomes an infinity, and a NaN stays one. Integers
/// round half to even and saturate; NaN becomes 0. A boolean is 1 when the value is at least 0.5.
/// # Errors
/// [`Error::WrongTile`] when `out` does not hold exactly `values.len()` elements; `out` is unchanged.
/// # Examples
/// ```
/// use sheaf_tensor::{Dtype, element};
///
/// let mut out = [0; 3];
/// element::from_f64(Dtype::U8, &[2.5, -1.0, 300.0], &mut out)?;
/// assert_eq!(out, [2, 0, 255]);
/// # Ok::<(), sheaf_tensor::Error>(())
/// ```
#[expect(clippy::cast_possible_truncation, reason = "saturating is what the numerics above promise")]
pub fn from_f64(dtype: Dtype, values: &[f64], out: &mut [u8]) -> Result<(), Error> {
    check_len(dtype, out.len(), values.len())?;
    match dtype {
        Dtype::F16 => encode(values, out, |v| float16::f16_from_f64(v).to_le_bytes()),
        Dtype::Bf16 => encode(values, out, |v| float16::bf16_from_f64(v).to_le_bytes()),
        Dtype::F32 => encode(values, out, |v| (v as f32).to_le_bytes()),
        Dtype::F64 => encode(values, out, f64::to_le_bytes),
        Dtype::I8 => encode(values, out, |v| (v.round_ties_even() as i8).to_le_bytes()),
        Dtype::I16 => encode(values, out, |v| (v.round_ties_even() as i16).to_le_bytes()),
        Dtype::I32 => encode(values, out, |v| (v.round_ties_even() as i32).to_le_bytes()),
        Dtype::I64 => encode(values, out, |v| (v.round_ties_even() as i64).to_le_bytes()),
        Dtype::U8 => encode(values, out, |v| (v.round_ties_even() as u8).to_le_bytes()),
        Dtype::U16 => encode(values, out, |v| (v.round_ties_even() as u16).to_le_bytes()),
        Dtype::U32 => encode(values, out, |v| (v.round_ties_even() as u32).to_le_bytes()),
        Dtype::U64 => encode(values, out, |v| (v.round_ties_even() as u64).to_le_bytes()),
        Dtype::Bool => encode(values, out, |v| [u8::from(v >= 0.5)]),
    }
    Ok(())
}

/// Finds the first element that is NaN or infinite, by its index. Integers and booleans have none.
///
/// Bytes after the last whole element are not looked at.
///
/// # Examples
/// ```
/// use sheaf_tensor::{Dtype, element};
///
/// let mut bytes = vec![0; 4 * 1000];
/// assert_eq!(element::first_non_finite(Dtype::F32, &bytes), None);
/// bytes[4 * 700..4 * 701].copy_from_slice(&f32::NAN.to_le_bytes());
/// assert_eq!(element::first_non_finite(Dtype::F32, &bytes), Some(700));
/// ```
pub fn first_non_finite(dtype: Dtype, bytes: &[u8]) -> Option<u64> {
    // A float is not finite when all bits of its exponent are set.
    match dtype {
        Dtype::F16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        Dtype::Bf16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        Dtype::F32 => first(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
        Dtype::F64 => first(bytes, |b: [u8; 8]| {
            // The upper half holds the whole exponent, and halves are what SSE2 can compare.
            let [_, _, _, _, upper @ ..] = b;
            u32::from_le_bytes(upper) & 0x7ff0_0000 == 0x7ff0_0000
        }),
        _ => None,
    }
}

/// Finds the first boolean that is neither 0 nor 1, by its index.
///
/// # Examples
/// ```
/// assert_eq!(sheaf_tensor::element::first_bad_bool(&[0, 1, 7]), Some(2));
/// ```
pub fn first_bad_bool(bytes: &[u8]) -> Option<u64> {
    first(bytes, |[byte]: [u8; 1]| byte > 1)
}

fn check_len(dtype: Dtype, num_bytes: usize, num_elements: usize) -> Result<(), Error> {
    if num_elements.checked_mul(dtype.size()) == Some(num_bytes) {
        return Ok(());
    }
    Err(Error::WrongTile { dtype, num_bytes, num_elements })
}

fn decode<const N: usize>(bytes: &[u8], out: &mut [f64], convert: impl Fn([u8; N]) -> f64) {
    let (chunks, _) = bytes.as_chunks::<N>();
    Level::best().run(Convert { from: chunks, to: out, convert });
}

fn encode<const N: usize>(values: &[f64], out: &mut [u8], convert: impl Fn(f64) -> [u8; N]) {
    let (chunks, _) = out.as_chunks_mut::<N>();
    Level::best().run(Convert { from: values, to: chunks, convert });
}

fn first<const N: usize>(bytes: &[u8], is_hit: impl Fn([u8; N]) -> bool) -> Option<u64> {
    let (chunks, _) = bytes.as_chunks::<N>();
    Level::best().run(First { chunks, is_hit })
}

/// Element by element from one form to another.
struct Convert<'a, A, B, F> {
    from: &'a [A],
    to: &'a mut [B],
    convert: F,
}

impl<A: Copy, B, F: Fn(A) -> B> Kernel for Convert<'_, A, B, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (from, to) in self.from.iter().zip(self.to) {
            *to = (self.convert)(*from);
        }
    }
}

/// Looks through whole blocks without a branch per element, and for the position only in the block that has it.
struct First<'a, const N: usize, F> {
    chunks: &'a [[u8; N]],
    is_hit: F,
}

impl<const N: usize, F: Fn([u8; N]) -> bool> Kernel for First<'_, N, F> {
    type Output = Option<u64>;

    #[inline(always)]
    fn run(self) -> Option<u64> {
        for (block_idx, block) in self.chunks.chunks(BLOCK_LEN).enumerate() {
            let mut hit = false;
            for chunk in block {
                hit |= (self.is_hit)(*chunk);
            }
            if hit {
                let position = block.iter().position(|chunk| (self.is_hit)(*chunk))?;
                return Some((block_idx * BLOCK_LEN + position) as u64);
            }
        }
        None
    }
}

/// Elements looked at between two branches of [`First`].
const BLOCK_LEN: usize = 1024;

#[cfg(test)]
mod tests;
