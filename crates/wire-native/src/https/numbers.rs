//! Numbers that JSON does not have but its writers write: `NaN`, `Infinity`, `1e999`.
//!
//! Looked for only in a submission that could not be parsed: put in the quotes the protocol has for them, they reach the gate,
//! which refuses them by name as it does on the other transport. Nothing else of the text is changed.

/// `json` with every bare number that is none, or beyond the range of 64 bits, in quotes.
pub(super) fn named(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let mut word = Vec::new();
    let mut place = Place::Outside;
    for byte in json.iter().copied() {
        match (place, byte) {
            (Place::Escaped, _) => place = Place::Inside,
            (Place::Inside, b'\\') => place = Place::Escaped,
            (Place::Inside, b'"') => place = Place::Outside,
            (Place::Inside, _) => {}
            (Place::Outside, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') => {
                word.push(byte);
                continue;
            }
            (Place::Outside, _) => {
                end_word(&mut word, &mut out);
                if byte == b'"' {
                    place = Place::Inside;
                }
            }
        }
        out.push(byte);
    }
    end_word(&mut word, &mut out);
    out
}

/// Where the reader is: in a string, behind a backslash in one, or in neither.
#[derive(Clone, Copy)]
enum Place {
    Outside,
    Inside,
    Escaped,
}

fn end_word(word: &mut Vec<u8>, out: &mut Vec<u8>) {
    let name = std::str::from_utf8(word).ok().and_then(name_of);
    match name {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => out.extend_from_slice(word),
    }
    word.clear();
}

/// The protocol's name of a number that JSON has none for, in quotes.
fn name_of(word: &str) -> Option<&'static str> {
    match word.parse::<f64>().ok()? {
        value if value.is_nan() => Some("\"NaN\""),
        f64::INFINITY => Some("\"Infinity\""),
        f64::NEG_INFINITY => Some("\"-Infinity\""),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_numbers_that_are_none_are_quoted() {
        for (json, expected) in [
            (r#"{"a":NaN,"b":[-Infinity, 1e999]}"#, r#"{"a":"NaN","b":["-Infinity", "Infinity"]}"#),
            (r#"{"a": -1e400}"#, r#"{"a": "-Infinity"}"#),
            (r#"{"NaN": "NaN, \"Infinity", "b": 1.5e3}"#, r#"{"NaN": "NaN, \"Infinity", "b": 1.5e3}"#),
            (r#"{"a": true, "b": null, "c": nonsense"#, r#"{"a": true, "b": null, "c": nonsense"#),
            ("inf", "\"Infinity\""),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8(named(json.as_bytes())).unwrap(), expected, "{json}");
        }
    }
}
