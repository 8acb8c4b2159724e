//! JSON changed as a tree: what comes out is JSON again, but for a value of the wrong sort somewhere.

use serde_json::Value;

use crate::mutate::Mutator;

/// Changes one value of a document.
pub(super) fn change(mutator: &mut Mutator, parent: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(parent).ok()?;
    let other: Value = serde_json::from_slice(other).unwrap_or(Value::Null);
    for _ in 0..=mutator.below(3) {
        let place = mutator.below(count(&document));
        if let Some(value) = nth(&mut document, &mut place.clone()) {
            change_value(mutator, value, &other);
        }
    }
    serde_json::to_vec(&document).ok()
}

/// Changes one line of several, or their number and order.
pub(super) fn change_line(mutator: &mut Mutator, parent: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut lines: Vec<&[u8]> = parent.split(|byte| *byte == b'\n').collect();
    let at = mutator.below(lines.len());
    let line = *lines.get(at)?;
    let others: Vec<&[u8]> = other.split(|byte| *byte == b'\n').collect();
    let changed;
    match mutator.below(6) {
        0 => {
            lines.remove(at);
        }
        1 => lines.insert(at, line),
        2 => lines.insert(at, mutator.pick(&others).copied().unwrap_or_default()),
        _ => {
            let donor = mutator.pick(&others).copied().unwrap_or_default();
            changed = change(mutator, line, donor)?;
            *lines.get_mut(at)? = &changed;
        }
    }
    Some(lines.join(&b'\n'))
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// How long the text of a value is, nearly.
fn len(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|item| 1 + len(item)).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| 4 + key.len() + len(value)).sum::<usize>() + 2
        }
        Value::String(text) => text.len() + 2,
        _ => 4,
    }
}

/// The value at a place in order of the text.
fn nth<'v>(value: &'v mut Value, place: &mut usize) -> Option<&'v mut Value> {
    if *place == 0 {
        return Some(value);
    }
    *place -= 1;
    let inner: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for value in inner {
        let size = count(value);
        if *place < size {
            return nth(value, place);
        }
        *place -= size;
    }
    None
}

fn change_value(mutator: &mut Mutator, value: &mut Value, other: &Value) {
    match (mutator.below(4), &mut *value) {
        (0, Value::Array(items)) if !items.is_empty() => {
            let copy = mutator.pick(items).cloned().unwrap_or_default();
            let times = if mutator.once_in(6) { mutator.times(500, len(&copy)) } else { 1 };
            items.extend(std::iter::repeat_n(copy, times));
        }
        (1, Value::Array(items)) if !items.is_empty() => {
            items.remove(mutator.below(items.len()));
        }
        (0, Value::Object(fields)) => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            if let Some(key) = mutator.pick(&keys) {
                fields.remove(key);
            }
        }
        (1, Value::Object(fields)) => {
            let copy = fields.values().nth(mutator.below(fields.len())).cloned().unwrap_or_default();
            fields.insert(mutator.number().to_string(), copy);
        }
        (2, Value::String(text)) => {
            let mut bytes = std::mem::take(text).into_bytes();
            mutator.bytes(&mut bytes, b"0123456789abcdef", &[]);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        (3, _) => *value = other.clone(),
        _ => *value = scalar(mutator),
    }
}

fn scalar(mutator: &mut Mutator) -> Value {
    match mutator.below(8) {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::String(String::new()),
        3 => Value::Array(Vec::new()),
        4 => Value::Object(serde_json::Map::new()),
        5 => Value::from(-1.5e300),
        6 => Value::String("f".repeat(1 << mutator.below(10))),
        _ => Value::from(mutator.number()),
    }
}
