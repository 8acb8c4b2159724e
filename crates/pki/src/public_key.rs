//! Public keys of peers: which types are accepted, their fingerprint, how their signatures are checked.
//!
//! Accepted: ECDSA P-256 and P-384, Ed25519, RSA from 2048 to 8192 bits. Everything else is refused by name.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::pem::SectionKind;
use sheaf_domain::Digest;
use x509_parser::oid_registry as oid;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::{Error, pem};

/// An accepted public key, as SubjectPublicKeyInfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki_der: Vec<u8>,
    kind: KeyKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

/// The largest SubjectPublicKeyInfo read, in bytes: RSA of 8192 bits and some.
const SPKI_LEN_MAX: usize = 2_048;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::UnsupportedKey`].
    pub fn from_spki_der(der: &[u8]) -> Result<PublicKey, Error> {
        if der.len() > SPKI_LEN_MAX {
            return Err(Error::TooLarge { what: "the public key", max: SPKI_LEN_MAX });
        }
        let malformed = || Error::malformed("the public key", "it is not a SubjectPublicKeyInfo");
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| malformed())?;
        if !rest.is_empty() {
            return Err(malformed());
        }
        Ok(PublicKey { spki_der: der.to_vec(), kind: kind_of(&spki)? })
    }

    /// Reads a PEM text with one `PUBLIC KEY` section.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::UnsupportedKey`].
    pub fn from_pem(text: &str) -> Result<PublicKey, Error> {
        if text.len() > 2 * SPKI_LEN_MAX {
            return Err(Error::TooLarge { what: "the public key", max: 2 * SPKI_LEN_MAX });
        }
        PublicKey::from_spki_der(&pem::decode_one("the public key", SectionKind::PublicKey, text.as_bytes())?)
    }

    /// The key as PEM.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki_der).to_string()
    }

    /// The key as SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the key's name everywhere.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.spki_der)
    }

    /// Checks a signature made with the key type's own digest: SHA-256 for P-256 and RSA (PKCS#1 v1.5), SHA-384 for
    /// P-384, none for Ed25519. ECDSA signatures are in ASN.1 DER.
    ///
    /// # Errors
    /// [`Error::BadSignature`] naming `what`.
    pub fn verify(&self, what: &'static str, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let algorithm: &dyn VerificationAlgorithm = match self.kind {
            KeyKind::P256 => &signature::ECDSA_P256_SHA256_ASN1,
            KeyKind::P384 => &signature::ECDSA_P384_SHA384_ASN1,
            KeyKind::Ed25519 => &signature::ED25519,
            KeyKind::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
        };
        self.verify_as(what, algorithm, message, signature)
    }

    /// Checks an ECDSA signature made with SHA-256 whatever the curve, as Flower's nodes make them.
    ///
    /// # Errors
    /// [`Error::UnsupportedKey`] for a key that is not of an elliptic curve P-256 or P-384, [`Error::BadSignature`]
    /// naming `what`.
    pub fn verify_ecdsa_sha256(
        &self,
        what: &'static str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Error> {
        let algorithm: &dyn VerificationAlgorithm = match self.kind {
            KeyKind::P256 => &signature::ECDSA_P256_SHA256_ASN1,
            KeyKind::P384 => &signature::ECDSA_P384_SHA256_ASN1,
            KeyKind::Ed25519 => return Err(Error::UnsupportedKey { found: "an Ed25519 key".to_owned() }),
            KeyKind::Rsa => return Err(Error::UnsupportedKey { found: "an RSA key".to_owned() }),
        };
        self.verify_as(what, algorithm, message, signature)
    }

    /// Checks a signature whose algorithm is named by an object identifier, as in a certificate signing request.
    pub(crate) fn verify_named(
        &self,
        what: &'static str,
        name: &Oid<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Error> {
        let algorithm = named_algorithm(self.kind, name).ok_or_else(|| {
            Error::malformed(what, format!("its signature algorithm {name} does not go with its key"))
        })?;
        self.verify_as(what, algorithm, message, signature)
    }

    fn verify_as(
        &self,
        what: &'static str,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Error> {
        UnparsedPublicKey::new(algorithm, &self.spki_der)
            .verify(message, signature)
            .map_err(|_| Error::BadSignature { what })
    }
}

