//! The `Range` header: one range of bytes, as RFC 9110 section 14 has it. Several ranges at once are not served.

use http::{HeaderMap, header};

use crate::Error;

/// The stretch of a stream of `total` bytes that is asked for: first byte, length, and whether it was asked for as a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// No (usable) range: the whole stream.
    Whole,
    /// `offset` lies within the stream, and `len` does not reach beyond it.
    Part {
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
    },
}

/// Reads the `Range` header; one that is not understood is ignored, as the RFC asks.
///
/// # Errors
/// [`Error::RangeNotSatisfiable`] for one that begins beyond the end.
pub fn wanted(headers: &HeaderMap, total: u64) -> Result<Wanted, Error> {
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(parse);
    let Some(range) = range else {
        return Ok(Wanted::Whole);
    };
    let (offset, last) = match range {
        Parsed::From(first) => (first, total.saturating_sub(1)),
        Parsed::Between(first, last) => (first, last.min(total.saturating_sub(1))),
        Parsed::Last(count) => (total.saturating_sub(count.min(total)), total.saturating_sub(1)),
    };
    if offset >= total || matches!(range, Parsed::Last(0)) {
        return Err(Error::RangeNotSatisfiable { total });
    }
    Ok(Wanted::Part { offset, len: last.saturating_sub(offset).saturating_add(1) })
}

#[derive(Debug, Clone, Copy)]
enum Parsed {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

fn parse(text: &str) -> Option<Parsed> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Parsed::Last(number(last)?)),
        (false, true) => Some(Parsed::From(number(first)?)),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Parsed::Between(first, last))
        }
    }
}

/// Digits only: what `u64::from_str` takes beyond them (a sign) is not a byte position.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(range: &'static str, total: u64) -> Option<Wanted> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static(range));
        wanted(&headers, total).ok()
    }

    #[test]
    fn ranges_are_cut_at_the_end() {
        assert_eq!(of("bytes=0-3", 10), Some(Wanted::Part { offset: 0, len: 4 }));
        assert_eq!(of("bytes=8-100", 10), Some(Wanted::Part { offset: 8, len: 2 }));
        assert_eq!(of("bytes=4-", 10), Some(Wanted::Part { offset: 4, len: 6 }));
        assert_eq!(of("bytes=-3", 10), Some(Wanted::Part { offset: 7, len: 3 }));
        assert_eq!(of("bytes=-30", 10), Some(Wanted::Part { offset: 0, len: 10 }));
        assert_eq!(of("bytes=0-18446744073709551615", 10), Some(Wanted::Part { offset: 0, len: 10 }));
    }

    #[test]
    fn ranges_beyond_the_end_are_refused_and_nonsense_is_ignored() {
        for range in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(of(range, 10), None, "{range}");
        }
        assert_eq!(of("bytes=0-0", 0), None);
        for range in [
            "bytes=3-1",
            "bytes=-",
            "bytes=+1-2",
            "bytes=0-1,4-5",
            "lines=1-2",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(of(range, 10), Some(Wanted::Whole), "{range}");
        }
    }
}
