//! PEM text around DER bytes: one section of one kind, nothing else. Bounded by its callers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

use crate::Error;

/// Writes one section; the text is overwritten when dropped, since it may be a private key.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text =
        Zeroizing::new(String::with_capacity(encoded.len() + encoded.len() / 64 + 2 * label.len() + 40));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Reads the only section of a text, which must be of `kind`.
pub(crate) fn decode_one(what: &'static str, kind: SectionKind, text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut sections = decode_all(what, kind, text)?;
    match (sections.pop(), sections.is_empty()) {
        (Some(der), true) => Ok(der),
        (None, _) => Err(Error::malformed(what, "it holds no PEM section")),
        (Some(_), false) => Err(Error::malformed(what, "it holds more than one PEM section")),
    }
}

/// Reads every section of a text, each of which must be of `kind`.
pub(crate) fn decode_all(what: &'static str, kind: SectionKind, text: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut sections = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (found, der) = section.map_err(|_| Error::malformed(what, "it is not well-formed PEM"))?;
        if found != kind {
            return Err(Error::malformed(
                what,
                format!("it holds a section of another kind ({})", label_of(&found)),
            ));
        }
        sections.push(der);
    }
    Ok(sections)
}

fn label_of(kind: &SectionKind) -> &'static str {
    match kind {
        SectionKind::Certificate => "CERTIFICATE",
        SectionKind::PublicKey => "PUBLIC KEY",
        SectionKind::RsaPrivateKey => "RSA PRIVATE KEY",
        SectionKind::PrivateKey => "PRIVATE KEY",
        SectionKind::EcPrivateKey => "EC PRIVATE KEY",
        SectionKind::Csr => "CERTIFICATE REQUEST",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sections_of_another_kind_or_more_than_one_are_refused() {
        let key = encode("PRIVATE KEY", b"abc");
        let twice = format!("{}{}", key.as_str(), key.as_str());
        assert!(decode_one("it", SectionKind::Certificate, key.as_bytes()).is_err());
        assert!(decode_one("it", SectionKind::PrivateKey, twice.as_bytes()).is_err());
        assert!(decode_one("it", SectionKind::PrivateKey, b"").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_read_back(der in proptest::collection::vec(any::<u8>(), 1..400)) {
            let text = encode("CERTIFICATE", &der);
            prop_assert_eq!(decode_one("it", SectionKind::Certificate, text.as_bytes()).unwrap(), der);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode_all("it", SectionKind::Certificate, &bytes);
            let mut framed = b"-----BEGIN CERTIFICATE-----\n".to_vec();
            framed.extend_from_slice(&bytes);
            framed.extend_from_slice(b"\n-----END CERTIFICATE-----\n");
            let _ = decode_all("it", SectionKind::Certificate, &framed);
        }
    }
}
