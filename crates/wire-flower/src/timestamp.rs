//! Times as Python's `isoformat` writes them: microseconds may be missing, the offset must be given.

/// Microseconds since the epoch, or `None` if the text is not such a time.
pub fn parse_isoformat_us(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, len: usize| -> Option<i64> {
        let digits = bytes.get(from..from + len)?;
        digits.iter().all(u8::is_ascii_digit).then_some(())?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    let separated = is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':');
    separated.then_some(())?;
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let (micros, at) = if is(19, b'.') { (number(20, 6)?, 26) } else { (0, 19) };
    let sign = match bytes.get(at)? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (off_hour, off_minute) = (number(at + 1, 2)?, number(at + 4, 2)?);
    let whole = is(at + 3, b':') && bytes.len() == at + 6;
    let fits = year >= 1 && hour < 24 && minute < 60 && second < 60 && off_hour < 24 && off_minute < 60;
    (whole && fits && (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month)).then_some(())?;
    let seconds = days_from_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some((seconds - sign * (off_hour * 3_600 + off_minute * 60)) * 1_000_000 + micros)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar, counted with years that begin in March.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_microseconds_are_read() {
        assert_eq!(parse_isoformat_us("1970-01-01T00:00:00+00:00"), Some(0));
        assert_eq!(parse_isoformat_us("1970-01-01T01:00:00.000001+01:00"), Some(1));
        assert_eq!(parse_isoformat_us("2000-02-29T00:00:00+00:00"), Some(951_782_400_000_000));
        assert_eq!(parse_isoformat_us("2026-11-21T02:25:52.192024+00:00"), Some(1_795_227_952_192_024));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "2026-11-21T02:25:52",
            "2026-11-21T02:25:52Z",
            "2026-02-29T00:00:00+00:00",
            "2026-11-21 02:25:52+00:00",
            "2026-11-21T02:25:52.19+00:00",
            "2026-11-21T02:25:52+00:00x",
            "2026-13-21T02:25:52+00:00",
            "2026-11-21T24:25:52+00:00",
            "+026-11-21T02:25:52+00:00",
        ] {
            assert_eq!(parse_isoformat_us(text), None, "{text}");
        }
    }
}
