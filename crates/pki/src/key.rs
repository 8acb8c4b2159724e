//! A private key with its public half, shared by the CA, the sites, the server and the journal.
//!
//! Held as PKCS#8; files have mode 0600, are created exclusively and never overwritten. Key material comes from the
//! cryptographic library's own generator, never from a seed.

use std::path::Path;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use rustls_pki_types::pem::SectionKind;
use zeroize::Zeroizing;

use crate::file::{self, Access};
use crate::{Error, PublicKey, Secret, pem};

/// The largest private key file read, in bytes.
const KEY_FILE_LEN_MAX: usize = 16 * 1024;

pub(crate) struct KeyPair {
    pkcs8: Secret,
    signer: Signer,
    raw_public: Vec<u8>,
    public: PublicKey,
}

enum Signer {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl KeyPair {
    /// Makes an ECDSA P-256 key.
    pub(crate) fn generate_p256() -> Result<KeyPair, Error> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|error| Error::crypto("make a key", error))?;
        let document = pair.to_pkcs8v1().map_err(|error| Error::crypto("encode a key", error))?;
        KeyPair::from_pkcs8(Secret::new(document.as_ref()))
    }

    /// Makes an Ed25519 key.
    pub(crate) fn generate_ed25519() -> Result<KeyPair, Error> {
        let pair = Ed25519KeyPair::generate().map_err(|error| Error::crypto("make a key", error))?;
        let document = pair.to_pkcs8v1().map_err(|error| Error::crypto("encode a key", error))?;
        KeyPair::from_pkcs8(Secret::new(document.as_ref()))
    }

    /// Reads PKCS#8 in DER: ECDSA P-256 or P-384, or Ed25519.
    pub(crate) fn from_pkcs8(pkcs8: Secret) -> Result<KeyPair, Error> {
        let der = pkcs8.expose();
        let signer = if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der) {
            Signer::P256(pair)
        } else if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, der) {
            Signer::P384(pair)
        } else if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            Signer::Ed25519(pair)
        } else {
            let reason = "it is not PKCS#8 of ECDSA P-256, ECDSA P-384 or Ed25519";
            return Err(Error::malformed("the private key", reason));
        };
        let (raw_public, spki) = match &signer {
            Signer::P256(pair) | Signer::P384(pair) => {
                (pair.public_key().as_ref().to_vec(), pair.public_key().as_der())
            }
            Signer::Ed25519(pair) => (pair.public_key().as_ref().to_vec(), pair.public_key().as_der()),
        };
        let spki = spki.map_err(|error| Error::crypto("encode a public key", error))?;
        let public = PublicKey::from_spki_der(spki.as_ref())?;
        Ok(KeyPair { pkcs8, signer, raw_public, public })
    }

    pub(crate) fn from_pem(text: &[u8]) -> Result<KeyPair, Error> {
        let der = pem::decode_one("the private key", SectionKind::PrivateKey, text)?;
        KeyPair::from_pkcs8(Secret::new(der))
    }

    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", self.pkcs8.expose())
    }

    pub(crate) fn load(path: &Path) -> Result<KeyPair, Error> {
        KeyPair::from_pem(&file::read(path, "the private key", KEY_FILE_LEN_MAX, Access::Private)?)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), Error> {
        file::create(path, self.to_pem().as_bytes(), Access::Private)
    }

    pub(crate) fn pkcs8_der(&self) -> &[u8] {
        self.pkcs8.expose()
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs with the key type's own digest, as [`PublicKey::verify`] checks it.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = match &self.signer {
            Signer::P256(pair) | Signer::P384(pair) => pair.sign(&SystemRandom::new(), message),
            Signer::Ed25519(pair) => pair.try_sign(message),
        };
        let signature = signature.map_err(|error| Error::crypto("sign", error))?;
        Ok(signature.as_ref().to_vec())
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair({})", self.public.fingerprint().short())
    }
}

impl rcgen::PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        &self.raw_public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.signer {
            Signer::P256(_) => &rcgen::PKCS_ECDSA_P256_SHA256,
            Signer::P384(_) => &rcgen::PKCS_ECDSA_P384_SHA384,
            Signer::Ed25519(_) => &rcgen::PKCS_ED25519,
        }
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        KeyPair::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_of_each_type_read_back_and_sign() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        for key in [
            KeyPair::generate_p256().unwrap(),
            KeyPair::generate_ed25519().unwrap(),
            KeyPair::from_pem(p384.serialize_pem().as_bytes()).unwrap(),
        ] {
            let read = KeyPair::from_pem(key.to_pem().as_bytes()).unwrap();
            assert_eq!(read.public(), key.public());
            let signature = read.sign(b"message").unwrap();
            assert!(key.public().verify("it", b"message", &signature).is_ok());
            assert!(!format!("{key:?}").contains(&key.to_pem()[30..60]));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(KeyPair::from_pkcs8(Secret::new(bytes.clone())).is_err());
            prop_assert!(KeyPair::from_pem(&bytes).is_err());
        }
    }
}
