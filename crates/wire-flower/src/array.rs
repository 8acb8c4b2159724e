//! An array on its way in: a `.npy` file in pieces. Its header comes first, then row-major little-endian elements, as they are complete.
//!
//! Pure. Big-endian elements are turned round as they pass; a column-major array is held whole, and handed out to be turned by whoever has
//! the time for it. Refused: what `npy` refuses,
//! more or fewer bytes than the header says, a column-major array above [`COLUMNS_LEN_MAX`]. Whether the array is the one that was asked for is
//! the caller's to say when its header has come, before any element is taken in. Invariant: beside a column-major array, no more is held than
//! what came with the header and a part of an element.

use bytes::{Bytes, BytesMut};
use sheaf_tensor::npy;

/// The longest file of a column-major array, in bytes.
pub const COLUMNS_LEN_MAX: u64 = 32 << 20;

/// What is wrong with an array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ArrayError {
    #[error(transparent)]
    Npy(#[from] sheaf_tensor::Error),
    #[error("it has more bytes than its shape says")]
    TooLong,
    #[error("it ends too early")]
    TooShort,
    #[error(
        "it is column-major and has {len} bytes; above {COLUMNS_LEN_MAX} it must be sent row-major (numpy.ascontiguousarray)"
    )]
    Columns { len: u64 },
}

/// What further bytes of a file come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Fed {
    /// The header is complete, told once. What came after it is taken in by the next call, which may bring no bytes of its own.
    Head(npy::Head),
    /// Elements that are complete; there may be none.
    Elements(Bytes),
    /// A column-major array that is complete.
    Columns(Columns),
}

/// A column-major array; turning it is work.
#[derive(Debug, PartialEq, Eq)]
pub struct Columns(Bytes);

impl Columns {
    /// The elements, row-major and little-endian.
    ///
    /// # Errors
    /// [`ArrayError`].
    pub fn turned(self) -> Result<Bytes, ArrayError> {
        let (_, _, elements) = npy::read(self.0)?;
        Ok(elements)
    }
}

/// Reads one array.
#[derive(Debug, Default)]
pub struct ArrayReader {
    /// The header while it is not complete; the whole of a column-major array; the beginning of a big-endian element.
    held: BytesMut,
    /// What came with the end of the header.
    rest: Bytes,
    head: Option<npy::Head>,
    /// Bytes of the file that are still to come, once its header is known.
    left: u64,
}

impl ArrayReader {
    /// Takes in the next bytes of the file.
    ///
    /// # Errors
    /// [`ArrayError`].
    pub fn feed(&mut self, bytes: Bytes) -> Result<Fed, ArrayError> {
        if self.head.is_none() {
            return self.feed_header(&bytes);
        }
        let rest = std::mem::take(&mut self.rest);
        let bytes = match (rest.is_empty(), bytes.is_empty()) {
            (true, _) => bytes,
            (false, true) => rest,
            (false, false) => Bytes::from([rest, bytes].concat()),
        };
        self.elements(bytes)
    }

    fn elements(&mut self, bytes: Bytes) -> Result<Fed, ArrayError> {
        let Some(head) = &self.head else { return Ok(Fed::Elements(bytes)) };
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(ArrayError::TooLong)?;
        if head.is_fortran {
            self.held.extend_from_slice(&bytes);
            // Told once.
            let complete = self.left == 0 && !self.held.is_empty();
            let file = if complete { std::mem::take(&mut self.held).freeze() } else { Bytes::new() };
            return Ok(if complete { Fed::Columns(Columns(file)) } else { Fed::Elements(file) });
        }
        if head.is_big_endian {
            let dtype = head.dtype;
            self.held.extend_from_slice(&bytes);
            let whole = self.held.len() - self.held.len() % dtype.size();
            let elements = self.held.split_to(whole).freeze();
            return Ok(Fed::Elements(npy::swap_bytes(dtype, &elements)));
        }
        Ok(Fed::Elements(bytes))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`ArrayError::TooShort`].
    pub fn finish(self) -> Result<(), ArrayError> {
        if self.head.is_some() && self.left == 0 && self.rest.is_empty() {
            return Ok(());
        }
        Err(ArrayError::TooShort)
    }

