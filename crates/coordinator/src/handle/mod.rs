//! The one way into the coordinator: a cheaply cloned handle whose calls every front-end translates to.
//!
//! Each call takes the caller's established identity and checks role, revocation and the ownership of every id itself.

mod enrolment;
mod operator;
mod records;
mod sites;
mod submissions;
mod uploads;

use std::sync::Arc;

use sheaf_domain::{Digest, Identity, JournalId, Role, SiteName};
use sheaf_store::SignedHead;

use crate::Error;
use crate::registry::SiteKeyFacts;
use crate::shared::Shared;

pub use enrolment::{Certificate, Enrolment, InviteRequest};
pub use operator::{CreateRun, ModelRef, SiteOverview, Which};
pub use records::{BLOBS_DIR, BackupReport, COMPLETE_FILE, STATE_FILE};
pub use sites::{Beat, BeatReply, Delivery, WorkOrder};
pub use uploads::Upload;

/// A handle on the coordinator.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared }
    }

    /// Checks from memory that `who` may act in `role` now.
    ///
    /// # Errors
    /// Permission denied, saying why: another role, not enrolled, revoked, waiting for approval, another key.
    pub fn authorise(&self, who: &Identity, role: Role) -> Result<(), Error> {
        self.shared.registry.authorise(who, role)
    }

    /// Resolves when the site is revoked; front-ends end its live connections then.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn revoked(&self, site: &SiteName) {
        self.shared.registry.revoked(site).await;
    }

    /// The key a signed request must have been made with, by its fingerprint.
    pub fn signing_key(&self, key_fingerprint: &Digest) -> Option<SiteKeyFacts> {
        let site = self.shared.registry.by_key(key_fingerprint)?;
        let certificate = site.certificate.as_ref()?;
        Some(SiteKeyFacts {
            site: site.name.clone(),
            role: site.role,
            public_key_der: site.public_key_der.clone().into(),
            not_after: certificate.not_after,
        })
    }

    /// The trust domain identities belong to.
    pub fn trust_domain(&self) -> &str {
        self.shared.ca.trust_domain()
    }

    /// How long a request for work may be held.
    pub fn hold_max(&self) -> sheaf_domain::Span {
        self.shared.settings.hold_max
    }
}

/// Signs the end of a journal and keeps the signature.
pub(crate) async fn sign_head(shared: &Shared, journal: JournalId) -> Result<SignedHead, Error> {
    let (seq, hash) = shared.store.head(journal).await?;
    let signature = shared.signer.sign_head(journal, seq, &hash).map_err(|error| Error::internal(error.to_string()))?;
    let head = SignedHead { journal, seq, hash, signature, at: shared.clock.now() };
    if seq > 0 {
        shared.store.put_signed_head(head.clone()).await?;
    }
    Ok(head)
}
