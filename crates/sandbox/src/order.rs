//! What launcher and confiner say to each other: an order and a go one way, two reports the other.
//!
//! The order goes through standard input, so that nothing of it stands in an argument list. The confiner answers on standard
//! error with a line of JSON: that it is ready, or why not. It becomes the program only when it then reads [`GO`]; when its input
//! ends instead, because the launcher gave up or died, it ends too. A program that was executed says no more: the pipe just closes.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Error, Program, Protection};

/// The hidden argument that makes our program a confiner; see [`crate::confine_main`].
pub const CONFINE: &str = "__confine";

/// The byte that lets the confiner become the program.
pub(crate) const GO: u8 = b'!';

/// Bytes of an order at most; the bounds of a program stay below it unless its lists are enormous.
const ORDER_BYTES_MAX: u32 = 32 * 1024 * 1024;

/// What the confiner is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) program: Program,
    pub(crate) protection: Protection,
}

/// What the confiner answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// All is set up and tried out; a [`GO`] is waited for.
    Ready,
    /// Nothing was started.
    Refused(Refusal),
}

/// Why nothing was started.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    WallsOpen { path: PathBuf, reason: String },
    NotStarted { step: String, reason: String },
}

impl Refusal {
    /// A step that the system refused.
    pub(crate) fn step(step: impl Into<String>, reason: impl std::fmt::Display) -> Refusal {
        Refusal::NotStarted { step: step.into(), reason: reason.to_string() }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::WallsOpen { path, reason } => Error::WallsOpen { path, reason },
            Refusal::NotStarted { step, reason } => Error::NotStarted { step, reason },
        }
    }
}

impl Order {
    /// The bytes for the pipe: a length of four bytes, then JSON.
    pub(crate) fn encode(program: &Program, protection: &Protection) -> Result<Zeroizing<Vec<u8>>, Error> {
        #[derive(Serialize)]
        struct Borrowed<'a> {
            program: &'a Program,
            protection: &'a Protection,
        }
        let json = serde_json::to_vec(&Borrowed { program, protection })
            .map(Zeroizing::new)
            .map_err(|_| Error::BadProgram("a path is not UTF-8"))?;
        let len = u32::try_from(json.len()).ok().filter(|len| *len <= ORDER_BYTES_MAX);
        let len = len.ok_or(Error::BadProgram("it is too large altogether"))?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(json.len() + 4));
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&json);
        Ok(bytes)
    }

    /// Reads an order.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Order> {
        let mut len = [0; 4];
        from.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len);
        if len > ORDER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut json = Zeroizing::new(Vec::new());
        from.take(u64::from(len)).read_to_end(&mut json)?;
        serde_json::from_slice(&json).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written_and_not_otherwise() {
        let program = Program::new("/bin/true", "/tmp/x", "/tmp/x.log");
        let protection = Protection::probe(None).unwrap();
        let bytes = Order::encode(&program, &protection).unwrap();
        let order = Order::read(&mut bytes.as_slice()).unwrap();
        assert_eq!((order.program.executable, order.protection), (program.executable, protection));
        for len in 0..bytes.len() {
            assert!(
                Order::read(&mut &bytes[..len]).is_err(),
                "an order cut off after {len} bytes was accepted"
            );
        }
        assert!(Order::read(&mut [255; 64].as_slice()).is_err());
    }
}
