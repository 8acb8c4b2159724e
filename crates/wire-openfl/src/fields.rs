//! A protobuf message read field by field from pieces of any size.
//!
//! Pure, and without memory beyond one varint: what a field's bytes come to is decided by who reads the events. Lengths
//! are passed on as claims, before any of their bytes. Refused: keys and varints that are none, groups, wire types
//! that do not exist.
//!
//! Source: the protocol buffers' encoding.

use bytes::{Buf, Bytes};

/// What is read next, in the order of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A number; its field, and the bits as they came.
    Varint(u32, u64),
    /// A field of `1` bytes begins; a length-delimited one when `2` says so, else a fixed number.
    Begin(u32, u64, bool),
    /// The next bytes of the field that began.
    Bytes(Bytes),
    /// The field that began is over.
    End,
}

/// What is wrong with the encoding itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A key with number 0, or a number too large.
    #[error("a field's key is not valid")]
    Key,
    /// A varint of more than ten bytes, or beyond 64 bits.
    #[error("a number is not valid")]
    Varint,
    /// A group, or a wire type that does not exist.
    #[error("field {0} has a wire type that is not read")]
    WireType(u32),
    /// The message ends inside a field.
    #[error("it ends inside a field")]
    Truncated,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Key,
    Varint(u32),
    Len(u32),
    Body(u64),
}

/// Reads one message.
#[derive(Debug)]
pub struct Fields {
    state: State,
    held: u64,
    held_len: u32,
}

impl Default for Fields {
    fn default() -> Fields {
        Fields { state: State::Key, held: 0, held_len: 0 }
    }
}

impl Fields {
    /// The next event in `piece`, whose bytes it takes; none when the piece is used up.
    ///
    /// # Errors
    /// [`FieldError`]; the reader is of no use afterwards.
    pub fn next(&mut self, piece: &mut Bytes) -> Result<Option<Event>, FieldError> {
        loop {
            match self.state {
                State::Body(0) => {
                    self.state = State::Key;
                    return Ok(Some(Event::End));
                }
                _ if piece.is_empty() => return Ok(None),
                State::Body(left) => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                    self.state = State::Body(left - len as u64);
                    return Ok(Some(Event::Bytes(piece.split_to(len))));
                }
                State::Key => {
                    if let Some(key) = self.varint(piece)?
                        && let Some(event) = self.key(key)?
                    {
                        return Ok(Some(event));
                    }
                }
                State::Varint(field) => {
                    if let Some(value) = self.varint(piece)? {
                        self.state = State::Key;
                        return Ok(Some(Event::Varint(field, value)));
                    }
                }
                State::Len(field) => {
                    if let Some(len) = self.varint(piece)? {
                        self.state = State::Body(len);
                        return Ok(Some(Event::Begin(field, len, true)));
                    }
                }
            }
        }
    }

    /// Whether the message may end here.
    ///
    /// # Errors
    /// [`FieldError::Truncated`] inside a field.
    pub fn finish(&self) -> Result<(), FieldError> {
        match self.state {
            State::Key if self.held_len == 0 => Ok(()),
            _ => Err(FieldError::Truncated),
        }
    }

    fn key(&mut self, key: u64) -> Result<Option<Event>, FieldError> {
        let field = u32::try_from(key >> 3).map_err(|_| FieldError::Key)?;
        if field == 0 || field >= 1 << 29 {
            return Err(FieldError::Key);
        }
        let fixed = match key & 7 {
            0 => {
                self.state = State::Varint(field);
                return Ok(None);
            }
            1 => 8,
            2 => {
                self.state = State::Len(field);
                return Ok(None);
            }
            5 => 4,
            _ => return Err(FieldError::WireType(field)),
        };
        self.state = State::Body(fixed);
        Ok(Some(Event::Begin(field, fixed, false)))
    }

    fn varint(&mut self, piece: &mut Bytes) -> Result<Option<u64>, FieldError> {
        while piece.has_remaining() {
            let byte = piece.get_u8();
            if self.held_len == 9 && byte > 1 {
                return Err(FieldError::Varint);
            }
            self.held |= u64::from(byte & 0x7f) << (7 * self.held_len);
            self.held_len += 1;
            if byte & 0x80 == 0 {
                let value = self.held;
                (self.held, self.held_len) = (0, 0);
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(message: &[u8], cut: usize) -> Result<Vec<Event>, FieldError> {
        let mut fields = Fields::default();
        let mut events = Vec::new();
        for piece in message.chunks(cut) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(event) = fields.next(&mut piece)? {
                match (events.last_mut(), event) {
                    (Some(Event::Bytes(before)), Event::Bytes(more)) => {
                        *before = [before.as_ref(), more.as_ref()].concat().into();
                    }
                    (_, event) => events.push(event),
                }
            }
        }
        fields.finish().map(|()| events)
    }

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        // 1: 300, 2: "ab", 3: "", 15: fixed32
        let message = [0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x1a, 0, 0x7d, 1, 2, 3, 4];
        let whole = events(&message, message.len()).unwrap();
        assert_eq!(
            whole,
            [
                Event::Varint(1, 300),
                Event::Begin(2, 2, true),
                Event::Bytes(Bytes::from_static(b"ab")),
                Event::End,
                Event::Begin(3, 0, true),
                Event::End,
                Event::Begin(15, 4, false),
                Event::Bytes(Bytes::from_static(&[1, 2, 3, 4])),
                Event::End,
            ]
        );
        for cut in 1..message.len() {
            assert_eq!(events(&message, cut), Ok(whole.clone()), "cut {cut}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert_eq!(events(&[0x00], 1), Err(FieldError::Key));
        assert_eq!(events(&[0x0b], 1), Err(FieldError::WireType(1)));
        assert_eq!(events(&[0x08, 0x80], 1), Err(FieldError::Truncated));
        assert_eq!(events(&[0x12, 4, 1], 1), Err(FieldError::Truncated));
        let endless = [vec![0x08], vec![0xff; 10]].concat();
        assert_eq!(events(&endless, 3), Err(FieldError::Varint));
    }
}
