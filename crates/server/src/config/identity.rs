//! `[identity]`: names, certificates, invitations.

use serde::{Deserialize, Serialize};
use sheaf_domain::Span;

/// `[identity]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentitySection {
    /// The federation's name in certificates; fixed once the CA is made.
    pub trust_domain: String,
    /// How long a participant's certificate is valid; it renews itself at two thirds.
    pub certificate_validity: Span,
    /// How long after its end a certificate may still be renewed, for a site that was off.
    pub renewal_grace: Span,
    /// How far a signed request's time may be from ours.
    pub signature_window: Span,
    /// Enrolment attempts a minute, over all callers; and as many keys that register themselves, and requests to log in.
    pub enrolments_per_minute: u32,
    /// The same from one address.
    pub enrolments_per_minute_and_address: u32,
}

impl Default for IdentitySection {
    fn default() -> IdentitySection {
        IdentitySection {
            trust_domain: "sheaf".to_owned(),
            certificate_validity: Span::from_secs(24 * 3600),
            renewal_grace: Span::from_secs(14 * 24 * 3600),
            signature_window: Span::from_secs(60),
            enrolments_per_minute: 600,
            enrolments_per_minute_and_address: 30,
        }
    }
}
