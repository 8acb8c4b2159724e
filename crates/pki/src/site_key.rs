//! A site's private key: made at the site, never leaves it; proves the site in TLS, renewals and signed requests.

use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, DnType};
use sheaf_domain::{Digest, SiteName};

use crate::key::KeyPair;
use crate::{Error, PublicKey, Secret};

/// A site's private key.
#[derive(Debug)]
pub struct SiteKey(pub(crate) KeyPair);

impl SiteKey {
    /// Makes an ECDSA P-256 key.
    ///
    /// # Errors
    /// [`Error::Crypto`] when the library cannot.
    pub fn generate() -> Result<SiteKey, Error> {
        KeyPair::generate_p256().map(SiteKey)
    }

    /// Reads PKCS#8 in PEM: ECDSA P-256 or P-384, or Ed25519.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn from_pem(text: &Secret) -> Result<SiteKey, Error> {
        KeyPair::from_pem(text.expose()).map(SiteKey)
    }

    /// The key as PKCS#8 in PEM.
    pub fn to_pem(&self) -> Secret {
        Secret::new(self.0.to_pem().as_bytes())
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::ReadableByOthers`] naming the remedy, [`Error::Malformed`].
    pub fn load(path: &Path) -> Result<SiteKey, Error> {
        KeyPair::load(path).map(SiteKey)
    }

    /// Creates a key file with mode 0600.
    ///
    /// # Errors
    /// [`Error::Exists`] rather than overwriting; [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        self.0.save(path)
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        self.0.public()
    }

    /// SHA-256 of the public half as SubjectPublicKeyInfo: what an operator compares before approving a site.
    pub fn fingerprint(&self) -> Digest {
        self.0.public().fingerprint()
    }

    /// A certificate signing request in PEM. It names the site for people; the CA takes nothing but the key from it.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn csr_pem(&self, name: &SiteName) -> Result<String, Error> {
        let failed = |error: rcgen::Error| Error::crypto("make a certificate signing request", error);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.serialize_request(&self.0).and_then(|request| request.pem()).map_err(failed)
    }

    /// Signs `message`, as [`PublicKey::verify`] checks it.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign(message)
    }
}
