//! The certificate authority of one federation: one key, one trust domain, short-lived certificates for others.
//!
//! Who a certificate stands for and what it may be used for come from the arguments, never from the request. Its own key
//! is ECDSA P-256 in a file of mode 0600; neither of its files is ever overwritten.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use sheaf_domain::{Digest, Role, SiteName, Span, Timestamp};
use sheaf_runtime::{Entropy, OsEntropy};
use time::OffsetDateTime;

use crate::certificate::{
    CERTIFICATE_LEN_MAX, check_trust_domain, identity_uri, to_der, trust_domain_of_authority,
    trust_domain_uri,
};
use crate::file::{self, Access};
use crate::key::KeyPair;
use crate::{Error, Issued, ServerCredential, SigningRequest, SiteKey, certificate_facts, pem};

/// The CA's certificate in its directory.
pub const CA_CERTIFICATE_FILE: &str = "ca.pem";
/// The CA's private key in its directory.
pub const CA_KEY_FILE: &str = "ca.key.pem";
/// How far certificates are dated back, so that a clock a little behind accepts them at once.
pub const CLOCK_SKEW_ALLOWED: Span = Span::from_secs(300);

/// The certificate authority of one federation.
pub struct CertificateAuthority {
    trust_domain: String,
    certificate_pem: String,
    certificate_der: Vec<u8>,
    pin: Digest,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes a CA for `trust_domain`, in memory.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a bad trust domain or validity; [`Error::Crypto`].
    pub fn create(trust_domain: &str, validity: Span, now: Timestamp) -> Result<CertificateAuthority, Error> {
        check_trust_domain(trust_domain)?;
        let key = KeyPair::generate_p256()?;
        let mut params = params_for(validity, now, None)?;
        params.distinguished_name.push(DnType::CommonName, "Sheaf CA");
        params.distinguished_name.push(DnType::OrganizationName, trust_domain);
        params.subject_alt_names = vec![uri_name(trust_domain_uri(trust_domain))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate =
            params.self_signed(&key).map_err(|error| Error::crypto("make the CA certificate", error))?;
        CertificateAuthority::from_parts(certificate.der().to_vec(), key)
    }

    /// Creates [`CA_CERTIFICATE_FILE`] and [`CA_KEY_FILE`] (mode 0600) in `dir`, which is made if missing.
    ///
    /// # Errors
    /// [`Error::Exists`] rather than overwriting; [`Error::File`].
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        file::create_private_dir(dir)?;
        let key = dir.join(CA_KEY_FILE);
        if key.exists() {
            return Err(Error::Exists { path: key });
        }
        // The key comes last and makes it a CA: a certificate that a crash left without one is nobody's.
        let certificate = dir.join(CA_CERTIFICATE_FILE);
        file::replace(&certificate, self.certificate_pem.as_bytes(), Access::Public)?;
        self.issuer.key().save(&key)
    }

    /// Reads the CA from `dir`.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::ReadableByOthers`] naming the remedy, [`Error::Malformed`], [`Error::KeyMismatch`].
    pub fn load(dir: &Path) -> Result<CertificateAuthority, Error> {
        let key = KeyPair::load(&dir.join(CA_KEY_FILE))?;
        let path = dir.join(CA_CERTIFICATE_FILE);
        let text = file::read(&path, "the CA certificate", CERTIFICATE_LEN_MAX, Access::Public)?;
        CertificateAuthority::from_parts(to_der(&text)?, key)
    }

    fn from_parts(der: Vec<u8>, key: KeyPair) -> Result<CertificateAuthority, Error> {
        let facts = certificate_facts(&der)?;
        if facts.public_key_der != key.public().spki_der() {
            return Err(Error::KeyMismatch);
        }
        let trust_domain = trust_domain_of_authority(&der)?;
        let issuer = Issuer::from_ca_cert_der(&der.as_slice().into(), key)
            .map_err(|error| Error::malformed("the CA certificate", error.to_string()))?;
        Ok(CertificateAuthority {
            trust_domain,
            certificate_pem: pem::encode("CERTIFICATE", &der).to_string(),
            certificate_der: der,
            pin: facts.key_fingerprint,
            not_after: facts.not_after,
            issuer,
        })
    }

    /// The federation it vouches for.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Its certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its certificate in DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// SHA-256 of its key's SubjectPublicKeyInfo: what a kit pins.
    pub fn pin(&self) -> Digest {
        self.pin
    }

