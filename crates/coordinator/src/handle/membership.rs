//! Membership, as operators change it: invitations, approval, revocation. One change of a site at a time, each to its end.

use sheaf_domain::{Digest, ErrorKind, Identity, Role, SiteName, Span, Timestamp};
use sheaf_pki::{Kit, Token};
use sheaf_store::{Invite, InviteState, SiteRecord, SiteState};

use crate::command::Command;
use crate::{Error, Handle};

/// The longest reason of a revocation kept, in characters.
const REASON_LEN_MAX: usize = 500;
/// The longest an invitation may be open.
const TTL_MAX: Span = Span::from_secs(366 * 24 * 3600);
/// Names that would be taken for someone else in records.
const RESERVED: [&str; 4] = ["operator", "server", "federation", "coordinator"];

/// An invitation to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteRequest {
    /// Who is invited.
    pub site: SiteName,
    /// How long the token may be used.
    pub ttl: Span,
    /// Whether an operator has to compare the key's fingerprint before a certificate is issued.
    pub approve: bool,
}

impl Handle {
    /// Makes an invitation; the token in the kit is shown this once and kept only as a hash. Earlier invitations of the site
    /// that are still open are taken back.
    ///
    /// # Errors
    /// Conflict when a site that can come in has the name; invalid argument for an operator's name or a time out of bounds;
    /// exhausted when there are too many sites.
    /// # Cancel safety
    /// A dropped call may have made an invitation whose token nobody knows.
    pub async fn invite(&self, who: &Identity, request: InviteRequest) -> Result<Kit, Error> {
        self.authorise(who, Role::Operator)?;
        check_name(&request.site, who)?;
        if request.ttl.as_millis() == 0 || request.ttl > TTL_MAX {
            return Err(Error::invalid(format!(
                "an invitation is open for up to {TTL_MAX}, not {}",
                request.ttl
            )));
        }
        let (handle, who) = (self.clone(), who.name.clone());
        self.to_the_end(async move {
            let turn = handle.shared.membership.turn(&request.site, None).await?;
            let invited = handle.make_invitation(&who, &request).await;
            drop(turn);
            invited
        })
        .await
    }

    async fn make_invitation(&self, by: &SiteName, request: &InviteRequest) -> Result<Kit, Error> {
        let known = self.shared.registry.site(&request.site);
        if known.is_some_and(|site| self.can_come_in(&site)) {
            return Err(Error::conflict(format!(
                "site {} is enrolled; `sheaf revoke {}` first if it is to come in with a new key",
                request.site, request.site
            )));
        }
        let token =
            Token::generate(&*self.shared.entropy).map_err(|error| Error::internal(error.to_string()))?;
        let expires_at = self.keep_invitation(request, &token).await?;
        let body = serde_json::json!({
            "site": request.site, "by": by, "expires_at": expires_at, "approve": request.approve,
        });
        self.federation_entry("site_invited", &body).await?;
        Ok(Kit {
            site: request.site.clone(),
            trust_domain: self.shared.ca.trust_domain().to_owned(),
            servers: self.shared.settings.advertised.clone(),
            ca_pem: self.shared.ca.certificate_pem().to_owned(),
            ca_pin: self.shared.ca.pin(),
            token,
            expires_at,
        })
    }

    /// Keeps an invitation in place of the site's open one, as far as there is room; returns when it ends.
    async fn keep_invitation(&self, request: &InviteRequest, token: &Token) -> Result<Timestamp, Error> {
        let (shared, site, now) = (&self.shared, &request.site, self.shared.clock.now());
        let (expires_at, most) = (now.after(request.ttl), shared.settings.sites_max);
        let reserved = shared.membership.reserve(site, expires_at, now, || shared.registry.len(), most);
        let before = reserved.map_err(|sites| {
            let message = format!("{sites} sites are enrolled or invited, the limit is {most}");
            Error::new(ErrorKind::Exhausted, message)
        })?;
        let invite = Invite {
            site: request.site.clone(),
            token_hash: token.hash(),
            role: Role::Participant,
            created_at: now,
            expires_at,
            approve: request.approve,
            state: InviteState::Open,
        };
        let kept = async {
            if before.is_some() {
                shared.store.withdraw_invites(site).await?;
            }
            shared.store.put_invite(invite).await
        };
        let kept = kept.await;
        if kept.is_err() {
            shared.membership.set_open(site, before);
        }
        kept?;
        Ok(expires_at)
    }

