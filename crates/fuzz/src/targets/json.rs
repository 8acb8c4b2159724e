//! JSON bodies: the native protocol's messages over HTTPS, and those of the operators' API.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sheaf_admin_api as admin;
use sheaf_messages::Error;
use sheaf_wire_native::parse_message;

use super::protobuf::told;
use super::wire::{self, Encode, Travels, Visitor};
use crate::form::Form;
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `wire_native::parse_message` and the translation to the domain. The first byte chooses the message.
pub(super) const NATIVE: Target = Target {
    name: "json",
    about: "the native protocol's messages as JSON",
    form: Form::ChosenJson,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 40, constant: 64 * 1024 },
    samples: || wire::samples(AsJson),
    body: native,
};

/// The bodies of the operators' API, requests and answers. The first byte chooses one.
pub(super) const ADMIN: Target = Target {
    name: "admin",
    about: "the JSON bodies of the operators' API",
    form: Form::ChosenJson,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 40, constant: 64 * 1024 },
    samples: admin_samples,
    body: admin_body,
};

struct AsJson;

impl Encode for AsJson {
    fn encode<M: Travels>(&self, message: &M) -> Vec<u8> {
        serde_json::to_vec(message).unwrap_or_default()
    }
}

fn native(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
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
            let decoded = parse_message::<M>(self.bytes);
            let meant = decoded.as_ref().ok().map(meaning);
            (decoded, meant)
        });
        let message = match decoded {
            Ok(message) => message,
            Err(error) => return Verdict::refused(error),
        };
        let json = serde_json::to_vec(&message).unwrap_or_else(|error| panic!("no JSON form: {error}"));
        let again =
            parse_message::<M>(&json).unwrap_or_else(|error| panic!("what was printed is refused: {error}"));
        assert_eq!(again.encode_to_vec(), message.encode_to_vec(), "what was printed is another message");
        told(meant, meaning, |message| message.encode_to_vec())
    }
}

fn admin_body(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    match super::choice(input, 10) {
        Ok((0, json)) => create_run(json, probe),
        Ok((1, json)) => body::<admin::PlanBody>(json, probe),
        Ok((2, json)) => body::<admin::InviteBody>(json, probe),
        Ok((3, json)) => body::<admin::ApproveBody>(json, probe),
        Ok((4, json)) => body::<admin::ReasonBody>(json, probe),
        Ok((5, json)) => body::<admin::ExtendBody>(json, probe),
        Ok((6, json)) => body::<admin::BackupBody>(json, probe),
        Ok((7, json)) => body::<admin::JournalBody>(json, probe),
        Ok((8, json)) => body::<admin::ModelBody>(json, probe),
        Ok((_, json)) => body::<admin::ErrorBody>(json, probe),
        Err(refused) => refused,
    }
}

fn create_run(json: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let verdict = body::<admin::CreateRunBody>(json, probe);
    let manifest = serde_json::from_slice::<admin::CreateRunBody>(json).ok().and_then(|body| body.init);
    let Some(manifest) = manifest else { return verdict };
    match manifest.check() {
        Ok(()) => {
            let span = sheaf_domain::ByteSpan { offset: 1, len: u64::MAX };
            let located: u64 = manifest.locate(span).iter().map(|segment| segment.len).sum();
            assert_eq!(located, manifest.byte_len().saturating_sub(1), "its segments are its bytes");
            Verdict::Accepted(format!("a manifest of {} tensors", manifest.tensors.len()))
        }
        Err(error) => Verdict::refused(error),
    }
}

fn body<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(
    json: &[u8],
    probe: &mut Probe<'_>,
) -> Verdict {
    let read = match probe.watch(|| serde_json::from_slice::<T>(json)) {
        Ok(read) => read,
        Err(error) => return Verdict::refused(error),
    };
    let printed = serde_json::to_vec(&read).unwrap_or_else(|error| panic!("no JSON form: {error}"));
    let again = serde_json::from_slice::<T>(&printed).map_err(|error| error.to_string());
    assert_eq!(again, Ok(read), "what was printed is another body");
    Verdict::Accepted(format!("{} bytes", printed.len()))
}

fn admin_samples() -> Vec<Vec<u8>> {
    let hash = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let segment = format!(r#"{{"object":"{hash}","offset":0,"len":4}}"#);
    let tensor = format!(r#"{{"name":"w","dtype":"f32","shape":[1],"segments":[{segment}]}}"#);
    let version = r#"{"run":"0000000000000007","lineage":"global","version":3}"#;
    let entry =
        format!(r#"{{"seq":1,"at":7,"kind":"note","body":"{{}}","previous":"{hash}","hash":"{hash}"}}"#);
    [
        format!(r#"{{"plan":"x","init":{{"codec":"raw","tensors":[{tensor}]}},"upload":"u","from":null}}"#),
        r#"{"plan":"[run]\nname = \"a\"\nrounds = 1\n"}"#.to_owned(),
        r#"{"site":"berlin","ttl":"7d","approve":true}"#.to_owned(),
        format!(r#"{{"fingerprint":"{hash}"}}"#),
        r#"{"reason":"enough"}"#.to_owned(),
        r#"{"rounds":3}"#.to_owned(),
        r#"{"dir":"backups/one"}"#.to_owned(),
        format!(r#"{{"entries":[{entry}]}}"#),
        format!(
            r#"{{"version":{version},"digest":"{hash}","tensors":[{{"name":"w","dtype":"f32","shape":[1]}}],"bytes":4}}"#
        ),
        r#"{"error":{"kind":"exhausted","message":"later","retry_after_ms":1000}}"#.to_owned(),
    ]
    .iter()
    .enumerate()
    .map(|(number, json)| super::chosen(number, json.as_bytes()))
    .collect()
}