    /// When its certificate ends; nothing it issues lasts longer.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Issues a server certificate for `names` (DNS names and IP addresses) and a new key. Server use only.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the bad name, [`Error::AuthorityExpired`], [`Error::Crypto`].
    pub fn issue_server(
        &self,
        names: &[String],
        validity: Span,
        now: Timestamp,
    ) -> Result<ServerCredential, Error> {
        if names.is_empty() {
            return Err(Error::InvalidArgument("a server certificate needs at least one name".to_owned()));
        }
        let key = SiteKey::generate()?;
        let mut params = params_for(validity, now, Some(self.not_after))?;
        params.distinguished_name.push(DnType::CommonName, "Sheaf server");
        params.subject_alt_names = names.iter().map(|name| server_name(name)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issued = self.sign(params, &key.0, key.public_key().spki_der())?;
        Ok(ServerCredential { issued, key })
    }

    /// Issues a client certificate for the key in `csr_pem`. Client use only; `name` and `role` come from here alone.
    ///
    /// # Errors
    /// As [`SigningRequest::parse`]; [`Error::AuthorityExpired`], [`Error::InvalidArgument`], [`Error::Crypto`].
    pub fn issue(
        &self,
        csr_pem: &str,
        name: &SiteName,
        role: Role,
        validity: Span,
        now: Timestamp,
    ) -> Result<Issued, Error> {
        let request = SigningRequest::parse(csr_pem)?;
        let spki_der = request.public_key().spki_der();
        let subject = SubjectPublicKeyInfo::from_der(spki_der)
            .map_err(|error| Error::malformed("the public key", error.to_string()))?;
        let mut params = params_for(validity, now, Some(self.not_after))?;
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.subject_alt_names = vec![uri_name(identity_uri(&self.trust_domain, role, name))?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &subject, spki_der)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        subject: &impl PublicKeyData,
        spki_der: &[u8],
    ) -> Result<Issued, Error> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(subject, &self.issuer)
            .map_err(|error| Error::crypto("sign a certificate", error))?;
        let der = certificate.der().to_vec();
        let facts = certificate_facts(&der)?;
        // The key's fingerprint is what everything else is bound to, so it must have come through unchanged.
        if facts.public_key_der != spki_der {
            return Err(Error::malformed("the public key", "it is not in the canonical encoding"));
        }
        Ok(Issued {
            pem: pem::encode("CERTIFICATE", &der).to_string(),
            der,
            serial: facts.serial,
            key_fingerprint: facts.key_fingerprint,
            public_key_der: facts.public_key_der,
            not_after: facts.not_after,
        })
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("trust_domain", &self.trust_domain)
            .field("pin", &self.pin)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Parameters with validity and serial number set; ends with the CA at the latest.
fn params_for(
    validity: Span,
    now: Timestamp,
    ca_not_after: Option<Timestamp>,
) -> Result<CertificateParams, Error> {
    if let Some(not_after) = ca_not_after.filter(|not_after| *not_after < now) {
        return Err(Error::AuthorityExpired { not_after });
    }
    let wanted = now.after(validity);
    let not_after = ca_not_after.map_or(wanted, |limit| wanted.min(limit));
    let not_before = now.as_millis().saturating_sub(CLOCK_SKEW_ALLOWED.as_millis());
    let mut params = CertificateParams::default();
    params.not_before = date(Timestamp::from_millis(not_before))?;
    params.not_after = date(not_after)?;
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

fn date(at: Timestamp) -> Result<OffsetDateTime, Error> {
    i64::try_from(at.as_millis() / 1_000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| Error::InvalidArgument("a certificate cannot last beyond the year 9999".to_owned()))
}

/// 126 random bits; the leading bits keep it positive and of one length.
fn random_serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    OsEntropy.fill(&mut bytes).map_err(|source| Error::Entropy("a serial number", source))?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn uri_name(uri: String) -> Result<SanType, Error> {
    uri.try_into().map(SanType::URI).map_err(|error| Error::crypto("encode a name", error))
}

fn server_name(name: &str) -> Result<SanType, Error> {
    let bad = || {
        let shown: String = name.chars().take(64).collect();
        Error::InvalidArgument(format!("{shown:?} is neither a DNS name nor an IP address"))
    };
    match rustls_pki_types::ServerName::try_from(name).map_err(|_| bad())? {
        rustls_pki_types::ServerName::IpAddress(address) => Ok(SanType::IpAddress(IpAddr::from(address))),
        rustls_pki_types::ServerName::DnsName(name) => {
            name.as_ref().to_owned().try_into().map(SanType::DnsName).map_err(|_| bad())
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests;
