//! gzip unfolded as it arrives, to no more than was said beforehand.
//!
//! Refused: what is no gzip, a checksum that is wrong, an end that is missing, bytes after the end, and a bomb, as soon as
//! it has unfolded to more than the bound; of what is beyond, nothing is handed on.

use std::io::{self, Write};

use flate2::write::GzDecoder;

use super::Fault;

/// How many compressed bytes are unfolded before what came out is handed on. One of them may come to a thousand.
const STEP_LEN: usize = 1_024;

/// Unfolds one stream of one member, as upstream's collaborators send it.
#[derive(Debug)]
pub(super) struct Gunzip {
    decoder: GzDecoder<Room>,
    expected: u64,
}

/// Takes what was unfolded, while there is room for it.
#[derive(Debug)]
struct Room {
    out: Vec<u8>,
    left: u64,
    is_over: bool,
}

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            self.is_over = true;
            return Err(io::Error::other("more than was said"));
        }
        self.left -= bytes.len() as u64;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Gunzip {
    /// Unfolds to at most `expected` bytes.
    pub(super) fn new(expected: u64) -> Gunzip {
        let room = Room { out: Vec::new(), left: expected, is_over: false };
        Gunzip { decoder: GzDecoder::new(room), expected }
    }

    /// Takes the next bytes; `each` gets what they come to, in parts.
    pub(super) fn push(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for step in piece.chunks(STEP_LEN) {
            if let Err(error) = self.decoder.write_all(step) {
                return Err(self.fault(&error));
            }
            // What is unfolded waits in the decoder until the next call or a flush.
            if let Err(error) = self.decoder.flush() {
                return Err(self.fault(&error));
            }
            let room = self.decoder.get_mut();
            each(&room.out)?;
            room.out.clear();
        }
        Ok(())
    }

    /// Ends the stream; nothing comes out any more.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        if let Err(error) = self.decoder.try_finish() {
            return Err(self.fault(&error));
        }
        Ok(())
    }

    fn fault(&self, error: &io::Error) -> Fault {
        if self.decoder.get_ref().is_over {
            return Fault::TooManyBytes { expected: self.expected };
        }
        Fault::Gzip { reason: error.to_string() }
    }
}
