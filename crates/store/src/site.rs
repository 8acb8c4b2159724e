//! Sites: what is known of each participant and operator. Keys are public ones; no secret is kept here.

use sheaf_domain::{Digest, Role, SiteName, Timestamp};

use crate::Error;
use crate::journal::{check_len, check_time};

/// One site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRecord {
    /// Its name.
    pub name: SiteName,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER); no two sites share one.
    pub key_fingerprint: Digest,
    /// That public key.
    pub public_key_der: Vec<u8>,
    /// Its newest certificate; none while it waits for approval.
    pub certificate: Option<SiteCertificate>,
    /// Whether it may come in.
    pub state: SiteState,
    /// When it first came with its invitation.
    pub enrolled_at: Timestamp,
    /// When it was last heard of, as far as was written down.
    pub last_seen: Option<Timestamp>,
    /// What its operator calls it beside its name; shown, never looked up.
    pub label: Option<String>,
    /// Where it is, as `<latitude>,<longitude>` in degrees.
    pub location: Option<String>,
}

/// A certificate we issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteCertificate {
    /// The certificate.
    pub pem: String,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// When it ends.
    pub not_after: Timestamp,
}

/// Whether a site may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteState {
    /// It may.
    Active,
    /// An operator has yet to compare its key's fingerprint.
    PendingApproval,
    /// It may not any more.
    Revoked {
        /// Why.
        reason: String,
        /// Since when.
        at: Timestamp,
    },
}

impl SiteState {
    /// The longest reason of a revocation, in bytes.
    pub const REASON_LEN_MAX: usize = 4096;

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            SiteState::Active | SiteState::PendingApproval => Ok(()),
            SiteState::Revoked { reason, at } => {
                check_len("reason", reason.len(), Self::REASON_LEN_MAX)?;
                check_time("revocation", *at)
            }
        }
    }
}

impl SiteRecord {
    /// The longest public key, in bytes.
    pub const PUBLIC_KEY_LEN_MAX: usize = 4096;
    /// The longest certificate, in bytes.
    pub const CERTIFICATE_LEN_MAX: usize = 16 << 10;
    /// The longest serial number, in digits.
    pub const SERIAL_LEN_MAX: usize = 64;

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_len("public key", self.public_key_der.len(), Self::PUBLIC_KEY_LEN_MAX)?;
        check_time("enrolment", self.enrolled_at)?;
        if let Some(seen) = self.last_seen {
            check_time("sighting", seen)?;
        }
        if let Some(certificate) = &self.certificate {
            check_len("certificate", certificate.pem.len(), Self::CERTIFICATE_LEN_MAX)?;
            check_len("serial number", certificate.serial.len(), Self::SERIAL_LEN_MAX)?;
            check_time("certificate", certificate.not_after)?;
        }
        self.state.check()
    }

    /// The refusal of a key that another site has.
    pub(crate) fn key_taken(&self, by: &SiteName) -> Error {
        Error::Conflict(format!("site {} cannot have the key of site {by}", self.name))
    }

    /// The refusal of a replacement of a record that changed meanwhile.
    pub(crate) fn changed(name: &SiteName) -> Error {
        Error::Conflict(format!("site {name} is not active with the key it had"))
    }

    /// The refusal of a name that is not known.
    pub(crate) fn unknown(name: &SiteName) -> Error {
        Error::NotFound(format!("site {name}"))
    }
}

/// The most sightings written down at once.
pub const SEEN_MAX: usize = 65_536;

pub(crate) fn check_seen(seen: &[(SiteName, Timestamp)]) -> Result<(), Error> {
    if seen.len() > SEEN_MAX {
        return Err(Error::InvalidArgument(format!(
            "{} sightings exceed the limit of {SEEN_MAX}",
            seen.len()
        )));
    }
    seen.iter().try_for_each(|(_, at)| check_time("sighting", *at))
}
