//! The native protocol's messages as protobuf, as both ends of the gRPC transport read them.

use sheaf_messages::{self as messages, Error};

use super::wire::{self, Encode, Travels, Visitor};
use crate::form::Form;
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `messages::decode` and the translation to the domain. The first byte chooses the message.
pub(super) const TARGET: Target = Target {
    name: "protobuf",
    about: "the native protocol's messages as protobuf",
    form: Form::ChosenProtobuf,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 40, constant: 64 * 1024 },
    samples: || wire::samples(AsProtobuf),
    body,
};

struct AsProtobuf;

impl Encode for AsProtobuf {
    fn encode<M: Travels>(&self, message: &M) -> Vec<u8> {
        message.encode_to_vec()
    }
}

fn body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    match super::choice(input, wire::COUNT) {
        Ok((chosen, bytes)) => wire::visit(chosen, &mut Reader { bytes, probe }),
        Err(refused) => refused,
    }
}

struct Reader<'i, 'p, 'c> {
    bytes: &'i [u8],
    probe: &'p mut Probe<'c>,
}

impl Visitor for Reader<'_, '_, '_> {
    fn visit<M: Travels>(&mut self, meaning: fn(&M) -> Result<M, Error>) -> Verdict {
        let (decoded, meant) = self.probe.watch(|| {
            let decoded = messages::decode::<M>(self.bytes);
            let meant = decoded.as_ref().ok().map(meaning);
            (decoded, meant)
        });
        let message = match decoded {
            Ok(message) => message,
            Err(error) => return Verdict::refused(error),
        };
        let bytes = message.encode_to_vec();
        let again = M::decode(bytes.as_slice()).map(|again| again.encode_to_vec());
        assert_eq!(again.as_ref(), Ok(&bytes), "what was encoded decodes to the same");
        // JSON has one form for every NaN; everything else is the same message in it.
        let json = serde_json::to_vec(&message).unwrap_or_else(|error| panic!("no JSON form: {error}"));
        if let Ok(from_json) = serde_json::from_slice::<M>(&json) {
            let again =
                serde_json::to_vec(&from_json).unwrap_or_else(|error| panic!("no JSON form: {error}"));
            assert_eq!(again, json, "the JSON form is another message");
        }
        told(meant, meaning, |message| message.encode_to_vec())
    }
}

/// Checks that a canonical form means itself, and says what came of the translation.
pub(super) fn told<M: Travels>(
    meant: Option<Result<M, Error>>,
    meaning: fn(&M) -> Result<M, Error>,
    encode: impl Fn(&M) -> Vec<u8>,
) -> Verdict {
    match meant {
        Some(Ok(canonical)) => {
            let again = meaning(&canonical).map(|again| encode(&again));
            assert_eq!(again, Ok(encode(&canonical)), "the canonical form means something else");
            Verdict::Accepted(format!("{} bytes", encode(&canonical).len()))
        }
        Some(Err(error)) => Verdict::Refused(format!("in meaning: {error}")),
        None => Verdict::Refused("not read".to_owned()),
    }
}
