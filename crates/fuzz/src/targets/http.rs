//! What is read of a request's headers: the proof of a signed request, and the `Range`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue, header};
use sheaf_domain::{Digest, SiteName, Span, Timestamp};
use sheaf_pki::{RequestParts, RequestVerifier, SignedHeaders, sign_request};
use sheaf_runtime::SeededEntropy;
use sheaf_wire_native::{Wanted, wanted_range};

use crate::form::{self, Form};
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `SignedHeaders::read` and the check of the signature. Lines of `name: value`.
pub(super) const SIGNED: Target = Target {
    name: "signed",
    about: "the headers of a signed request",
    form: Form::Text(form::HEADERS),
    len_max: 16 * 1024,
    ceiling: Ceiling { per_byte: 8, constant: 64 * 1024 },
    samples: signed_samples,
    body: signed,
};

/// `wanted_range`. Eight bytes of the stream's length, then the header's value.
pub(super) const RANGE: Target = Target {
    name: "range",
    about: "the Range header",
    form: Form::NumberedText(form::RANGE),
    len_max: 4 * 1024,
    ceiling: Ceiling { per_byte: 4, constant: 16 * 1024 },
    samples: range_samples,
    body: range,
};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const REQUEST: RequestParts<'_> =
    RequestParts { trust_domain: "example", method: "POST", path_and_query: "/native/v1/beat" };

fn signed(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let text = match super::text(input) {
        Ok(text) => text,
        Err(refused) => return refused,
    };
    let headers: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    let signed = match probe.watch(|| SignedHeaders::read(|name| headers.get(name).copied())) {
        Ok(Some(signed)) => signed,
        Ok(None) => return Verdict::Accepted("it is not signed".to_owned()),
        Err(error) => return Verdict::refused(error),
    };
    let Some(key) = super::pki::key() else { return Verdict::Refused("no key".to_owned()) };
    let verifier = RequestVerifier::new(Span::from_secs(60), 16, Timestamp::default());
    let check = || verifier.verify(&signed, &REQUEST, key.public_key().spki_der(), NOW);
    match probe.watch(check) {
        Ok(()) => {
            assert!(check().is_err(), "a request was taken twice");
            Verdict::Accepted("it verifies".to_owned())
        }
        Err(error) => Verdict::Refused(format!("unverified: {error}")),
    }
}

fn range(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let Some((total, value)) = input.split_first_chunk() else {
        return Verdict::Refused("it is too short".to_owned());
    };
    let total = u64::from_le_bytes(*total);
    let mut headers = HeaderMap::new();
    match HeaderValue::from_bytes(value) {
        Ok(value) => headers.insert(header::RANGE, value),
        Err(_) => return Verdict::Refused("it is no header".to_owned()),
    };
    match probe.watch(|| wanted_range(&headers, total)) {
        Ok(Wanted::Whole) => Verdict::Accepted("the whole".to_owned()),
        Ok(Wanted::Part { offset, len }) => {
            let end = offset.checked_add(len);
            assert!(len > 0 && end.is_some_and(|end| end <= total), "{offset}+{len} is not within {total}");
            Verdict::Accepted(format!("a part of {len}"))
        }
        Err(error) => Verdict::refused(error),
    }
}

fn signed_samples() -> Vec<Vec<u8>> {
    let made = || {
        let site = SiteName::new("berlin").ok()?;
        let entropy = SeededEntropy::shared(1);
        let body = Digest::of(b"{}");
        sign_request(super::pki::key()?, &site, &REQUEST, &body, NOW, entropy.as_ref()).ok()
    };
    let lines = made().unwrap_or_default();
    let text: String = lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    vec![text.into_bytes(), b"accept: */*\n".to_vec()]
}

fn range_samples() -> Vec<Vec<u8>> {
    ["bytes=0-3", "bytes=4-", "bytes=-3", "bytes=0-1,4-5", "lines=1-2"]
        .map(|value| [10u64.to_le_bytes().as_slice(), value.as_bytes()].concat())
        .to_vec()
}
