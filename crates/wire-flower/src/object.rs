//! The header of an object, checked while the object's bytes arrive: type, children and body length.
//!
//! `<type> SP <child ids, comma-joined> SP <decimal body length> NUL <body>`; the children are those the object tree
//! declared. Pure. Refused by name: unknown types, other children or another order, a length that is not what follows,
//! bytes beyond the declared total, an early end. Invariant: of what arrives no more than the header is held, and the
//! header is bounded by the declared children. The digest over all bytes is the store's to check. Observed with flwr 1.42.0.

use sheaf_domain::Digest;

/// The names of all types of objects.
pub const TYPE_NAMES: [&str; 7] =
    ["ArrayChunk", "Array", "ArrayRecord", "ConfigRecord", "MetricRecord", "RecordDict", "Message"];
/// What a header may have beyond its children's ids and their commas, in bytes.
pub const FRAME_LEN_MAX: usize = 64;

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ObjectError {
    #[error("the object's header is longer than {max} bytes")]
    HeaderTooLong { max: usize },
    #[error("the object's header has not the three parts of one")]
    HeaderMalformed,
    #[error("objects of type {name:?} are not known")]
    UnknownType { name: String },
    #[error("the object names other children than its tree, from child {position} on")]
    OtherChildren { position: usize },
    #[error("the object's body length is not a decimal number")]
    LengthMalformed,
    #[error("the object's header says {said} bytes of body, and {follow} follow")]
    OtherLength { said: u64, follow: u64 },
    #[error("the object has more than its {total_len} bytes")]
    TooLong { total_len: u64 },
    #[error("the object ends after {len} of {total_len} bytes")]
    Truncated { len: u64, total_len: u64 },
}

/// Checks one object.
#[derive(Debug)]
pub struct ObjectCheck {
    /// The children, as the header must name them.
    children: Vec<u8>,
    /// The header while it is not complete.
    held: Vec<u8>,
    complete: bool,
    refused: Option<ObjectError>,
    len: u64,
    total_len: u64,
}

impl ObjectCheck {
    /// A check for an object with these children, in order, and so many bytes, header included.
    pub fn new(id_children: &[Digest], total_len: u64) -> ObjectCheck {
        let children: Vec<String> = id_children.iter().map(Digest::to_string).collect();
        ObjectCheck {
            children: children.join(",").into_bytes(),
            held: Vec::new(),
            complete: false,
            refused: None,
            len: 0,
            total_len,
        }
    }

    /// Takes in the next bytes, of any number. After a refusal it repeats it.
    ///
    /// # Errors
    /// Every [`ObjectError`] but [`ObjectError::Truncated`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        if let Some(error) = &self.refused {
            return Err(error.clone());
        }
        let fed = self.take_in(bytes);
        self.refused = fed.as_ref().err().cloned();
        fed
    }

    /// Ends the object.
    ///
    /// # Errors
    /// [`ObjectError::Truncated`], or the refusal of an earlier [`ObjectCheck::feed`].
    pub fn finish(self) -> Result<(), ObjectError> {
        match self.refused {
            Some(error) => Err(error),
            None if self.complete && self.len == self.total_len => Ok(()),
            None => Err(ObjectError::Truncated { len: self.len, total_len: self.total_len }),
        }
    }

    fn take_in(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.len = self.len.saturating_add(bytes.len() as u64);
        if self.len > self.total_len {
            return Err(ObjectError::TooLong { total_len: self.total_len });
        }
        if self.complete {
            return Ok(());
        }
        let max = self.children.len() + FRAME_LEN_MAX;
        let end = bytes.iter().take((max + 1).saturating_sub(self.held.len())).position(|byte| *byte == 0);
        let (head, _) = bytes.split_at(end.unwrap_or(bytes.len()));
        if self.held.len() + head.len() > max {
            return Err(ObjectError::HeaderTooLong { max });
        }
        self.held.extend_from_slice(head);
        if end.is_some() {
            self.check_header()?;
            self.complete = true;
            self.held = Vec::new();
            self.children = Vec::new();
        }
        Ok(())
    }

    fn check_header(&self) -> Result<(), ObjectError> {
        let mut parts = self.held.split(|byte| *byte == b' ');
        let (Some(name), Some(children), Some(length), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ObjectError::HeaderMalformed);
        };
        if !TYPE_NAMES.iter().any(|known| known.as_bytes() == name) {
            let name = String::from_utf8_lossy(name).chars().take(SHOWN_CHARS_MAX).collect();
            return Err(ObjectError::UnknownType { name });
        }
        if children != self.children {
            return Err(ObjectError::OtherChildren { position: self.first_other(children) });
        }
        let said = body_len(length).ok_or(ObjectError::LengthMalformed)?;
        let follow = self.total_len.saturating_sub(self.held.len() as u64 + 1);
        if said == follow { Ok(()) } else { Err(ObjectError::OtherLength { said, follow }) }
    }

    /// The position of the first child that is not as declared.
    fn first_other(&self, children: &[u8]) -> usize {
        let ids = |of| <[u8]>::split(of, |byte: &u8| *byte == b',');
        ids(&self.children).zip(ids(children)).take_while(|(declared, named)| declared == named).count()
    }
}

/// Reads a decimal number as it is written canonically: no sign, no leading zero.
fn body_len(text: &[u8]) -> Option<u64> {
    let canonical = match text {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    canonical.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

const SHOWN_CHARS_MAX: usize = 32;

#[cfg(test)]
mod tests;
