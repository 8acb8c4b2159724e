//! The canonical byte stream of a set: the tensors' bytes one after another, in the set's order, and nothing else.
//!
//! It carries no names, dtypes or shapes; those travel beside it, as specifications. Splitting copies nothing.

use std::io;

use bytes::Bytes;

use crate::tensor::{check_count, total_len};
use crate::{Error, ParamSet, Tensor, TensorSpec};

/// The length of the byte stream of tensors of these specifications.
///
/// # Errors
/// [`Error::TooLarge`] when it does not fit in 63 bits.
pub fn byte_len(specs: &[TensorSpec]) -> Result<u64, Error> {
    total_len(specs)
}

/// Cuts a byte stream into tensors, which are slices of it.
///
/// # Errors
/// [`Error::Malformed`] when the stream is longer or shorter than `specs` say; the errors of [`Tensor::new`] and
/// [`ParamSet::new`].
/// # Examples
/// ```
/// use bytes::Bytes;
/// use sheaf_tensor::{Dtype, TensorSpec, raw};
///
/// let specs = [TensorSpec::new("a", Dtype::U8, [2])?, TensorSpec::new("b", Dtype::I16, [])?];
/// let params = raw::split(&specs, Bytes::from_static(&[1, 2, 3, 0]))?;
/// assert_eq!(params.get("b").unwrap().to_f64()?, [3.0]);
/// assert_eq!(raw::join(&params), [1, 2, 3, 0]);
/// # Ok::<(), sheaf_tensor::Error>(())
/// ```
pub fn split(specs: &[TensorSpec], mut stream: Bytes) -> Result<ParamSet, Error> {
    check_count(specs.len())?;
    let expected = byte_len(specs)?;
    if stream.len() as u64 != expected {
        let reason = format!("the tensors need {expected} bytes, got {}", stream.len());
        return Err(Error::Malformed { format: "raw", reason });
    }
    let mut tensors = Vec::with_capacity(specs.len());
    for spec in specs {
        // The sum of all lengths is that of the stream, so each one fits.
        let len = usize::try_from(spec.byte_len()).unwrap_or(usize::MAX).min(stream.len());
        tensors.push(Tensor::new(spec.clone(), stream.split_to(len))?);
    }
    ParamSet::new(tensors)
}

/// Copies the bytes of all tensors into one stream.
pub fn join(params: &ParamSet) -> Vec<u8> {
    let mut stream = Vec::with_capacity(params.iter().map(|tensor| tensor.bytes.len()).sum());
    for tensor in params {
        stream.extend_from_slice(&tensor.bytes);
    }
    stream
}

/// Writes the bytes of all tensors.
///
/// # Errors
/// [`Error::Write`] when `writer` fails.
pub fn write(params: &ParamSet, writer: &mut impl io::Write) -> Result<(), Error> {
    params
        .iter()
        .try_for_each(|tensor| writer.write_all(&tensor.bytes))
        .map_err(|error| Error::write("raw", &error))
}
