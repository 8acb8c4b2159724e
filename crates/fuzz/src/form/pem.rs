//! DER changed inside its PEM envelope, and with it the lengths of what encloses the change.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::mutate::Mutator;

/// Changes the bytes of the first section.
pub(super) fn change(mutator: &mut Mutator, parent: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let (label, mut der) = open(parent)?;
    let donor = open(other).map(|(_, der)| der).unwrap_or_default();
    mutator.bytes(&mut der, &donor, &[]);
    if mutator.once_in(2) {
        fix_outer_length(&mut der);
    }
    let mut text = format!("-----BEGIN {label}-----\n").into_bytes();
    for line in STANDARD.encode(&der).as_bytes().chunks(64) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    Some(text)
}

fn open(text: &[u8]) -> Option<(String, Vec<u8>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END")?;
    let body: String = body.split_ascii_whitespace().collect();
    Some((label.to_owned(), STANDARD.decode(body).ok()?))
}

/// Makes the outermost sequence as long as what is there, if its length is of the form of two bytes.
fn fix_outer_length(der: &mut [u8]) {
    let len = der.len().saturating_sub(4);
    if let ([0x30, 0x82, high, low, ..], Ok(len)) = (der, u16::try_from(len)) {
        [*high, *low] = len.to_be_bytes();
    }
}
