//! The elements of an array while its file arrives: header first, then row-major little-endian bytes, piece by piece.
//!
//! Pure. Refused by name: what is no `.npy` file, another dtype or shape than the model's, fewer or more bytes than that needs, a
//! column-major array above [`COLUMNS_LEN_MAX`]. Big-endian elements are turned round as they pass; a column-major array is held whole to be
//! turned. Invariant: beside that, no more than the header and a part of an element is held.

use bytes::{Bytes, BytesMut};
use sheaf_tensor::{TensorSpec, npy};

/// The longest file of a column-major array, in bytes.
pub const COLUMNS_LEN_MAX: u64 = 32 << 20;

/// Reads the file of one array.
#[derive(Debug)]
pub struct Elements {
    expected: TensorSpec,
    /// The header while it is not complete; the whole of a column-major array; the beginning of a big-endian element.
    held: BytesMut,
    head: Option<npy::Head>,
    /// Bytes of the file that are still to come, once its header is known.
    left: u64,
}

impl Elements {
    /// Reads the array that is to be `expected`.
    pub fn new(expected: TensorSpec) -> Elements {
        Elements { expected, held: BytesMut::new(), head: None, left: 0 }
    }

    /// Takes in the next bytes of the file; returns the elements that are complete with them.
    ///
    /// # Errors
    /// What is wrong with the array, with its name.
    pub fn feed(&mut self, bytes: Bytes) -> Result<Bytes, String> {
        let Some(head) = &self.head else { return self.feed_header(&bytes) };
        let (is_fortran, is_big_endian) = (head.is_fortran, head.is_big_endian);
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| format!("tensor {:?} has more bytes than its shape says", self.expected.name))?;
        if is_fortran {
            self.held.extend_from_slice(&bytes);
            return if self.left == 0 { self.turned() } else { Ok(Bytes::new()) };
        }
        if is_big_endian {
            self.held.extend_from_slice(&bytes);
            let whole = self.held.len() - self.held.len() % self.expected.dtype.size();
            let elements = self.held.split_to(whole).freeze();
            return Ok(npy::swap_bytes(self.expected.dtype, &elements));
        }
        Ok(bytes)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When it ends too early.
    pub fn finish(self) -> Result<(), String> {
        if self.head.is_some() && self.left == 0 {
            return Ok(());
        }
        Err(format!("the array of tensor {:?} ends too early", self.expected.name))
    }

    fn feed_header(&mut self, bytes: &Bytes) -> Result<Bytes, String> {
        self.held.extend_from_slice(bytes);
        let name = &self.expected.name;
        let refused = |error: &dyn std::fmt::Display| format!("tensor {name:?}: {error}");
        let Some(head) = npy::head(&self.held).map_err(|error| refused(&error))? else {
            return Ok(Bytes::new());
        };
        if head.dtype != self.expected.dtype {
            return Err(format!("tensor {name:?} is {}, expected {}", head.dtype, self.expected.dtype));
        }
        if head.shape != self.expected.shape {
            return Err(format!(
                "tensor {name:?} has shape {}, expected {}",
                head.shape, self.expected.shape
            ));
        }
        if head.is_fortran && head.file_len() > COLUMNS_LEN_MAX {
            return Err(format!(
                "tensor {name:?} is column-major and has {} bytes; above {COLUMNS_LEN_MAX} it must be sent row-major (numpy.ascontiguousarray)",
                head.file_len()
            ));
        }
        self.left = self.expected.byte_len();
        let elements = if head.is_fortran {
            // The header stays: the whole file is read at its end.
            let elements = Bytes::copy_from_slice(self.held.get(head.len..).unwrap_or_default());
            self.held.truncate(head.len);
            elements
        } else {
            let whole = std::mem::take(&mut self.held).freeze();
            whole.slice(head.len..)
        };
        self.head = Some(head);
        self.feed(elements)
    }

