//! The `.npy` container: one array without a name.
//!
//! Reads format versions 1.0, 2.0 and 3.0; writes 1.0, byte for byte as NumPy writes a C-order little-endian array.
//! Refuses object arrays (they are pickles), and structured, text, date, complex and void dtypes, each by name. A file
//! must be exactly as long as its header says.
//!
//! # Source
//! NumPy's `numpy.lib.format` (NEP 1); byte layout observed with NumPy 2.4.

mod layout;
mod literal;

use std::io;

use bytes::Bytes;

use crate::tensor::check_len;
use crate::{Dtype, Error, Shape, TensorSpec, element};

/// The longest header accepted, in bytes. NumPy's own for an array of 32 dimensions is below 1 KiB.
pub const HEADER_LEN_MAX: usize = 64 * 1024;

/// Reads an array: its dtype, its shape, and its elements in row-major little-endian order.
///
/// The elements are a slice of `file`, not a copy, unless they are big-endian or in Fortran order.
///
/// # Errors
/// [`Error::Malformed`] for what is not `.npy`, or not as long as its header says; [`Error::Unsupported`] for a dtype
/// that is refused; [`Error::TooLarge`] for a header above [`HEADER_LEN_MAX`]; the errors of [`Shape::new`].
/// # Examples
/// ```
/// use bytes::Bytes;
/// use sheaf_tensor::{Dtype, TensorSpec, npy};
///
/// let spec = TensorSpec::new("weight", Dtype::U8, [2, 3])?;
/// let mut file = Vec::new();
/// npy::write(&spec, &[1, 2, 3, 4, 5, 6], &mut file)?;
///
/// let (dtype, shape, bytes) = npy::read(Bytes::from(file))?;
/// assert_eq!((dtype, shape), (spec.dtype, spec.shape));
/// assert_eq!(bytes, [1, 2, 3, 4, 5, 6].as_slice());
/// # Ok::<(), sheaf_tensor::Error>(())
/// ```
pub fn read(file: Bytes) -> Result<(Dtype, Shape, Bytes), Error> {
    let head = head(&file)?.ok_or_else(|| malformed("the header is cut short"))?;
    let Head { dtype, shape, is_big_endian, is_fortran, len } = head;

    let data = file.slice(len..);
    let expected = shape.num_elements() * dtype.size() as u64;
    if data.len() as u64 != expected {
        let reason = format!("{dtype}{shape} needs {expected} bytes of data, got {}", data.len());
        return Err(malformed(reason));
    }
    if dtype == Dtype::Bool
        && let Some(index) = element::first_bad_bool(&data)
    {
        return Err(malformed(format!("the boolean at index {index} is neither 0 nor 1")));
    }
    let data = if is_big_endian { layout::swap_bytes(dtype, &data) } else { data };
    let data = match is_fortran {
        false => data,
        true => layout::to_row_major(dtype, &shape, data)
            .ok_or_else(|| malformed("the data does not cover the shape"))?,
    };
    Ok((dtype, shape, data))
}

/// What the header of an array says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The element type.
    pub dtype: Dtype,
    /// The shape.
    pub shape: Shape,
    /// Whether the elements' bytes are reversed.
    pub is_big_endian: bool,
    /// Whether the elements are column-major; never where that makes no difference.
    pub is_fortran: bool,
    /// How many bytes come before the elements.
    pub len: usize,
}

impl Head {
    /// The length of the whole file, in bytes.
    pub fn file_len(&self) -> u64 {
        (self.shape.num_elements() * self.dtype.size() as u64).saturating_add(self.len as u64)
    }
}

/// Reads the header of an array that is still arriving; `None` while `beginning` does not hold all of it.
///
/// # Errors
/// As [`read`], but for what only the elements show.
pub fn head(beginning: &[u8]) -> Result<Option<Head>, Error> {
    let Some(len) = data_start(beginning)? else { return Ok(None) };
    let Some((_, text)) = beginning.get(..len).and_then(|head| head.split_at_checked(prefix_len(head)))
    else {
        return Ok(None);
    };
    let description = literal::parse(text)?;
    let (dtype, order) = element_type(description.descr)?;
    let shape = Shape::new(description.shape)?;
    let one_way = shape.dims().iter().filter(|dim| **dim != 1).count() < 2;
    let is_fortran = description.element_order == literal::ElementOrder::Fortran && !one_way;
    let is_big_endian = order == ByteOrder::Big && dtype.size() > 1;
    Ok(Some(Head { dtype, shape, is_big_endian, is_fortran, len }))
}

/// Reverses the bytes of every element; what is no whole element at the end stays as it is.
pub fn swap_bytes(dtype: Dtype, elements: &Bytes) -> Bytes {
    layout::swap_bytes(dtype, elements)
}

/// Makes the header of an array; its elements, row-major and little-endian, are all that follows.
///
/// # Errors
/// [`Error::Unsupported`] for [`Dtype::Bf16`], which has no NumPy dtype; the message names the tensor.
pub fn header(spec: &TensorSpec) -> Result<Vec<u8>, Error> {
    let descr = descr_of(spec)?;
    let dims = spec.shape.dims();
    let shape = match dims {
        [one] => format!("({one},)"),
        _ => {
            let extents: Vec<String> = dims.iter().map(u64::to_string).collect();
            format!("({})", extents.join(", "))
        }
    };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // NumPy leaves room for the outermost extent to grow to its widest in place.
    if let Some(outermost) = dims.first() {
        let growth = GROWTH_DIGITS.saturating_sub(outermost.to_string().len());
        text.extend(std::iter::repeat_n(' ', growth));
    }
    let unpadded = PREFIX_LEN_V1 + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', ALIGNMENT - unpadded % ALIGNMENT));
    text.push('\n');

    let Ok(text_len) = u16::try_from(text.len()) else {
        return Err(Error::TooLarge { what: "the npy header".to_owned(), limit: u64::from(u16::MAX) });
    };
    let mut header = Vec::with_capacity(PREFIX_LEN_V1 + text.len());
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[1, 0]);
    header.extend_from_slice(&text_len.to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    Ok(header)
}

