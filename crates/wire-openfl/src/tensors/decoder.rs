//! Undoes what the transformers did, piece by piece as the bytes arrive.
//!
//! Invariant: what has come out is never more than the shape says, and what is held beyond it is one piece's worth, or the
//! bits of a rotated tensor, which are at most a quarter of what they unfold to and a few bytes. Decoding a rotated tensor
//! happens in [`Decoder::finish`], which then takes about as long as twice log2(elements) passes over the tensor.

use sheaf_tensor::Shape;

use super::eden::Params;
use super::gunzip::Gunzip;
use super::metadata::{self, Plan};
use super::{Fault, Head, Limits, Pipeline, Refusal};

/// How many bytes are decoded at once where each comes to one byte.
const STRETCH_LEN: usize = 1 << 20;
/// The same where a byte may come to a thousand: no stream of gzip's unfolds further.
const CODED_STRETCH_LEN: usize = 4_096;

/// Decodes the bytes of one tensor to float32, row-major and little-endian.
#[derive(Debug)]
pub struct Decoder {
    name: String,
    shape: Shape,
    /// Bytes that the tensor unfolds to.
    expected: u64,
    done: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Raw,
    Shifted { shifts: std::vec::IntoIter<f32>, words: Words },
    Coded { gunzip: Box<Gunzip>, table: Vec<f32>, words: Words },
    Eden { params: Params, bits: Vec<u8> },
}

impl Decoder {
    /// A decoder for a tensor of this head, of which nothing has been believed yet.
    ///
    /// # Errors
    /// [`Refusal`], for metadata that is not the codec's and shapes over the bound.
    pub fn new(codec: Pipeline, head: &Head, limits: &Limits) -> Result<Decoder, Refusal> {
        let (shape, plan) =
            metadata::read(codec, &head.metadata, limits).map_err(|fault| fault.of(&head.name))?;
        let state = match plan {
            Plan::Raw => State::Raw,
            Plan::Shifted(shifts) => State::Shifted { shifts: shifts.into_iter(), words: Words::default() },
            Plan::Coded(table) => {
                let gunzip = Box::new(Gunzip::new(shape.num_elements().saturating_mul(4)));
                State::Coded { gunzip, table, words: Words::default() }
            }
            Plan::Eden(params) => State::Eden { params, bits: Vec::new() },
        };
        let expected = shape.num_elements().saturating_mul(4);
        Ok(Decoder { name: head.name.clone(), shape, expected, done: 0, state })
    }

    /// The shape, which is known from the beginning.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How many bytes it is given at once, so that they come to a few MiB whatever they unfold to.
    pub fn stretch_len(&self) -> usize {
        match self.state {
            State::Coded { .. } => CODED_STRETCH_LEN,
            _ => STRETCH_LEN,
        }
    }

    /// Whether it holds its bytes until the end, and unfolds all of them then.
    pub fn is_rotated(&self) -> bool {
        matches!(self.state, State::Eden { .. })
    }

    /// Takes the next bytes of the tensor and appends what they come to.
    ///
    /// # Errors
    /// [`Refusal`]; the decoder is of no use afterwards.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let before = out.len();
        self.step(piece, out).map_err(|fault| fault.of(&self.name))?;
        self.done += (out.len() - before) as u64;
        Ok(())
    }

    fn step(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let too_many = Fault::TooManyBytes { expected: self.expected };
        match &mut self.state {
            State::Raw => {
                if piece.len() as u64 > self.expected - self.done {
                    return Err(too_many);
                }
                out.extend_from_slice(piece);
                Ok(())
            }
            State::Shifted { shifts, words } => words.feed(piece, |word| {
                let shift = shifts.next().ok_or_else(|| too_many.clone())?;
                out.extend_from_slice(&(word - shift).to_le_bytes());
                Ok(())
            }),
            State::Coded { gunzip, table, words } => gunzip.push(piece, |unfolded| {
                words.feed(unfolded, |code| {
                    let value = metadata::index(code).and_then(|place| table.get(place));
                    let value = value.ok_or(Fault::Code { code, len: table.len() })?;
                    out.extend_from_slice(&value.to_le_bytes());
                    Ok(())
                })
            }),
            State::Eden { params, bits } => {
                if piece.len() as u64 > params.bits_len() - bits.len() as u64 {
                    return Err(too_many);
                }
                bits.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// Ends the tensor: appends what is left and gives the shape.
    ///
    /// # Errors
    /// [`Refusal`] when there were fewer bytes than the shape says.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Shape, Refusal> {
        let before = out.len();
        self.end(out).map_err(|fault| fault.of(&self.name))?;
        self.done += (out.len() - before) as u64;
        if self.done != self.expected {
            return Err(Fault::TooFewBytes { expected: self.expected, got: self.done }.of(&self.name));
        }
        Ok(self.shape)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let too_few = |got| Fault::TooFewBytes { expected: self.expected, got };
        match &mut self.state {
            State::Raw => Ok(()),
            State::Shifted { words, .. } => {
                if words.is_empty() {
                    Ok(())
                } else {
                    Err(too_few(self.done))
                }
            }
            State::Coded { gunzip, words, .. } => {
                gunzip.finish()?;
                if words.is_empty() { Ok(()) } else { Err(too_few(self.done)) }
            }
            State::Eden { params, bits } => {
                if bits.len() as u64 != params.bits_len() {
                    return Err(Fault::TooFewBytes { expected: params.bits_len(), got: bits.len() as u64 });
                }
                params.decode(bits, out);
                Ok(())
            }
        }
    }
}

/// Whole float32 numbers out of pieces that end anywhere.
#[derive(Debug, Default)]
struct Words {
    held: Vec<u8>,
}

impl Words {
    fn feed(
        &mut self,
        mut piece: &[u8],
        mut each: impl FnMut(f32) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if !self.held.is_empty() {
            let (first, rest) = piece.split_at((4 - self.held.len()).min(piece.len()));
            self.held.extend_from_slice(first);
            piece = rest;
            if let Ok(word) = <[u8; 4]>::try_from(self.held.as_slice()) {
                each(f32::from_le_bytes(word))?;
                self.held.clear();
            }
        }
        let (words, rest) = piece.as_chunks::<4>();
        for word in words {
            each(f32::from_le_bytes(*word))?;
        }
        self.held.extend_from_slice(rest);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests;
