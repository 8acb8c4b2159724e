//! Who a request comes from, as established by a credential.

use serde::{Deserialize, Serialize};

use crate::SiteName;

/// What an identity may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Takes work and submits results, for its own site only.
    Participant,
    /// Starts, stops and inspects runs; invites and revokes sites.
    Operator,
}

impl Role {
    /// The lower-case name, as certificates carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Participant => "participant",
            Role::Operator => "operator",
        }
    }
}

/// An established identity: (trust domain, name, role).
///
/// Made only by `pki` from a verified credential; revocation is checked per request by the coordinator.
///
/// # Examples
/// ```
/// use sheaf_domain::{Digest, Identity, Role, SiteName};
///
/// let identity = Identity {
///     trust_domain: "hospitals".to_owned(),
///     name: SiteName::new("berlin")?,
///     role: Role::Participant,
///     key_fingerprint: Digest::of(b"its public key"),
/// };
/// assert_eq!(identity.role.name(), "participant");
/// # Ok::<(), sheaf_domain::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The federation whose CA or registry vouches for it.
    pub trust_domain: String,
    /// The site's or operator's name.
    pub name: SiteName,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER) that proved it.
    pub key_fingerprint: crate::Digest,
}
