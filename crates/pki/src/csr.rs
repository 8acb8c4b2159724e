//! A certificate signing request as the CA reads it: a public key and the proof that its owner asks. Nothing else.
//!
//! Names, usages and extensions in the request are not read at all, so they cannot end up in a certificate.

use rustls_pki_types::pem::SectionKind;
use sheaf_domain::Digest;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::{Error, PublicKey, pem};

/// The largest request read, in bytes of PEM.
pub const CSR_LEN_MAX: usize = 16 * 1024;

const WHAT: &str = "the certificate signing request";

/// The key of a verified certificate signing request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    public_key: PublicKey,
}

impl SigningRequest {
    /// Reads a request in PEM and checks that the key in it signed it.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`], [`Error::UnsupportedKey`], [`Error::BadSignature`].
    pub fn parse(csr_pem: &str) -> Result<SigningRequest, Error> {
        if csr_pem.len() > CSR_LEN_MAX {
            return Err(Error::TooLarge { what: WHAT, max: CSR_LEN_MAX });
        }
        let der = pem::decode_one(WHAT, SectionKind::Csr, csr_pem.as_bytes())?;
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|_| Error::malformed(WHAT, "it is not a PKCS#10 request in DER"))?;
        if !rest.is_empty() {
            return Err(Error::malformed(WHAT, "bytes follow its end"));
        }
        let info = &request.certification_request_info;
        let public_key = PublicKey::from_spki_der(info.subject_pki.raw)?;
        public_key.verify_named(
            WHAT,
            &request.signature_algorithm.algorithm,
            info.raw,
            &request.signature_value.data,
        )?;
        Ok(SigningRequest { public_key })
    }

    /// The key that asks.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> Digest {
        self.public_key.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sheaf_domain::SiteName;

    use super::*;
    use crate::SiteKey;

    fn der_of(csr_pem: &str) -> Vec<u8> {
        pem::decode_one(WHAT, SectionKind::Csr, csr_pem.as_bytes()).unwrap()
    }

    fn parse_der(der: &[u8]) -> Result<SigningRequest, Error> {
        SigningRequest::parse(&pem::encode("CERTIFICATE REQUEST", der))
    }

    #[test]
    fn a_request_gives_the_key_that_signed_it() {
        let key = SiteKey::generate().unwrap();
        let csr = key.csr_pem(&SiteName::new("clinic-a").unwrap()).unwrap();
        assert_eq!(SigningRequest::parse(&csr).unwrap().fingerprint(), key.fingerprint());
    }

    #[test]
    fn a_request_under_any_other_key_or_cut_short_is_refused() {
        let key = SiteKey::generate().unwrap();
        let other = SiteKey::generate().unwrap();
        let der = der_of(&key.csr_pem(&SiteName::new("clinic-a").unwrap()).unwrap());
        let mine = key.public_key().spki_der();
        let at = der.windows(mine.len()).position(|window| window == mine).unwrap();
        let mut swapped = der.clone();
        swapped[at..at + mine.len()].copy_from_slice(other.public_key().spki_der());
        assert!(matches!(parse_der(&swapped), Err(Error::BadSignature { .. })));
        assert!(parse_der(&der[..der.len() - 1]).is_err());
        let mut longer = der;
        longer.push(0);
        assert!(parse_der(&longer).is_err());
    }

    #[test]
    fn rsa_keys_are_taken_from_2048_bits_on() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        assert!(SigningRequest::parse(&csr).is_ok());
        let small = include_str!("../testdata/rsa1024.csr.pem");
        let error = SigningRequest::parse(small).unwrap_err();
        assert!(error.to_string().contains("RSA of 1024 bits"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_and_no_change_verifies(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at: prop::sample::Index,
            flip in 1u8..,
        ) {
            prop_assert!(parse_der(&bytes).is_err());
            let key = SiteKey::generate().unwrap();
            let mut der = der_of(&key.csr_pem(&SiteName::new("clinic-a").unwrap()).unwrap());
            let at = at.index(der.len());
            der[at] ^= flip;
            // A changed request may at most still carry the same key: nothing else is read from it.
            if let Ok(request) = parse_der(&der) {
                prop_assert_eq!(request.fingerprint(), key.fingerprint());
            }
        }
    }
}
