//! What the CA hands out: a certificate with its facts, and the server's certificate together with its key.

use sheaf_domain::{Digest, Timestamp};

use crate::SiteKey;

/// A certificate just issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate in PEM.
    pub pem: String,
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key_fingerprint: Digest,
    /// The key's SubjectPublicKeyInfo in DER.
    pub public_key_der: Vec<u8>,
    /// When it ends, to the second.
    pub not_after: Timestamp,
}

/// The server's certificate and the key it was issued for.
#[derive(Debug)]
pub struct ServerCredential {
    /// The certificate.
    pub issued: Issued,
    /// Its key.
    pub key: SiteKey,
}
