//! The header of a `.npy` file: a Python dict literal with three keys.
//!
//! Reads only what NumPy writes: the keys `descr`, `fortran_order` and `shape`, each once, in any order. Strings have no
//! escapes, numbers no sign or suffix, and nothing but white space follows.

use super::malformed;
use crate::{Error, RANK_MAX};

/// What a header says, not yet judged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Description<'a> {
    /// The dtype string.
    pub(super) descr: &'a str,
    pub(super) element_order: ElementOrder,
    /// The extents, at most one more than [`RANK_MAX`].
    pub(super) shape: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementOrder {
    C,
    Fortran,
}

pub(super) fn parse(text: &[u8]) -> Result<Description<'_>, Error> {
    let text = std::str::from_utf8(text).map_err(|_| malformed("the header is not text"))?;
    let mut cursor = Cursor { rest: text };
    let (mut descr, mut element_order, mut shape) = (None, None, None);
    cursor.expect('{')?;
    while !cursor.eat('}') {
        let key = cursor.string()?;
        cursor.expect(':')?;
        let is_repeated = match key {
            "descr" => descr.replace(cursor.descr()?).is_some(),
            "fortran_order" => element_order.replace(cursor.element_order()?).is_some(),
            "shape" => shape.replace(cursor.shape()?).is_some(),
            _ => return Err(malformed(format!("the header has an unknown key {:?}", shorten(key)))),
        };
        if is_repeated {
            return Err(malformed(format!("the header has the key {key:?} twice")));
        }
        if !cursor.eat(',') {
            cursor.expect('}')?;
            break;
        }
    }
    if !cursor.skip_space().is_empty() {
        return Err(malformed("the header has text after its closing brace"));
    }
    let missing = |key: &str| malformed(format!("the header has no key {key:?}"));
    Ok(Description {
        descr: descr.ok_or_else(|| missing("descr"))?,
        element_order: element_order.ok_or_else(|| missing("fortran_order"))?,
        shape: shape.ok_or_else(|| missing("shape"))?,
    })
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) -> &'a str {
        self.rest = self.rest.trim_ascii_start();
        self.rest
    }

    fn eat(&mut self, token: char) -> bool {
        let stripped = self.skip_space().strip_prefix(token);
        self.rest = stripped.unwrap_or(self.rest);
        stripped.is_some()
    }

    fn expect(&mut self, token: char) -> Result<(), Error> {
        if self.eat(token) {
            return Ok(());
        }
        Err(malformed(format!("the header needs {token:?} before {:?}", shorten(self.rest))))
    }

    fn string(&mut self) -> Result<&'a str, Error> {
        let quote = if self.skip_space().starts_with('"') { '"' } else { '\'' };
        self.expect(quote)?;
        let (string, rest) =
            self.rest.split_once(quote).ok_or_else(|| malformed("the header has a string without an end"))?;
        if string.contains('\\') {
            return Err(malformed("the header has an escape in a string"));
        }
        self.rest = rest;
        Ok(string)
    }

    fn descr(&mut self) -> Result<&'a str, Error> {
        match self.skip_space().chars().next() {
            Some('[') => Err(unsupported("structured arrays are not tensors")),
            Some('(') => Err(unsupported("arrays of sub-arrays are not supported")),
            _ => self.string(),
        }
    }

    fn element_order(&mut self) -> Result<ElementOrder, Error> {
        self.skip_space();
        for (word, order) in [("True", ElementOrder::Fortran), ("False", ElementOrder::C)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(order);
            }
        }
        Err(malformed("fortran_order is neither True nor False"))
    }

    fn shape(&mut self) -> Result<Vec<u64>, Error> {
        let mut dims = Vec::new();
        self.expect('(')?;
        while !self.eat(')') {
            // One more than allowed is kept, so that the shape is refused for its rank.
            if dims.len() > RANK_MAX {
                return Err(Error::RankTooLarge { rank: dims.len() });
            }
            dims.push(self.number()?);
            if !self.eat(',') {
                self.expect(')')?;
                if dims.len() == 1 {
                    return Err(malformed("the shape is a number, not a tuple"));
                }
                break;
            }
        }
        Ok(dims)
    }

    fn number(&mut self) -> Result<u64, Error> {
        let text = self.skip_space();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        let bad = || malformed(format!("{:?} is not an extent of a shape", shorten(text)));
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(bad());
        }
        let number = digits.parse().map_err(|_| bad())?;
        self.rest = rest;
        Ok(number)
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(24).collect()
}

fn unsupported(reason: &str) -> Error {
    Error::Unsupported { format: super::FORMAT, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_numpy_writes_is_read() {
        let description = parse(b"{'descr': '<f4', 'fortran_order': True, 'shape': (3, 4), }    \n").unwrap();
        let expected = Description { descr: "<f4", element_order: ElementOrder::Fortran, shape: vec![3, 4] };
        assert_eq!(description, expected);
        for (text, shape) in
            [("()", vec![]), ("(7,)", vec![7]), ("( 1 ,2,3 )", vec![1, 2, 3]), ("(0,)", vec![0])]
        {
            let text = format!("{{\"shape\":{text},\"fortran_order\":False,\"descr\":\"|b1\"}}");
            assert_eq!(parse(text.as_bytes()).unwrap().shape, shape, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let refused = [
            "",
            "{}",
            "{'descr': '<f4', 'fortran_order': True}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3,), 'extra': 1}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': True, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (-3,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3L,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (03,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (99999999999999999999,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': [3]}",
            "{'descr': '<f4', 'fortran_order': 1, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': Truer, 'shape': (3,)}",
            "{'descr': '<f4\", 'fortran_order': True, 'shape': (3,)}",
            "{'descr': '\\x3cf4', 'fortran_order': True, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3,)} 1",
            "{'descr': '<f4' 'fortran_order': True, 'shape': (3,)}",
            "__import__('os')",
        ];
        for text in refused {
            assert!(matches!(parse(text.as_bytes()), Err(Error::Malformed { .. })), "{text}");
        }
        assert!(matches!(parse(b"{'descr': '\xff'}"), Err(Error::Malformed { .. })));
    }

    #[test]
    fn structured_arrays_are_unsupported() {
        for descr in ["[('a', '<f4')]", "('<f4', (2,))"] {
            let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (3,), }}");
            assert!(matches!(parse(text.as_bytes()), Err(Error::Unsupported { .. })), "{text}");
        }
    }

    #[test]
    fn a_long_shape_is_cut_off() {
        let text = format!("{{'shape': ({})}}", "1,".repeat(10_000));
        assert_eq!(parse(text.as_bytes()), Err(Error::RankTooLarge { rank: RANK_MAX + 1 }));
    }
}
