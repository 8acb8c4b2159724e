//! Sites and invitations in memory.

use std::collections::BTreeMap;

use sheaf_domain::{Digest, SiteName, Timestamp};

use crate::journal::check_time;
use crate::site::check_seen;
use crate::{Error, Invite, InviteState, SiteRecord, SiteState, SpendOutcome};

#[derive(Debug, Default)]
pub(super) struct Members {
    sites: BTreeMap<SiteName, SiteRecord>,
    invites: BTreeMap<Digest, Invite>,
}

impl Members {
    pub(super) fn put_invite(&mut self, invite: Invite) -> Result<(), Error> {
        invite.check()?;
        if self.invites.contains_key(&invite.token_hash) {
            return Err(invite.token_taken());
        }
        self.invites.insert(invite.token_hash, invite);
        Ok(())
    }

    pub(super) fn invite_by_token(&self, token_hash: Digest) -> Option<Invite> {
        self.invites.get(&token_hash).cloned()
    }

    pub(super) fn invites(&self) -> Vec<Invite> {
        let mut invites: Vec<Invite> = self.invites.values().cloned().collect();
        invites.sort_by_key(|invite| (invite.created_at, invite.token_hash));
        invites
    }

    pub(super) fn spend_invite(
        &mut self,
        token_hash: Digest,
        key_fingerprint: Digest,
        now: Timestamp,
    ) -> Result<SpendOutcome, Error> {
        check_time("spending", now)?;
        let Some(invite) = self.invite_by_token(token_hash) else {
            return Ok(SpendOutcome::Unknown);
        };
        let outcome = invite.spend(key_fingerprint, now);
        if let SpendOutcome::Spent(invite) = &outcome {
            self.invites.insert(token_hash, invite.clone());
        }
        Ok(outcome)
    }

    pub(super) fn withdraw_invites(&mut self, site: &SiteName) -> u64 {
        let mut withdrawn = 0;
        for invite in self.invites.values_mut() {
            if invite.site == *site && invite.state == InviteState::Open {
                invite.state = InviteState::Withdrawn;
                withdrawn += 1;
            }
        }
        withdrawn
    }

    pub(super) fn forget_invites(&mut self, before: Timestamp) -> u64 {
        let num_before = self.invites.len();
        self.invites.retain(|_, invite| {
            invite.expires_at >= before || matches!(invite.state, InviteState::Spent { .. })
        });
        (num_before - self.invites.len()) as u64
    }

    pub(super) fn put_site(&mut self, site: SiteRecord) -> Result<(), Error> {
        site.check()?;
        if let Some(other) = self.site_by_key(site.key_fingerprint).filter(|other| other.name != site.name) {
            return Err(site.key_taken(&other.name));
        }
        self.sites.insert(site.name.clone(), site);
        Ok(())
    }

    pub(super) fn replace_site(&mut self, present_key: Digest, site: SiteRecord) -> Result<(), Error> {
        let kept = self.sites.get(&site.name).ok_or_else(|| SiteRecord::unknown(&site.name))?;
        if kept.state != SiteState::Active || kept.key_fingerprint != present_key {
            return Err(SiteRecord::changed(&site.name));
        }
        self.put_site(site)
    }

    pub(super) fn site(&self, name: &SiteName) -> Option<SiteRecord> {
        self.sites.get(name).cloned()
    }

    pub(super) fn site_by_key(&self, key_fingerprint: Digest) -> Option<SiteRecord> {
        self.sites.values().find(|site| site.key_fingerprint == key_fingerprint).cloned()
    }

    pub(super) fn sites(&self) -> Vec<SiteRecord> {
        self.sites.values().cloned().collect()
    }

    pub(super) fn set_site_state(&mut self, name: &SiteName, state: SiteState) -> Result<(), Error> {
        state.check()?;
        self.sites.get_mut(name).ok_or_else(|| SiteRecord::unknown(name))?.state = state;
        Ok(())
    }

    pub(super) fn forget_site(&mut self, name: &SiteName, key_fingerprint: Digest) -> bool {
        let revoked = |site: &SiteRecord| {
            site.key_fingerprint == key_fingerprint && matches!(site.state, SiteState::Revoked { .. })
        };
        self.sites.get(name).is_some_and(revoked) && self.sites.remove(name).is_some()
    }

    pub(super) fn touch_sites(&mut self, seen: &[(SiteName, Timestamp)]) -> Result<(), Error> {
        check_seen(seen)?;
        for (name, at) in seen {
            if let Some(site) = self.sites.get_mut(name) {
                site.last_seen = site.last_seen.max(Some(*at));
            }
        }
        Ok(())
    }
}
