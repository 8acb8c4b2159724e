//! Instants, durations and sizes, with their text forms (`"30s"`, `"512MiB"`); never bare integers.

use serde::{Deserialize, Serialize};

use crate::Error;

/// An instant of our own clock: milliseconds since the Unix epoch.
///
/// # Examples
/// ```
/// use sheaf_domain::{Span, Timestamp};
///
/// let start = Timestamp::from_millis(1_000);
/// let end = start.after(Span::from_secs(30));
/// assert_eq!(end.since(start), Span::from_secs(30));
/// assert_eq!(start.since(end), Span::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Wraps milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Timestamp {
        Timestamp(millis)
    }
    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
    /// The instant `span` later.
    pub const fn after(self, span: Span) -> Timestamp {
        Timestamp(self.0.saturating_add(span.as_millis()))
    }
    /// How long after `earlier` this instant is; zero if it is not.
    pub const fn since(self, earlier: Timestamp) -> Span {
        Span::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A length of time in milliseconds, written like `"250ms"`, `"30s"`, `"10m"`, `"12h"`, `"7d"`.
///
/// # Examples
/// ```
/// use sheaf_domain::Span;
///
/// assert_eq!("10m".parse(), Ok(Span::from_secs(600)));
/// assert!("600".parse::<Span>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

const SPAN_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Span {
    /// Wraps milliseconds.
    pub const fn from_millis(millis: u64) -> Span {
        Span(millis)
    }
    /// Wraps seconds.
    pub const fn from_secs(secs: u64) -> Span {
        Span(secs.saturating_mul(1_000))
    }
    /// Milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
    /// The standard library's form.
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, millis) = SPAN_UNITS
            .into_iter()
            .rev()
            .find(|(_, millis)| self.0 >= *millis && self.0.is_multiple_of(*millis))
            .unwrap_or(("ms", 1));
        write!(f, "{}{unit}", self.0 / millis)
    }
}

impl std::str::FromStr for Span {
    type Err = Error;
    fn from_str(value: &str) -> Result<Span, Error> {
        parse_with_unit(value, &SPAN_UNITS).map(Span).ok_or_else(|| Error::BadQuantity {
            what: "duration",
            value: value.chars().take(64).collect(),
            example: "\"250ms\", \"30s\", \"10m\" or \"12h\"",
        })
    }
}

impl TryFrom<String> for Span {
    type Error = Error;
    fn try_from(value: String) -> Result<Span, Error> {
        value.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

/// A number of bytes, written like `"64KiB"`, `"512MiB"`, `"10GB"`, `"100B"`.
///
/// # Examples
/// ```
/// use sheaf_domain::ByteSize;
///
/// assert_eq!("64KiB".parse(), Ok(ByteSize::from_bytes(65_536)));
/// assert_eq!(ByteSize::from_mib(1).to_string(), "1MiB");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

impl ByteSize {
    /// Wraps a number of bytes.
    pub const fn from_bytes(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }
    /// Wraps a number of MiB.
    pub const fn from_mib(mib: u64) -> ByteSize {
        ByteSize(mib.saturating_mul(1 << 20))
    }
    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, bytes) = SIZE_UNITS
            .into_iter()
            .rev()
            .find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl std::str::FromStr for ByteSize {
    type Err = Error;
    fn from_str(value: &str) -> Result<ByteSize, Error> {
        parse_with_unit(value, &SIZE_UNITS).map(ByteSize).ok_or_else(|| Error::BadQuantity {
            what: "size",
            value: value.chars().take(64).collect(),
            example: "\"64KiB\", \"512MiB\" or \"10GB\"",
        })
    }
}

impl TryFrom<String> for ByteSize {
    type Error = Error;
    fn try_from(value: String) -> Result<ByteSize, Error> {
        value.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> String {
        size.to_string()
    }
}

fn parse_with_unit(value: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_back_from_their_text() {
        for text in ["250ms", "30s", "10m", "12h", "7d", "1500ms"] {
            assert_eq!(text.parse::<Span>().map(|span| span.to_string()), Ok(text.to_owned()));
        }
        for text in ["100B", "64KiB", "512MiB", "10GB"] {
            assert_eq!(text.parse::<ByteSize>().map(|size| size.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_number_without_its_unit_is_refused() {
        for text in ["", "30", "s", "-1s", "1.5h", "99999999999999999999s", "30 parsecs"] {
            assert!(text.parse::<Span>().is_err(), "{text:?} was taken");
            assert!(text.parse::<ByteSize>().is_err(), "{text:?} was taken");
        }
    }
}
