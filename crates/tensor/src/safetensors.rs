//! The safetensors container: a JSON header, then the tensors' bytes.
//!
//! Reads without copying tensor bytes. Refuses a header above [`HEADER_LEN_MAX`], a key twice, unknown dtypes, and
//! offsets that leave a gap, overlap, or do not end where the file ends. The order of a set read is that of the offsets.
//! What is written is a function of the set and the metadata alone, byte for byte.
//!
//! # Source
//! The format section of the `safetensors` README, <https://github.com/huggingface/safetensors>; ours is stricter in the
//! length of the header, repeated keys and unknown fields. Checked against the Python package 0.8.

mod json;

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use crate::tensor::{check_count, check_len, total_len};
use crate::{Dtype, Error, ParamSet, Tensor, TensorSpec};

/// The longest JSON header accepted and written, in bytes.
pub const HEADER_LEN_MAX: usize = 16 * 1024 * 1024;

/// Free text that travels with the tensors, by key.
pub type Metadata = BTreeMap<String, String>;

/// What the header of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The tensors, in the order of their bytes, which lie one after another without gaps.
    pub specs: Vec<TensorSpec>,
    /// The free text.
    pub metadata: Metadata,
    /// Where the bytes of the first tensor begin in the file.
    pub data_start: u64,
    /// The length of all tensors' bytes: the file ends `data_start + data_len` bytes from its beginning.
    pub data_len: u64,
}

/// Reads a file; the tensors are slices of it.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Unsupported`] for a dtype we do not have, [`Error::TooLarge`] for a header above
/// [`HEADER_LEN_MAX`]; the errors of [`Tensor::new`] and [`ParamSet::new`].
/// # Examples
/// ```
/// use bytes::Bytes;
/// use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec, safetensors};
///
/// let weight = Tensor::from_f64(TensorSpec::new("weight", Dtype::Bf16, [2])?, &[1.0, -0.5])?;
/// let params = ParamSet::new(vec![weight])?;
/// let mut file = Vec::new();
/// safetensors::write(&params, &Default::default(), &mut file)?;
/// assert_eq!(safetensors::read(Bytes::from(file))?, params);
/// # Ok::<(), sheaf_tensor::Error>(())
/// ```
pub fn read(file: Bytes) -> Result<ParamSet, Error> {
    read_with_metadata(file).map(|(params, _)| params)
}

/// Reads a file and the free text in it.
///
/// # Errors
/// Those of [`read`].
pub fn read_with_metadata(file: Bytes) -> Result<(ParamSet, Metadata), Error> {
    let header = read_header(&file)?;
    let start = usize::try_from(header.data_start).unwrap_or(usize::MAX).min(file.len());
    let data = file.slice(start..);
    if data.len() as u64 != header.data_len {
        let reason = format!("the tensors need {} bytes, got {}", header.data_len, data.len());
        return Err(malformed(reason));
    }
    let params = crate::raw::split(&header.specs, data)?;
    Ok((params, header.metadata))
}

/// Reads the header of a file of which `beginning` holds at least [`Header::data_start`] bytes.
///
/// Whether the file ends where it should is for the caller to check, against [`Header::data_len`].
///
/// # Errors
/// Those of [`read`], except for tensor bytes that are missing or wrong.
pub fn read_header(beginning: &[u8]) -> Result<Header, Error> {
    let (len, rest) = beginning.split_first_chunk().ok_or_else(|| malformed("it is shorter than 8 bytes"))?;
    let len = u64::from_le_bytes(*len);
    let header_len =
        usize::try_from(len).ok().filter(|len| *len <= HEADER_LEN_MAX).ok_or_else(header_too_large)?;
    let text = rest.get(..header_len).ok_or_else(|| malformed("the header is cut short"))?;
    if text.first() != Some(&b'{') {
        return Err(malformed("the header does not begin with '{'"));
    }
    let json::Parsed { mut entries, metadata } = json::parse(text)?;
    check_count(entries.len())?;
    entries.sort_by_key(|entry| entry.offsets);

    let mut position = 0;
    let mut specs = Vec::with_capacity(entries.len());
    for entry in entries {
        let (begin, end) = entry.offsets;
        let spec = entry.spec;
        if begin != position {
            let fault = if begin > position { "leaves a gap before it" } else { "overlaps another" };
            return Err(malformed(format!("tensor {:?} {fault}", spec.name)));
        }
        let got = end
            .checked_sub(begin)
            .ok_or_else(|| malformed(format!("tensor {:?} ends before it begins", spec.name)))?;
        check_len(&spec, got)?;
        position = end;
        specs.push(spec);
    }
    check_names(&specs)?;
    let data_len = total_len(&specs)?;
    Ok(Header { specs, metadata, data_start: LEN_SIZE + len, data_len })
}

/// Makes the header of a file; the raw bytes of the tensors, in the order of `specs`, are all that follows.
///
/// The header's length, the eight bytes that state it included, is a multiple of eight.
///
/// # Errors
/// [`Error::DuplicateName`], [`Error::BadName`] (`__metadata__` is not a tensor's name), [`Error::TooLarge`] above
/// [`HEADER_LEN_MAX`].
pub fn header(specs: &[TensorSpec], metadata: &Metadata) -> Result<Vec<u8>, Error> {
    check_count(specs.len())?;
    total_len(specs)?;
    check_names(specs)?;
    let mut text = json::print(specs, metadata)?;
    let padding = text.len().next_multiple_of(ALIGNMENT) - text.len();
    text.extend(std::iter::repeat_n(b' ', padding));
    if text.len() > HEADER_LEN_MAX {
        return Err(header_too_large());
    }
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    Ok(header)
}

/// Writes a set, its tensors in its order.
///
/// # Errors
/// Those of [`header`]; [`Error::Write`] when `writer` fails.
pub fn write(params: &ParamSet, metadata: &Metadata, writer: &mut impl io::Write) -> Result<(), Error> {
    let header = header(&params.specs(), metadata)?;
    writer
        .write_all(&header)
        .and_then(|()| params.iter().try_for_each(|tensor: &Tensor| writer.write_all(&tensor.bytes)))
        .map_err(|error| Error::write(FORMAT, &error))
}

/// Refuses a name used twice.
fn check_names(specs: &[TensorSpec]) -> Result<(), Error> {
    let mut names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    names.sort_unstable();
    match names.array_windows().find(|[one, next]| one == next) {
        Some([twin, _]) => Err(Error::DuplicateName { name: (*twin).to_owned() }),
        None => Ok(()),
    }
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
        Dtype::F32 => "F32",
        Dtype::F64 => "F64",
        Dtype::I8 => "I8",
        Dtype::I16 => "I16",
        Dtype::I32 => "I32",
        Dtype::I64 => "I64",
        Dtype::U8 => "U8",
        Dtype::U16 => "U16",
        Dtype::U32 => "U32",
        Dtype::U64 => "U64",
        Dtype::Bool => "BOOL",
    }
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::Malformed { format: FORMAT, reason: reason.into() }
}

fn header_too_large() -> Error {
    Error::TooLarge { what: "the safetensors header".to_owned(), limit: HEADER_LEN_MAX as u64 }
}

const FORMAT: &str = "safetensors";
/// The length of the field that states the header's length.
const LEN_SIZE: u64 = 8;
const ALIGNMENT: usize = 8;
