//! Certificates as they are read: their facts, and the identity one carries.
//!
//! Nothing here checks a chain: the TLS verifier does that first. An identity is a URI in the subject alternative names,
//! `sheaf://<trust-domain>/<role>/<name>`, exactly one; the common name of such a certificate is for people. Certificates of stacks whose
//! peers are told by their common names have that read, and nothing else.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::SectionKind;
use sheaf_domain::{Digest, Identity, Role, SiteName, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::{Error, PublicKey, pem};

/// The largest certificate read, in bytes.
pub(crate) const CERTIFICATE_LEN_MAX: usize = 64 * 1024;

const SCHEME: &str = "sheaf://";
const WHAT: &str = "the certificate";

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid, that instant included.
    pub not_after: Timestamp,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of its key's SubjectPublicKeyInfo.
    pub key_fingerprint: Digest,
    /// Its key's SubjectPublicKeyInfo in DER.
    pub public_key_der: Vec<u8>,
}

/// The other end of a TLS connection that presented a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// When its certificate ends: a connection may outlive it, so a request after this instant is refused.
    pub not_after: Timestamp,
}

/// Reads the facts of a certificate in PEM (one section) or DER.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Malformed`], [`Error::UnsupportedKey`].
pub fn certificate_facts(pem_or_der: &[u8]) -> Result<CertificateFacts, Error> {
    with_certificate(&to_der(pem_or_der)?, facts_of)
}

/// Reads who a certificate stands for. The TLS verifier must have accepted its chain before.
///
/// # Errors
/// [`Error::NoIdentity`] without exactly one identity, [`Error::ForeignTrustDomain`], or as [`certificate_facts`].
pub fn identity_of_certificate(der: &[u8], trust_domain: &str) -> Result<Identity, Error> {
    with_certificate(der, |certificate| identity_of(certificate, trust_domain))
}

/// Reads the common name of a certificate whose stack goes by that. The TLS verifier must have accepted its chain before.
///
/// # Errors
/// [`Error::NoIdentity`] without exactly one, or as [`certificate_facts`].
pub fn common_name(der: &[u8]) -> Result<String, Error> {
    with_certificate(der, |certificate| {
        let names: Vec<_> = certificate.subject().iter_common_name().map(|name| name.as_str()).collect();
        match names.as_slice() {
            [Ok(name)] if !name.is_empty() => Ok((*name).to_owned()),
            _ => Err(Error::NoIdentity),
        }
    })
}

/// Reads who the other end of a TLS connection is, from the chain the TLS verifier accepted; `None` when it presented none.
///
/// # Errors
/// As [`identity_of_certificate`].
pub fn peer_of_chain(
    chain: Option<&[CertificateDer<'_>]>,
    trust_domain: &str,
) -> Result<Option<Peer>, Error> {
    let Some(leaf) = chain.and_then(<[_]>::first) else {
        return Ok(None);
    };
    with_certificate(leaf, |certificate| {
        let identity = identity_of(certificate, trust_domain)?;
        Ok(Some(Peer { identity, not_after: instant(&certificate.validity().not_after)? }))
    })
}

/// The URI that stands for an identity.
pub(crate) fn identity_uri(trust_domain: &str, role: Role, name: &SiteName) -> String {
    format!("{SCHEME}{trust_domain}/{}/{name}", role.name())
}

/// The URI that stands for a trust domain, in its CA's certificate.
pub(crate) fn trust_domain_uri(trust_domain: &str) -> String {
    format!("{SCHEME}{trust_domain}")
}

/// The trust domain that a CA certificate stands for.
pub(crate) fn trust_domain_of_authority(der: &[u8]) -> Result<String, Error> {
    with_certificate(der, |certificate| {
        let uri = sheaf_uri(certificate)?;
        let domain = uri.strip_prefix(SCHEME).ok_or(Error::NoIdentity)?;
        check_trust_domain(domain)?;
        Ok(domain.to_owned())
    })
}

/// Checks a trust domain: lower-case letters, digits, `.` and `-`, 1 to 64 of them, starting with a letter or digit.
pub(crate) fn check_trust_domain(value: &str) -> Result<(), Error> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.' || c == b'-';
    let starts_well = value.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts_well && value.len() <= 64 && value.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "{:?} is not a trust domain: use 1 to 64 lower-case letters, digits, '.' and '-', starting with a letter or digit",
        value.chars().take(64).collect::<String>()
    )))
}