/// Writes an array.
///
/// # Errors
/// Those of [`header`]; [`Error::WrongLength`] when `bytes` is not as long as `spec` says; [`Error::Write`] when
/// `writer` fails.
pub fn write(spec: &TensorSpec, bytes: &[u8], writer: &mut impl io::Write) -> Result<(), Error> {
    check_len(spec, bytes.len() as u64)?;
    let header = header(spec)?;
    writer
        .write_all(&header)
        .and_then(|()| writer.write_all(bytes))
        .map_err(|error| Error::write(FORMAT, &error))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

/// The length of magic, version and length field, which the version decides.
fn prefix_len(file: &[u8]) -> usize {
    if file.get(MAGIC.len()) == Some(&1) { PREFIX_LEN_V1 } else { PREFIX_LEN_V2 }
}

/// Reads magic, version and header length: where the elements begin; `None` while `file` ends before that.
fn data_start(file: &[u8]) -> Result<Option<usize>, Error> {
    let begun = file.get(..MAGIC.len()).unwrap_or(file);
    if !MAGIC.starts_with(begun) {
        return Err(malformed("it does not begin with the npy magic"));
    }
    let Some((version, rest)) = file.get(MAGIC.len()..).and_then(|rest| rest.split_first_chunk::<2>()) else {
        return Ok(None);
    };
    let header_len = match version {
        [1, 0] => rest.first_chunk().map(|len| u32::from(u16::from_le_bytes(*len))),
        [2 | 3, 0] => rest.first_chunk().map(|len| u32::from_le_bytes(*len)),
        [major, minor] => {
            let reason = format!("format version {major}.{minor}");
            return Err(Error::Unsupported { format: FORMAT, reason });
        }
    };
    let Some(header_len) = header_len else { return Ok(None) };
    let header_len = usize::try_from(header_len)
        .ok()
        .filter(|len| *len <= HEADER_LEN_MAX)
        .ok_or_else(|| Error::TooLarge { what: "the npy header".to_owned(), limit: HEADER_LEN_MAX as u64 })?;
    let start = prefix_len(file) + header_len;
    Ok((start <= file.len()).then_some(start))
}

/// Reads a dtype string such as `<f4`.
fn element_type(descr: &str) -> Result<(Dtype, ByteOrder), Error> {
    let (order, code) = match descr.split_at_checked(1) {
        Some((order @ ("<" | ">" | "|"), code)) => (order, code),
        _ => return Err(refuse_dtype(descr, descr)),
    };
    let dtype = match code {
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "u1" => Dtype::U8,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        "b1" => Dtype::Bool,
        _ => return Err(refuse_dtype(descr, code)),
    };
    match order {
        ">" => Ok((dtype, ByteOrder::Big)),
        "|" if dtype.size() > 1 => Err(malformed(format!("the dtype {descr:?} states no byte order"))),
        _ => Ok((dtype, ByteOrder::Little)),
    }
}

/// Says what is refused: the `code` of `descr`, which is `descr` without its byte order.
fn refuse_dtype(descr: &str, code: &str) -> Error {
    let kind = match code.as_bytes() {
        [b'O', ..] => "object arrays are pickled, and nothing is unpickled here",
        b"V2" => "a two-byte void; a bfloat16 array has no NumPy dtype: use safetensors",
        [b'V', ..] => "void and structured arrays are not tensors",
        [b'S' | b'a' | b'U' | b'T', ..] => "text is not a tensor",
        [b'M' | b'm', ..] => "dates and time spans are not supported",
        [b'c', ..] => "complex numbers are not supported",
        [b'f', ..] => "no float of this width is supported",
        _ => "no such dtype is known",
    };
    let shown: String = descr.chars().take(32).collect();
    Error::Unsupported { format: FORMAT, reason: format!("dtype {shown:?}: {kind}") }
}

fn descr_of(spec: &TensorSpec) -> Result<&'static str, Error> {
    match spec.dtype {
        Dtype::F16 => Ok("<f2"),
        Dtype::F32 => Ok("<f4"),
        Dtype::F64 => Ok("<f8"),
        Dtype::I8 => Ok("|i1"),
        Dtype::I16 => Ok("<i2"),
        Dtype::I32 => Ok("<i4"),
        Dtype::I64 => Ok("<i8"),
        Dtype::U8 => Ok("|u1"),
        Dtype::U16 => Ok("<u2"),
        Dtype::U32 => Ok("<u4"),
        Dtype::U64 => Ok("<u8"),
        Dtype::Bool => Ok("|b1"),
        Dtype::Bf16 => Err(Error::Unsupported {
            format: FORMAT,
            reason: format!("tensor {:?} is bf16, which has no NumPy dtype: use safetensors", spec.name),
        }),
    }
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::Malformed { format: FORMAT, reason: reason.into() }
}

const FORMAT: &str = "npy";
const MAGIC: &[u8] = b"\x93NUMPY";
/// Magic, version and a 16-bit length.
const PREFIX_LEN_V1: usize = 10;
/// Magic, version and a 32-bit length (versions 2.0 and 3.0).
const PREFIX_LEN_V2: usize = 12;
/// The elements begin at a multiple of this.
const ALIGNMENT: usize = 64;
/// Digits NumPy reserves for the outermost extent.
const GROWTH_DIGITS: usize = 21;