fn kind_of(spki: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, Error> {
    let unsupported = |found: String| Error::UnsupportedKey { found };
    let algorithm = &spki.algorithm.algorithm;
    if *algorithm == oid::OID_SIG_ED25519 {
        return Ok(KeyKind::Ed25519);
    }
    if *algorithm == oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == oid::OID_EC_P256 => Ok(KeyKind::P256),
            Some(curve) if curve == oid::OID_NIST_EC_P384 => Ok(KeyKind::P384),
            Some(curve) => Err(unsupported(format!("an elliptic curve {curve}"))),
            None => Err(unsupported("an elliptic curve without a name".to_owned())),
        };
    }
    if *algorithm == oid::OID_PKCS1_RSAENCRYPTION {
        return match spki.parsed() {
            Ok(ParsedKey::RSA(key)) if RSA_BITS.contains(&key.key_size()) => Ok(KeyKind::Rsa),
            Ok(ParsedKey::RSA(key)) => Err(unsupported(format!("RSA of {} bits", key.key_size()))),
            _ => Err(Error::malformed("the public key", "its RSA numbers cannot be read")),
        };
    }
    Err(unsupported(format!("a key of type {algorithm}")))
}

fn named_algorithm(kind: KeyKind, name: &Oid<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let table: [(KeyKind, Oid<'_>, &'static dyn VerificationAlgorithm); 10] = [
        (KeyKind::P256, oid::OID_SIG_ECDSA_WITH_SHA256, &signature::ECDSA_P256_SHA256_ASN1),
        (KeyKind::P256, oid::OID_SIG_ECDSA_WITH_SHA384, &signature::ECDSA_P256_SHA384_ASN1),
        (KeyKind::P256, oid::OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P256_SHA512_ASN1),
        (KeyKind::P384, oid::OID_SIG_ECDSA_WITH_SHA256, &signature::ECDSA_P384_SHA256_ASN1),
        (KeyKind::P384, oid::OID_SIG_ECDSA_WITH_SHA384, &signature::ECDSA_P384_SHA384_ASN1),
        (KeyKind::P384, oid::OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P384_SHA512_ASN1),
        (KeyKind::Ed25519, oid::OID_SIG_ED25519, &signature::ED25519),
        (KeyKind::Rsa, oid::OID_PKCS1_SHA256WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA256),
        (KeyKind::Rsa, oid::OID_PKCS1_SHA384WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA384),
        (KeyKind::Rsa, oid::OID_PKCS1_SHA512WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA512),
    ];
    table.into_iter().find(|(of, named, _)| *of == kind && named == name).map(|(_, _, algorithm)| algorithm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SiteKey;

    #[test]
    fn keys_of_other_types_are_refused_by_name() {
        let p521 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        let error = PublicKey::from_pem(&p521.public_key_pem()).unwrap_err();
        assert!(matches!(error, Error::UnsupportedKey { .. }), "{error}");
    }

    #[test]
    fn a_signature_verifies_only_over_its_message_under_its_key() {
        let (one, two) = (SiteKey::generate().unwrap(), SiteKey::generate().unwrap());
        let signature = one.sign(b"message").unwrap();
        assert!(one.public_key().verify("it", b"message", &signature).is_ok());
        assert!(one.public_key().verify("it", b"massage", &signature).is_err());
        assert!(two.public_key().verify("it", b"message", &signature).is_err());
        assert!(one.public_key().verify("it", b"message", &[]).is_err());
        let read = PublicKey::from_pem(&one.public_key().to_pem()).unwrap();
        assert_eq!(&read, one.public_key());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in 0usize..91,
            value: u8,
        ) {
            let _ = PublicKey::from_spki_der(&bytes);
            let mut changed = SiteKey::generate().unwrap().public_key().spki_der().to_vec();
            if let Some(byte) = changed.get_mut(at) {
                *byte = value;
            }
            if let Ok(key) = PublicKey::from_spki_der(&changed) {
                prop_assert!(key.verify("it", b"message", &bytes).is_err());
            }
        }
    }
}
