//! Participants without a key: a front-end answers for them, because their stack knows no credentials.
//!
//! Invariant: nobody comes in as such a participant from outside. In place of a key's fingerprint stands a digest that no key has.

use sheaf_domain::{Digest, ErrorKind, Identity, Role, SiteName};
use sheaf_store::{SiteRecord, SiteState};

use crate::{Error, Handle};

impl Handle {
    /// Takes in a participant for which the caller, a front-end, answers; taking it in again is the same participant.
    ///
    /// # Errors
    /// Permission denied; invalid argument for a name that stands for someone else; conflict when the name is that of a participant with a key, or of one that was shut out; exhausted when as
    /// many participants are enrolled as may.
    /// # Cancel safety
    /// A dropped call may still be carried out.
    pub async fn take_in(&self, who: &Identity, site: &SiteName) -> Result<Identity, Error> {
        self.authorise(who, Role::Operator)?;
        super::membership::check_name(site, who)?;
        let identity = Identity {
            trust_domain: self.trust_domain().to_owned(),
            name: site.clone(),
            role: Role::Participant,
            key_fingerprint: no_key(site),
        };
        let turn = self.shared.membership.turn(site, None).await?;
        if let Some(known) = self.shared.registry.site(site) {
            let same = known.role == Role::Participant && known.key_fingerprint == identity.key_fingerprint;
            return match &known.state {
                _ if !same => Err(Error::conflict(format!("{site} is a participant with a key of its own"))),
                SiteState::Active => Ok(identity),
                _ => Err(Error::conflict(format!("{site} was shut out"))),
            };
        }
        let most = self.shared.settings.sites_max;
        if self.shared.registry.len() >= most {
            let message = format!("{most} participants are enrolled, no more may");
            return Err(Error::new(ErrorKind::Exhausted, message));
        }
        let record = SiteRecord {
            name: site.clone(),
            role: Role::Participant,
            key_fingerprint: identity.key_fingerprint,
            public_key_der: Vec::new(),
            certificate: None,
            state: SiteState::Active,
            enrolled_at: self.shared.clock.now(),
            last_seen: None,
            label: None,
            location: None,
        };
        self.shared.store.put_site(record.clone()).await?;
        self.shared.registry.put(record);
        drop(turn);
        let body = serde_json::json!({ "site": site, "by": who.name });
        self.shared.note_in_journal("site_taken_in", &body);
        Ok(identity)
    }
}

/// What stands in place of a fingerprint: the digest of a text that is no key.
fn no_key(site: &SiteName) -> Digest {
    Digest::of(format!("no key: {site}").as_bytes())
}
