//! The input under trial, written down before it is tried: what ends the process without a word is found there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A file with the input under trial: its length (eight bytes, little-endian), then its bytes.
#[derive(Debug)]
pub struct Trace {
    file: File,
}

impl Trace {
    /// Creates the file.
    ///
    /// # Errors
    /// Those of creating a file.
    pub fn create(path: &Path) -> io::Result<Trace> {
        Ok(Trace { file: File::create(path)? })
    }

    /// Where the trace of a target lies below `folder`.
    pub fn path(folder: &Path, target: &str) -> PathBuf {
        folder.join(format!("{target}.trying"))
    }

    /// Notes an input; a full disk must not end the run.
    pub fn note(&self, input: &[u8]) {
        let _ = self.file.write_all_at(&(input.len() as u64).to_le_bytes(), 0);
        let _ = self.file.write_all_at(input, 8);
    }

    /// The input noted last.
    ///
    /// # Errors
    /// Those of reading a file; one that is no trace holds no input.
    pub fn read(path: &Path) -> io::Result<Vec<u8>> {
        let bytes = std::fs::read(path)?;
        let input = bytes
            .split_first_chunk()
            .and_then(|(len, rest)| rest.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?));
        input.map(<[u8]>::to_vec).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}