/// The DER of a certificate given as PEM or DER.
pub(crate) fn to_der(pem_or_der: &[u8]) -> Result<Vec<u8>, Error> {
    if pem_or_der.len() > CERTIFICATE_LEN_MAX {
        return Err(Error::TooLarge { what: WHAT, max: CERTIFICATE_LEN_MAX });
    }
    // DER of a certificate starts with a SEQUENCE tag, which no PEM text does.
    if pem_or_der.first() == Some(&0x30) {
        return Ok(pem_or_der.to_vec());
    }
    pem::decode_one(WHAT, SectionKind::Certificate, pem_or_der)
}

fn with_certificate<T>(
    der: &[u8],
    read: impl FnOnce(&X509Certificate<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    if der.len() > CERTIFICATE_LEN_MAX {
        return Err(Error::TooLarge { what: WHAT, max: CERTIFICATE_LEN_MAX });
    }
    let (rest, certificate) = X509Certificate::from_der(der)
        .map_err(|_| Error::malformed(WHAT, "it is not an X.509 certificate in DER"))?;
    if !rest.is_empty() {
        return Err(Error::malformed(WHAT, "bytes follow its end"));
    }
    read(&certificate)
}

fn facts_of(certificate: &X509Certificate<'_>) -> Result<CertificateFacts, Error> {
    let public_key = PublicKey::from_spki_der(certificate.public_key().raw)?;
    Ok(CertificateFacts {
        not_before: instant(&certificate.validity().not_before)?,
        not_after: instant(&certificate.validity().not_after)?,
        serial: hex::encode(certificate.raw_serial()),
        key_fingerprint: public_key.fingerprint(),
        public_key_der: public_key.spki_der().to_vec(),
    })
}

fn identity_of(certificate: &X509Certificate<'_>, trust_domain: &str) -> Result<Identity, Error> {
    let uri = sheaf_uri(certificate)?;
    let mut parts = uri.strip_prefix(SCHEME).ok_or(Error::NoIdentity)?.split('/');
    let (Some(domain), Some(role), Some(name), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::NoIdentity);
    };
    if domain != trust_domain {
        return Err(Error::ForeignTrustDomain {
            expected: trust_domain.to_owned(),
            found: domain.chars().take(64).collect(),
        });
    }
    let role = [Role::Participant, Role::Operator]
        .into_iter()
        .find(|known| known.name() == role)
        .ok_or(Error::NoIdentity)?;
    Ok(Identity {
        trust_domain: domain.to_owned(),
        name: SiteName::new(name).map_err(|_| Error::NoIdentity)?,
        role,
        key_fingerprint: PublicKey::from_spki_der(certificate.public_key().raw)?.fingerprint(),
    })
}

/// The only URI of our scheme in the subject alternative names.
fn sheaf_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, Error> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| Error::malformed(WHAT, "its subject alternative names cannot be read"))?
        .ok_or(Error::NoIdentity)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        _ => Err(Error::NoIdentity),
    }
}

fn instant(time: &ASN1Time) -> Result<Timestamp, Error> {
    u64::try_from(time.timestamp())
        .ok()
        .and_then(|seconds| seconds.checked_mul(1_000))
        .map(Timestamp::from_millis)
        .ok_or_else(|| Error::malformed(WHAT, "its validity lies before 1970"))
}

#[cfg(test)]
mod tests;
