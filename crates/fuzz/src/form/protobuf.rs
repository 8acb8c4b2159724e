//! Protobuf changed field by field, with the lengths around a change put right.

use crate::mutate::Mutator;

/// One field as it stands: its key, and its value.
#[derive(Clone)]
struct Field {
    number: u64,
    value: FieldValue,
}

#[derive(Clone)]
enum FieldValue {
    Varint(u64),
    /// Of four or eight bytes.
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
}

impl FieldValue {
    /// How long it is, with a key.
    fn len(&self) -> usize {
        2 + match self {
            FieldValue::Varint(_) => 1,
            FieldValue::Fixed(bytes) | FieldValue::Bytes(bytes) => bytes.len(),
        }
    }
}

/// Changes one field somewhere in a message.
pub(super) fn change(mutator: &mut Mutator, parent: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut fields = parse(parent)?;
    let donors = parse(other).unwrap_or_default();
    for _ in 0..=mutator.below(2) {
        change_fields(mutator, &mut fields, &donors, 0);
    }
    Some(print(&fields))
}

fn change_fields(mutator: &mut Mutator, fields: &mut Vec<Field>, donors: &[Field], depth: usize) {
    let at = mutator.below(fields.len());
    let Some(field) = fields.get_mut(at) else {
        fields.extend(mutator.pick(donors).cloned());
        return;
    };
    // Mostly the change lies deeper.
    if let FieldValue::Bytes(bytes) = &mut field.value
        && depth < 6
        && !mutator.once_in(4)
        && let Some(mut inner) = parse(bytes).filter(|inner| !inner.is_empty())
    {
        change_fields(mutator, &mut inner, donors, depth + 1);
        *bytes = print(&inner);
        return;
    }
    match mutator.below(8) {
        0 => {
            fields.remove(at);
        }
        1 => {
            let copy = field.clone();
            let times = if mutator.once_in(4) { mutator.times(3_000, copy.value.len()) } else { 1 };
            fields.extend(std::iter::repeat_n(copy, times));
        }
        2 => field.number = mutator.below(14) as u64,
        3 => fields.extend(mutator.pick(donors).cloned()),
        4 => {
            let empty = Field { number: field.number, value: FieldValue::Bytes(Vec::new()) };
            let times = if mutator.once_in(4) { mutator.times(3_000, empty.value.len()) } else { 1 };
            fields.extend(std::iter::repeat_n(empty, times));
        }
        5 => {
            let inner = Field { number: 1, value: FieldValue::Bytes(print(fields)) };
            *fields = vec![inner];
        }
        _ => change_value(mutator, &mut field.value),
    }
}

fn change_value(mutator: &mut Mutator, value: &mut FieldValue) {
    match value {
        FieldValue::Varint(number) => *number = mutator.number(),
        FieldValue::Fixed(bytes) => {
            for (byte, new) in bytes.iter_mut().zip(mutator.number().to_le_bytes()) {
                *byte = new;
            }
        }
        FieldValue::Bytes(bytes) => mutator.bytes(bytes, b"0123456789abcdef", &[]),
    }
}

/// The fields of a message; nothing for what is none.
fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => FieldValue::Varint(varint(&mut bytes)?),
            1 => FieldValue::Fixed(bytes.split_off(..8)?.to_vec()),
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                FieldValue::Bytes(bytes.split_off(..len)?.to_vec())
            }
            5 => FieldValue::Fixed(bytes.split_off(..4)?.to_vec()),
            _ => return None,
        };
        fields.push(Field { number: key >> 3, value });
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn print(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Field { number, value } in fields {
        let mut key = |kind: u64| put_varint(&mut bytes, number << 3 | kind);
        match value {
            FieldValue::Varint(number) => {
                key(0);
                put_varint(&mut bytes, *number);
            }
            FieldValue::Fixed(fixed) => {
                key(if fixed.len() == 4 { 5 } else { 1 });
                bytes.extend_from_slice(fixed);
            }
            FieldValue::Bytes(inner) => {
                key(2);
                put_varint(&mut bytes, inner.len() as u64);
                bytes.extend_from_slice(inner);
            }
        }
    }
    bytes
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_taken_apart_is_put_together_the_same() {
        let bytes =
            [0x0a, 3, b'a', b'b', b'c', 0x10, 0x96, 0x01, 0x1d, 1, 2, 3, 4, 0x21, 8, 7, 6, 5, 4, 3, 2, 1];
        assert_eq!(print(&parse(&bytes).unwrap()), bytes);
        assert!(parse(&[0x0a, 3, b'a']).is_none());
    }
}