    /// A column-major array, turned.
    fn turned(&mut self) -> Result<Bytes, String> {
        let file = std::mem::take(&mut self.held).freeze();
        if file.is_empty() {
            return Ok(Bytes::new());
        }
        let read = npy::read(file).map_err(|error| format!("tensor {:?}: {error}", self.expected.name));
        read.map(|(_, _, elements)| elements)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sheaf_tensor::Dtype;

    use super::*;

    fn spec(dtype: Dtype, shape: &[u64]) -> TensorSpec {
        TensorSpec::new("w", dtype, shape.to_vec()).unwrap()
    }

    /// A file with this header, as NumPy writes it, and these elements.
    fn file(descr: &str, fortran: bool, shape: &str, elements: &[u8]) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        text.push_str(&" ".repeat(63 - (10 + text.len()) % 64));
        text.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
        file.extend_from_slice(text.as_bytes());
        file.extend_from_slice(elements);
        file
    }

    fn read(expected: TensorSpec, file: &[u8], step: usize) -> Result<Vec<u8>, String> {
        let mut elements = Elements::new(expected);
        let mut got = Vec::new();
        for piece in file.chunks(step) {
            got.extend_from_slice(&elements.feed(Bytes::copy_from_slice(piece))?);
        }
        elements.finish().map(|()| got)
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_elements(step in 1_usize..200) {
            let little = file("<f4", false, "(2,)", &[1, 2, 3, 4, 5, 6, 7, 8]);
            prop_assert_eq!(read(spec(Dtype::F32, &[2]), &little, step).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
            let big = file(">f4", false, "(2,)", &[4, 3, 2, 1, 8, 7, 6, 5]);
            prop_assert_eq!(read(spec(Dtype::F32, &[2]), &big, step).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
            let columns = file("|u1", true, "(2, 3)", &[0, 3, 1, 4, 2, 5]);
            prop_assert_eq!(read(spec(Dtype::U8, &[2, 3]), &columns, step).unwrap(), [0, 1, 2, 3, 4, 5]);
            let both = file(">i2", true, "(2, 2)", &[0, 1, 0, 3, 0, 2, 0, 4]);
            prop_assert_eq!(read(spec(Dtype::I16, &[2, 2]), &both, step).unwrap(), [1, 0, 2, 0, 3, 0, 4, 0]);
        }
    }

    #[test]
    fn a_scalar_and_an_empty_array_are_arrays() {
        assert_eq!(read(spec(Dtype::I64, &[]), &file("<i8", false, "()", &[7; 8]), 50).unwrap(), [7; 8]);
        let empty = file("<f4", true, "(0, 4)", &[]);
        assert_eq!(read(spec(Dtype::F32, &[0, 4]), &empty, 50).unwrap(), [0; 0]);
    }

    #[test]
    fn what_is_not_the_models_tensor_is_refused_by_name() {
        let expected = || spec(Dtype::F32, &[2]);
        let refused = |file: &[u8]| read(expected(), file, 64).unwrap_err();
        assert_eq!(refused(&file("<f8", false, "(2,)", &[0; 16])), "tensor \"w\" is f64, expected f32");
        assert!(refused(&file("<f4", false, "(1, 2)", &[0; 8])).contains("has shape [1, 2], expected [2]"));
        assert!(refused(&file("<f4", false, "(2,)", &[0; 9])).contains("more bytes"));
        assert!(refused(&file("<f4", false, "(2,)", &[0; 7])).contains("ends too early"));
        assert!(refused(&file("<f4", false, "(2,)", &[])[..40]).contains("ends too early"));
        assert!(refused(&file("|O", false, "(2,)", &[0; 8])).contains("pickled"));
        assert!(refused(b"PK\x03\x04").contains("npy magic"));
        let large = [4096, 4096];
        let columns = file("<f4", true, "(4096, 4096)", &[]);
        let refused = read(spec(Dtype::F32, &large), &columns, 64).unwrap_err();
        assert!(refused.contains("row-major"), "{refused}");
    }
}