    /// Lets a site in whose invitation asked for approval, if the fingerprint is the one of its key.
    ///
    /// # Errors
    /// Not found; conflict when it does not wait for approval; permission denied for another fingerprint.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless.
    pub async fn approve(&self, who: &Identity, site: &SiteName, fingerprint: Digest) -> Result<(), Error> {
        self.authorise(who, Role::Operator)?;
        let (handle, who, site) = (self.clone(), who.name.clone(), site.clone());
        self.to_the_end(async move {
            let turn = handle.shared.membership.turn(&site, None).await?;
            let approved = handle.let_in(&who, &site, fingerprint).await;
            drop(turn);
            approved
        })
        .await
    }

    async fn let_in(&self, by: &SiteName, site: &SiteName, fingerprint: Digest) -> Result<(), Error> {
        let record = self.known(site)?;
        if record.state != SiteState::PendingApproval {
            return Err(Error::conflict(format!("site {site} does not wait for approval")));
        }
        if record.key_fingerprint != fingerprint {
            return Err(Error::denied(format!(
                "the key of site {site} has the fingerprint {}, not the one given; do not let it in before they agree",
                record.key_fingerprint
            )));
        }
        self.set_state(record, SiteState::Active).await?;
        let body = serde_json::json!({ "site": site, "key": fingerprint, "by": by });
        self.federation_entry("site_approved", &body).await
    }

    /// Shuts a site out, on live connections too, and takes its open invitations back; its open work is given to others where
    /// the run allows it.
    ///
    /// # Errors
    /// Not found; conflict when it is revoked already and has no open invitation.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless.
    pub async fn revoke(&self, who: &Identity, site: &SiteName, reason: String) -> Result<(), Error> {
        self.authorise(who, Role::Operator)?;
        let reason = bounded(&reason);
        let (handle, who, site) = (self.clone(), who.name.clone(), site.clone());
        self.to_the_end(async move {
            let turn = handle.shared.membership.turn(&site, None).await?;
            let revoked = handle.shut_out(&who, &site, reason).await;
            drop(turn);
            revoked
        })
        .await
    }

    async fn shut_out(&self, by: &SiteName, site: &SiteName, reason: String) -> Result<(), Error> {
        let withdrawn = self.shared.store.withdraw_invites(site).await?;
        self.shared.membership.set_open(site, None);
        let body = serde_json::json!({ "site": site, "by": by, "reason": reason });
        let record = match self.known(site) {
            Ok(record) if matches!(record.state, SiteState::Revoked { .. }) && withdrawn == 0 => {
                return Err(Error::conflict(format!("site {site} is revoked already")));
            }
            Ok(record) if !matches!(record.state, SiteState::Revoked { .. }) => record,
            Err(error) if withdrawn == 0 => return Err(error),
            _ => return self.federation_entry("invitation_withdrawn", &body).await,
        };
        self.set_state(record, SiteState::Revoked { reason: reason.clone(), at: self.shared.clock.now() })
            .await?;
        self.shared.presence.leave(site);
        tracing::warn!(%site, operator = %by, reason, "site revoked");
        let told = format!("revoked: {reason}");
        self.shared.send(Command::Revoked { site: site.clone(), reason: told }).await?;
        self.federation_entry("site_revoked", &body).await
    }

    fn known(&self, site: &SiteName) -> Result<SiteRecord, Error> {
        let record = self.shared.registry.site(site);
        record.map(|record| (*record).clone()).ok_or_else(|| Error::not_found(format!("no site {site}")))
    }

    async fn set_state(&self, mut record: SiteRecord, state: SiteState) -> Result<(), Error> {
        self.shared.store.set_site_state(&record.name, state.clone()).await?;
        record.state = state;
        self.shared.registry.put(record);
        Ok(())
    }
}

/// Refuses a name that would be taken for someone else in records.
pub(super) fn check_name(site: &SiteName, operator: &Identity) -> Result<(), Error> {
    let name = site.as_str();
    if *site == operator.name || RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
        return Err(Error::invalid(format!(
            "{name:?} is not a site's name here; it stands for someone else in records"
        )));
    }
    Ok(())
}

fn bounded(reason: &str) -> String {
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_LEN_MAX).collect();
    if reason.trim().is_empty() { "no reason given".to_owned() } else { reason }
}
