//! What a plain scalar means: the patterns of YAML 1.1 as upstream's loader has them, tried in its order.
//!
//! `1e-5` is a text there, and so is `0o17`; `1:30` is ninety and `017` fifteen. Refused: dates, the value `=`, whole numbers beyond 127 bits.
//!
//! Source: PyYAML 6.0, its resolver and its safe constructor.

use super::yaml::Value;

/// The value of a plain scalar.
pub(super) fn resolve(text: &str) -> Result<Value, &'static str> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        "=" => return Err("the value = is not read"),
        _ if is_float(text) => Value::Float(float(text)),
        _ if is_int(text) => Value::Int(int(text).ok_or("the number is too large")?),
        _ if is_date(text) => return Err("dates are not read; quote it when it is a text"),
        _ => Value::Text(text.to_owned()),
    })
}

/// Whether a text would be read as something else, were it written plain.
pub(super) fn is_plain_text(text: &str) -> bool {
    text != "<<" && matches!(resolve(text), Ok(Value::Text(_)))
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

/// The first character a digit, the others digits or `_`.
fn is_digits(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && is_loose(text)
}

fn is_loose(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || c == '_')
}

/// One or more of `:` and a number below sixty.
fn is_sixties(mut text: &str) -> bool {
    let mut count = 0;
    while let Some(rest) = text.strip_prefix(':') {
        let end = rest.find(':').unwrap_or(rest.len());
        let (digits, more) = rest.split_at(end);
        let is_below = match digits.as_bytes() {
            [one] => one.is_ascii_digit(),
            [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
            _ => false,
        };
        if !is_below {
            return false;
        }
        (text, count) = (more, count + 1);
    }
    count > 0 && text.is_empty()
}

fn is_exponent(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['e', 'E']) else { return text.is_empty() };
    let Some(digits) = rest.strip_prefix(['-', '+']) else { return false };
    !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

fn is_float(text: &str) -> bool {
    let plain = unsigned(text);
    if matches!(plain, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let Some((whole, rest)) = plain.split_once('.') else { return false };
    let end = rest.find(['e', 'E']).unwrap_or(rest.len());
    let (fraction, exponent) = rest.split_at(end);
    if whole.is_empty() {
        // Observed: no sign before a point.
        return plain.len() == text.len() && is_digits(fraction) && is_exponent(exponent);
    }
    if is_digits(whole) {
        return is_loose(fraction) && is_exponent(exponent);
    }
    let at = whole.find(':').unwrap_or(whole.len());
    let (first, sixties) = whole.split_at(at);
    is_digits(first) && is_sixties(sixties) && is_loose(rest)
}

fn float(text: &str) -> f64 {
    let text = text.replace('_', "").to_lowercase();
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let plain = unsigned(&text);
    match plain {
        ".inf" => sign * f64::INFINITY,
        ".nan" => f64::NAN,
        _ if plain.contains(':') => {
            let parts = plain.rsplit(':').map(|part| part.parse::<f64>().unwrap_or_default());
            let (value, _) = parts.fold((0.0, 1.0), |(value, base), part| (value + part * base, base * 60.0));
            sign * value
        }
        _ => sign * plain.parse::<f64>().unwrap_or(f64::NAN),
    }
}

fn is_int(text: &str) -> bool {
    let plain = unsigned(text);
    if let Some(bits) = plain.strip_prefix("0b") {
        return !bits.is_empty() && bits.chars().all(|c| matches!(c, '0' | '1' | '_'));
    }
    if let Some(hex) = plain.strip_prefix("0x") {
        return !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit() || c == '_');
    }
    if let Some(octal) = plain.strip_prefix('0') {
        return octal.chars().all(|c| matches!(c, '0'..='7' | '_'));
    }
    let at = plain.find(':').unwrap_or(plain.len());
    let (first, sixties) = plain.split_at(at);
    is_digits(first) && (sixties.is_empty() || is_sixties(sixties))
}

fn int(text: &str) -> Option<i128> {
    let text = text.replace('_', "");
    let plain = unsigned(&text);
    let value = if let Some(bits) = plain.strip_prefix("0b") {
        i128::from_str_radix(bits, 2).ok()?
    } else if let Some(hex) = plain.strip_prefix("0x") {
        i128::from_str_radix(hex, 16).ok()?
    } else if plain.len() > 1 && plain.starts_with('0') {
        i128::from_str_radix(plain, 8).ok()?
    } else {
        let mut parts = plain.split(':').map(|part| part.parse::<i128>().ok());
        parts.try_fold(0i128, |value, part| value.checked_mul(60)?.checked_add(part?))?
    };
    Some(if text.starts_with('-') { -value } else { value })
}

/// A date, or a date and a time, by its beginning: what follows makes no difference to what is refused.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let mut next = |count: std::ops::RangeInclusive<usize>| {
        parts.next().filter(|part| {
            let digits = part.chars().take_while(char::is_ascii_digit).count();
            count.contains(&digits) && (digits == part.len() || count == (1..=2))
        })
    };
    let (Some(_), Some(month), Some(day)) = (next(4..=4), next(1..=2), next(1..=2)) else { return false };
    if month.len() == 2 && day.len() == 2 && day.bytes().all(|byte| byte.is_ascii_digit()) {
        return true;
    }
    let rest = day.trim_start_matches(|c: char| c.is_ascii_digit());
    let time = rest.strip_prefix(['T', 't']).unwrap_or_else(|| rest.trim_start_matches([' ', '\t']));
    let is_clock = time.len() < rest.len()
        && time.split(':').count() >= 3
        && time.split(':').take(2).all(|part| matches!(part.len(), 1 | 2) && is_digits(part));
    month.len() <= 2 && month.bytes().all(|byte| byte.is_ascii_digit()) && is_clock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_upstream_makes_of_them() {
        for (text, value) in [
            ("yes", Value::Bool(true)),
            ("Off", Value::Bool(false)),
            ("017", Value::Int(15)),
            ("-0x1F", Value::Int(-31)),
            ("0b101", Value::Int(5)),
            ("1_000", Value::Int(1_000)),
            ("1:30", Value::Int(90)),
            ("1.5", Value::Float(1.5)),
            ("1.", Value::Float(1.0)),
            (".5", Value::Float(0.5)),
            ("1.0e-5", Value::Float(1e-5)),
            ("-.inf", Value::Float(f64::NEG_INFINITY)),
            ("1:30.5", Value::Float(90.5)),
        ] {
            assert_eq!(resolve(text), Ok(value), "{text}");
        }
        for text in ["1e-5", "-.5", "0o17", "1.0e5", "08", "y", "yEs", "1:60", "a:b", "1.2.3", "+", "-", "."]
        {
            assert_eq!(resolve(text), Ok(Value::Text(text.to_owned())), "{text}");
        }
        for text in ["2001-12-14", "2001-12-14t21:59:43.10-05:00", "2001-1-4 21:59:43", "="] {
            assert!(resolve(text).is_err(), "{text}");
        }
        assert_eq!(resolve("2001-1-4"), Ok(Value::Text("2001-1-4".to_owned())));
    }
}