    fn feed_header(&mut self, bytes: &Bytes) -> Result<Fed, ArrayError> {
        self.held.extend_from_slice(bytes);
        let Some(head) = npy::head(&self.held)? else { return Ok(Fed::Elements(Bytes::new())) };
        if head.is_fortran && head.file_len() > COLUMNS_LEN_MAX {
            return Err(ArrayError::Columns { len: head.file_len() });
        }
        self.left = head.file_len() - head.len as u64;
        self.rest = self.held.split_off(head.len).freeze();
        if !head.is_fortran {
            // Otherwise the header stays: the whole file is read at its end.
            self.held = BytesMut::new();
        }
        self.head = Some(head.clone());
        Ok(Fed::Head(head))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sheaf_tensor::Dtype;

    use super::*;

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

    fn read(file: &[u8], step: usize) -> Result<(Dtype, Vec<u8>), ArrayError> {
        let mut reader = ArrayReader::default();
        let (mut dtype, mut got) = (None, Vec::new());
        // At the end once more, for what came with the header.
        for piece in file.chunks(step).chain([&[][..]]) {
            match reader.feed(Bytes::copy_from_slice(piece))? {
                Fed::Head(head) => assert_eq!(dtype.replace(head.dtype), None, "told once"),
                Fed::Elements(elements) => got.extend_from_slice(&elements),
                Fed::Columns(columns) => got.extend_from_slice(&columns.turned()?),
            }
        }
        reader.finish().map(|()| (dtype.unwrap(), got))
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_elements(step in 1_usize..200) {
            let little = file("<f4", false, "(2,)", &[1, 2, 3, 4, 5, 6, 7, 8]);
            prop_assert_eq!(read(&little, step).unwrap(), (Dtype::F32, vec![1, 2, 3, 4, 5, 6, 7, 8]));
            let big = file(">f4", false, "(2,)", &[4, 3, 2, 1, 8, 7, 6, 5]);
            prop_assert_eq!(read(&big, step).unwrap(), (Dtype::F32, vec![1, 2, 3, 4, 5, 6, 7, 8]));
            let columns = file("|u1", true, "(2, 3)", &[0, 3, 1, 4, 2, 5]);
            prop_assert_eq!(read(&columns, step).unwrap(), (Dtype::U8, vec![0, 1, 2, 3, 4, 5]));
            let both = file(">i2", true, "(2, 2)", &[0, 1, 0, 3, 0, 2, 0, 4]);
            prop_assert_eq!(read(&both, step).unwrap(), (Dtype::I16, vec![1, 0, 2, 0, 3, 0, 4, 0]));
        }
    }

    #[test]
    fn a_scalar_and_an_empty_array_are_arrays() {
        assert_eq!(read(&file("<i8", false, "()", &[7; 8]), 50).unwrap(), (Dtype::I64, vec![7; 8]));
        assert_eq!(read(&file("<f4", true, "(0, 4)", &[]), 50).unwrap(), (Dtype::F32, vec![]));
    }

    #[test]
    fn what_is_no_array_is_refused_by_name() {
        assert_eq!(read(&file("<f4", false, "(2,)", &[0; 9]), 64), Err(ArrayError::TooLong));
        assert_eq!(read(&file("<f4", false, "(2,)", &[0; 7]), 64), Err(ArrayError::TooShort));
        assert_eq!(read(&file("<f4", false, "(2,)", &[])[..40], 64), Err(ArrayError::TooShort));
        let refused = |file: &[u8]| read(file, 64).unwrap_err().to_string();
        assert!(refused(&file("|O", false, "(2,)", &[0; 8])).contains("pickled"));
        assert!(refused(b"PK\x03\x04").contains("npy magic"));
        // Before any element has come.
        let columns = refused(&file("<f4", true, "(4096, 4096)", &[]));
        assert!(columns.contains("row-major"), "{columns}");
    }
}
