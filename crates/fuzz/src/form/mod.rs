//! The forms inputs have: mutations that keep enough of a format intact to get past its first checks.

mod framed;
mod json;
mod pem;
mod protobuf;
#[rustfmt::skip]
mod words;
mod zip;

use crate::mutate::Mutator;

/// What an input looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines of text of a known vocabulary.
    Text(&'static [&'static str]),
    /// JSON.
    Json,
    /// Protobuf, behind a byte that chooses the message.
    ChosenProtobuf,
    /// JSON, behind a byte that chooses the message.
    ChosenJson,
    /// Text, behind a byte that chooses the decoder.
    ChosenText(&'static [&'static str]),
    /// JSON lines.
    JsonLines,
    /// A zip archive.
    Zip,
    /// A `.npy` array.
    Npy,
    /// A safetensors file.
    Safetensors,
    /// DER in a PEM envelope.
    Pem,
    /// DER.
    Der,
    /// Eight bytes of a number, then text.
    NumberedText(&'static [&'static str]),
}

pub(crate) use words::{CONFIG, CSV, FLOWER_HEADERS, HEADERS, KIT, OBJECT, PLAN, RANGE};

impl Form {
    /// A changed copy of `parent`; `other` is another input of the same form.
    pub fn mutate(self, mutator: &mut Mutator, parent: &[u8], other: &[u8]) -> Vec<u8> {
        let words = self.words();
        if !mutator.once_in(3)
            && let Some(mut changed) = self.by_structure(mutator, parent, other)
        {
            // What fits in structure is now and then broken in a byte.
            if mutator.once_in(6) {
                mutator.bytes(&mut changed, other, words);
            }
            return changed;
        }
        let mut changed = parent.to_vec();
        mutator.bytes(&mut changed, other, words);
        changed
    }

    fn by_structure(self, mutator: &mut Mutator, parent: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        let behind_choice = |mutator: &mut Mutator, inner: Change| {
            let (choice, rest) = parent.split_first()?;
            let mut changed = vec![*choice];
            changed.append(&mut inner(mutator, rest, other.get(1..).unwrap_or_default())?);
            Some(changed)
        };
        match self {
            Form::Json => json::change(mutator, parent, other),
            Form::ChosenJson => behind_choice(mutator, json::change),
            Form::ChosenProtobuf => behind_choice(mutator, protobuf::change),
            Form::JsonLines => json::change_line(mutator, parent, other),
            Form::Zip => zip::change(mutator, parent, other),
            Form::Npy => framed::change_npy(mutator, parent, other),
            Form::Safetensors => framed::change_safetensors(mutator, parent, other),
            Form::Pem => pem::change(mutator, parent, other),
            Form::Text(_) | Form::ChosenText(_) | Form::Der | Form::NumberedText(_) => None,
        }
    }

    fn words(self) -> &'static [&'static str] {
        match self {
            Form::Text(words) | Form::ChosenText(words) | Form::NumberedText(words) => words,
            Form::Json | Form::ChosenJson | Form::JsonLines => words::JSON,
            Form::Npy => words::NPY,
            Form::Safetensors => words::SAFETENSORS,
            Form::Zip => words::ZIP,
            Form::Pem => words::PEM,
            Form::ChosenProtobuf => words::PROTOBUF,
            Form::Der => &[],
        }
    }
}

/// A change that keeps a structure; nothing when the input has none.
type Change = fn(&mut Mutator, &[u8], &[u8]) -> Option<Vec<u8>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap;

    /// The most a change may hold at once: a few repetitions of the longest kind on top of the longest input, as a tree.
    const HELD_BYTES_MAX: u64 = 64 * 1024 * 1024;

    fn long(form: Form) -> Vec<u8> {
        let field = [&[0x0a, 0x7f][..], &[b'x'; 0x7f]].concat();
        match form {
            Form::ChosenJson => {
                format!("a{{\"a\":[{}0]}}", "[\"a text\",{\"b\":[0]}],".repeat(2_500)).into_bytes()
            }
            _ => [b"a".as_slice(), &field.repeat(500)].concat(),
        }
    }

    #[test]
    fn changes_one_after_another_hold_no_more_than_is_sensible() {
        for form in [Form::ChosenProtobuf, Form::ChosenJson] {
            let (mut mutator, parent) = (Mutator::new(5, "test"), long(form));
            // What was made longer is changed again, as the driver does with what it keeps.
            let mut given = parent.clone();
            for _ in 0..200 {
                let (changed, taken) = heap::watch(|| form.mutate(&mut mutator, &given, &parent));
                assert!(taken.peak_bytes < HELD_BYTES_MAX, "{form:?} held {} bytes", taken.peak_bytes);
                given = changed;
                given.truncate(64 * 1024);
                if form.by_structure(&mut mutator, &given, &parent).is_none() {
                    given.clone_from(&parent);
                }
            }
        }
    }
}
