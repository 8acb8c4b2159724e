//! An array on its way in: a `.npy` file in pieces. Its elements pass through where they are as ours; others are held and converted.
//!
//! Pure. Refuses arrays in another byte order, or in Fortran order, above [`CONVERTED_LEN_MAX`]; what `npy` refuses; and files that
//! are not as long as their header says, before the elements come.

use bytes::{Bytes, BytesMut};
use sheaf_tensor::{Dtype, Shape, TensorSpec, npy};

/// The longest array that is converted, in bytes of its file.
pub const CONVERTED_LEN_MAX: u64 = 32 * 1024 * 1024;

/// What is wrong with an array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArrayError {
    /// The file.
    #[error(transparent)]
    Npy(#[from] sheaf_tensor::Error),
    /// The file's length.
    #[error("the array needs a file of {needed} bytes and has one of {len}")]
    WrongLen {
        /// What header and elements come to.
        needed: u64,
        /// What was announced.
        len: u64,
    },
    /// Its layout, at this size.
    #[error(
        "the array of {len} bytes is in Fortran order or big-endian, and at most {CONVERTED_LEN_MAX} bytes are converted: \
         send numpy.ascontiguousarray of it"
    )]
    Layout {
        /// Its length.
        len: u64,
    },
}

/// What a piece of the file comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    More,
    /// Nothing before the end: the array is held until then.
    Held,
    /// What it is, and its first elements.
    Begin(Dtype, Shape, Bytes),
    /// Further elements.
    Elements(Bytes),
}

#[derive(Debug)]
enum State {
    Head,
    Held,
    Elements,
}

/// Reads one array.
#[derive(Debug)]
pub struct ArrayReader {
    len: u64,
    held: BytesMut,
    state: State,
}

impl ArrayReader {
    /// A reader of a file of `len` bytes.
    pub fn new(len: u64) -> ArrayReader {
        ArrayReader { len, held: BytesMut::new(), state: State::Head }
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// [`ArrayError`].
    pub fn feed(&mut self, bytes: Bytes) -> Result<Step, ArrayError> {
        match self.state {
            State::Elements => return Ok(Step::Elements(bytes)),
            State::Head | State::Held => self.held.extend_from_slice(&bytes),
        }
        if matches!(self.state, State::Held) {
            return Ok(Step::More);
        }
        let Some(head) = npy::head(&self.held)? else { return Ok(Step::More) };
        let spec = TensorSpec { name: String::new(), dtype: head.dtype, shape: head.shape.clone() };
        let needed = (head.len as u64).saturating_add(spec.byte_len());
        if needed != self.len {
            return Err(ArrayError::WrongLen { needed, len: self.len });
        }
        if !head.is_big_endian && !head.is_fortran {
            self.state = State::Elements;
            let elements = self.held.split_off(head.len).freeze();
            self.held = BytesMut::new();
            return Ok(Step::Begin(head.dtype, head.shape, elements));
        }
        if self.len > CONVERTED_LEN_MAX {
            return Err(ArrayError::Layout { len: self.len });
        }
        self.state = State::Held;
        Ok(Step::Held)
    }

    /// Ends the file; gives the array if it was held.
    ///
    /// # Errors
    /// [`ArrayError`].
    pub fn end(self) -> Result<Option<(Dtype, Shape, Bytes)>, ArrayError> {
        match self.state {
            State::Elements => Ok(None),
            State::Head | State::Held => Ok(Some(npy::read(self.held.freeze())?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, elements: &[u8]) -> Vec<u8> {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
        file.extend_from_slice(text.as_bytes());
        file.extend_from_slice(elements);
        file
    }

    fn read(file: &[u8], len: u64, step: usize) -> Result<(Dtype, Vec<u8>), ArrayError> {
        let mut reader = ArrayReader::new(len);
        let (mut dtype, mut elements) = (None, Vec::new());
        for piece in file.chunks(step) {
            match reader.feed(Bytes::copy_from_slice(piece))? {
                Step::More | Step::Held => {}
                Step::Begin(found, _, first) => {
                    dtype = Some(found);
                    elements.extend_from_slice(&first);
                }
                Step::Elements(next) => elements.extend_from_slice(&next),
            }
        }
        if let Some((found, _, whole)) = reader.end()? {
            dtype = Some(found);
            elements.extend_from_slice(&whole);
        }
        Ok((dtype.unwrap(), elements))
    }

    #[test]
    fn pieces_of_any_size_give_the_elements() {
        let plain =
            file("{'descr': '<i2', 'fortran_order': False, 'shape': (2, 2), }", &[1, 0, 2, 0, 3, 0, 4, 0]);
        let big =
            file("{'descr': '>i2', 'fortran_order': False, 'shape': (2, 2), }", &[0, 1, 0, 2, 0, 3, 0, 4]);
        let columns =
            file("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 2), }", &[1, 0, 3, 0, 2, 0, 4, 0]);
        for file in [plain, big, columns] {
            for step in [1, 7, 1000] {
                let got = read(&file, file.len() as u64, step).unwrap();
                assert_eq!(got, (Dtype::I16, vec![1, 0, 2, 0, 3, 0, 4, 0]));
            }
        }
    }

    #[test]
    fn a_lie_is_found_before_the_elements_come() {
        let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000,), }";
        let head = file(text, &[]);
        let needed = head.len() as u64 + 8_000_000;
        assert_eq!(read(&head, 100, 1000), Err(ArrayError::WrongLen { needed, len: 100 }));
        let text = "{'descr': '>f8', 'fortran_order': False, 'shape': (5000000,), }";
        let head = file(text, &[]);
        let len = head.len() as u64 + 40_000_000;
        assert_eq!(read(&head, len, 1000), Err(ArrayError::Layout { len }));
    }
}
