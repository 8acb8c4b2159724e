//! Enrolment: from an invitation to a certificate, the one anonymous path, bounded and rate-limited.
//!
//! A token is spent by the first key that comes with it: that key gets the same certificate again, another key is refused and
//! written down as a possible theft. Name and usages come from the invitation, never from the request.

use std::net::IpAddr;

use sheaf_domain::{Digest, EntryDraft, ErrorKind, Identity, Role, SiteName, Span};
use sheaf_pki::{Issued, Kit, PublicKey, Secret, SigningRequest, Token};
use sheaf_store::{Invite, InviteState, SiteCertificate, SiteRecord, SiteState, SpendOutcome};
use tokio::sync::oneshot;

use crate::command::Command;
use crate::{Error, Handle};

/// What an enrolment comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    /// The site is in.
    Issued(Certificate),
    /// An operator has to compare this fingerprint first; ask again later.
    Pending {
        /// The fingerprint of the key in the request.
        fingerprint: Digest,
    },
}

/// A certificate for a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate.
    pub pem: String,
    /// The CA's certificate.
    pub ca_pem: String,
    /// When it ends.
    pub not_after: sheaf_domain::Timestamp,
}

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
    /// Trades a token and a certificate request for a certificate.
    ///
    /// # Errors
    /// Exhausted when too many ask; permission denied for a token that is unknown, expired, withdrawn or spent by another key;
    /// invalid argument for a request that is not well formed.
    /// # Cancel safety
    /// A dropped call may have spent the token; the same key may ask again.
    pub async fn enrol(&self, peer: IpAddr, token: &Secret, csr_pem: &str) -> Result<Enrolment, Error> {
        let now = self.shared.clock.now();
        self.shared
            .limiter
            .admit(peer, self.shared.clock.monotonic())
            .map_err(|error| Error::new(ErrorKind::Exhausted, error.to_string()))?;
        let token = token.expose_text().map(Token::parse).transpose();
        let token = token.map_err(|error| Error::denied(error.to_string()))?;
        let token_hash = token.ok_or_else(|| Error::denied("the token is not text"))?.hash();
        let request = SigningRequest::parse(csr_pem).map_err(|error| Error::invalid(error.to_string()))?;
        let fingerprint = request.fingerprint();
        match self.shared.store.spend_invite(token_hash, fingerprint, now).await? {
            SpendOutcome::Spent(invite) => self.admit(invite, csr_pem, request.public_key(), true).await,
            SpendOutcome::SameKey(invite) => self.admit(invite, csr_pem, request.public_key(), false).await,
            SpendOutcome::OtherKey { site, first } => {
                tracing::error!(%site, %peer, "a spent token came with another key: it may have been stolen");
                let body = serde_json::json!({
                    "site": site, "first_key": first, "other_key": fingerprint, "peer": peer.to_string(),
                });
                self.federation_entry("token_reuse", &body).await?;
                Err(Error::denied(format!(
                    "the token of site {site} was used by another key; if that was not you, have the site revoked and invited again"
                )))
            }
            SpendOutcome::Expired => Err(Error::denied("the token has expired; ask for a new invitation")),
            SpendOutcome::Withdrawn => Err(Error::denied("the invitation was taken back; ask for a new one")),
            _ => Err(Error::denied("the token is not known; check the kit or ask for a new invitation")),
        }
    }

    async fn admit(
        &self,
        invite: Invite,
        csr_pem: &str,
        key: &PublicKey,
        first_time: bool,
    ) -> Result<Enrolment, Error> {
        let now = self.shared.clock.now();
        let known = self.shared.registry.site(&invite.site);
        let same_key = known.as_ref().filter(|site| site.key_fingerprint == key.fingerprint());
        if let Some(site) = same_key {
            match (&site.state, &site.certificate) {
                (SiteState::Revoked { reason, .. }, _) => {
                    return Err(Error::denied(format!("site {} was revoked: {reason}", site.name)));
                }
                (SiteState::PendingApproval, _) => return Ok(Enrolment::Pending { fingerprint: key.fingerprint() }),
                (SiteState::Active, Some(certificate)) if certificate.not_after > now => {
                    return Ok(Enrolment::Issued(self.certificate(certificate)));
                }
                (SiteState::Active, _) => {}
            }
        } else if !first_time && known.is_some() {
            return Err(Error::denied(format!("site {} was enrolled again with another key since", invite.site)));
        }
        let approved = same_key.is_some();
        let state = if invite.approve && !approved { SiteState::PendingApproval } else { SiteState::Active };
        let certificate = match state {
            SiteState::Active => Some(self.issue(csr_pem, &invite.site, invite.role)?),
            _ => None,
        };
        let record = SiteRecord {
            name: invite.site.clone(),
            role: invite.role,
            key_fingerprint: key.fingerprint(),
            public_key_der: key.spki_der().to_vec(),
            certificate,
            state,
            enrolled_at: now,
            last_seen: None,
        };
        self.shared.store.put_site(record.clone()).await?;
        let kind = if record.certificate.is_some() { "site_enrolled" } else { "site_waits_for_approval" };
        let body = serde_json::json!({ "site": record.name, "key": record.key_fingerprint });
        self.federation_entry(kind, &body).await?;
        tracing::info!(site = %record.name, key = %record.key_fingerprint, kind, "enrolment");
        let outcome = match &record.certificate {
            Some(certificate) => Enrolment::Issued(self.certificate(certificate)),
            None => Enrolment::Pending { fingerprint: record.key_fingerprint },
        };
        self.shared.registry.put(record);
        Ok(outcome)
    }

    fn issue(&self, csr_pem: &str, site: &SiteName, role: Role) -> Result<SiteCertificate, Error> {
        let validity = self.shared.settings.certificate_validity;
        let issued: Issued = self
            .shared
            .ca
            .issue(csr_pem, site, role, validity, self.shared.clock.now())
            .map_err(|error| Error::new(error.kind(), error.to_string()))?;
        Ok(SiteCertificate { pem: issued.pem, serial: issued.serial, not_after: issued.not_after })
    }

    fn certificate(&self, certificate: &SiteCertificate) -> Certificate {
        Certificate {
            pem: certificate.pem.clone(),
            ca_pem: self.shared.ca.certificate_pem().to_owned(),
            not_after: certificate.not_after,
        }
    }

    /// Issues a site's next certificate for the key it has; also within the grace after the last one ended.
    ///
    /// # Errors
    /// Permission denied when the site is not active, asks for another key, or is beyond the grace.
    /// # Cancel safety
    /// A dropped call may still have issued one; calling again issues another.
    pub async fn renew(&self, who: &Identity, csr_pem: &str) -> Result<Certificate, Error> {
        self.authorise(who, Role::Participant)?;
        let request = SigningRequest::parse(csr_pem).map_err(|error| Error::invalid(error.to_string()))?;
        let site = self.shared.registry.site(&who.name).ok_or_else(|| Error::not_found("the site is not enrolled"))?;
        if request.fingerprint() != site.key_fingerprint {
            return Err(Error::denied("a certificate is renewed for the key it was issued for; another needs an invitation"));
        }
        let now = self.shared.clock.now();
        if let Some(certificate) = &site.certificate {
            let grace = self.shared.settings.renewal_grace;
            if certificate.not_after.after(grace) < now {
                let ago = Span::from_secs(now.since(certificate.not_after).as_millis() / 1000);
                return Err(Error::denied(format!(
                    "the certificate ended {ago} ago, beyond the grace of {grace}; ask for a new invitation"
                )));
            }
        }
        let certificate = self.issue(csr_pem, &who.name, site.role)?;
        let mut record = (*site).clone();
        record.certificate = Some(certificate.clone());
        self.shared.store.replace_site(site.key_fingerprint, record.clone()).await?;
        self.shared.registry.put(record);
        tracing::info!(site = %who.name, "certificate renewed");
        Ok(self.certificate(&certificate))
    }

    /// Makes an invitation; the token in the kit is shown this once and kept only as a hash.
    ///
    /// # Errors
    /// Conflict when an active site has the name; exhausted when there are too many sites.
    /// # Cancel safety
    /// A dropped call may still have made an invitation whose token nobody knows.
    pub async fn invite(&self, who: &Identity, request: InviteRequest) -> Result<Kit, Error> {
        self.authorise(who, Role::Operator)?;
        if self.shared.registry.is_active(&request.site) {
            return Err(Error::conflict(format!(
                "site {} is enrolled; `sheaf revoke {}` first if it is to come in with a new key",
                request.site, request.site
            )));
        }
        if self.shared.registry.all().len() >= self.shared.settings.sites_max {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("there are {} sites, which is the limit", self.shared.settings.sites_max),
            ));
        }
        let now = self.shared.clock.now();
        let token = Token::generate(&*self.shared.entropy).map_err(|error| Error::internal(error.to_string()))?;
        self.shared.store.withdraw_invites(&request.site).await?;
        let invite = Invite {
            site: request.site.clone(),
            token_hash: token.hash(),
            role: Role::Participant,
            created_at: now,
            expires_at: now.after(request.ttl),
            approve: request.approve,
            state: InviteState::Open,
        };
        let expires_at = invite.expires_at;
        self.shared.store.put_invite(invite).await?;
        let body = serde_json::json!({
            "site": request.site, "by": who.name, "expires_at": expires_at, "approve": request.approve,
        });
        self.federation_entry("site_invited", &body).await?;
        Ok(Kit {
            site: request.site,
            trust_domain: self.shared.ca.trust_domain().to_owned(),
            servers: self.shared.settings.advertised.clone(),
            ca_pem: self.shared.ca.certificate_pem().to_owned(),
            ca_pin: self.shared.ca.pin(),
            token,
            expires_at,
        })
    }

    /// Lets a site in whose invitation asked for approval, if the fingerprint is the one of its key.
    ///
    /// # Errors
    /// Not found; conflict when it does not wait for approval; permission denied for another fingerprint.
    /// # Cancel safety
    /// A dropped call may still have let the site in.
    pub async fn approve(&self, who: &Identity, site: &SiteName, fingerprint: Digest) -> Result<(), Error> {
        self.authorise(who, Role::Operator)?;
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
        self.federation_entry("site_approved", &serde_json::json!({ "site": site, "by": who.name })).await
    }

    /// Shuts a site out, on live connections too; its open work is given to others where the run allows it.
    ///
    /// # Errors
    /// Not found; conflict when it is revoked already.
    /// # Cancel safety
    /// A dropped call may still have revoked the site.
    pub async fn revoke(&self, who: &Identity, site: &SiteName, reason: String) -> Result<(), Error> {
        self.authorise(who, Role::Operator)?;
        let reason = if reason.is_empty() { "no reason given".to_owned() } else { reason };
        let withdrawn = self.shared.store.withdraw_invites(site).await?;
        let record = match self.known(site) {
            Ok(record) => record,
            Err(_) if withdrawn > 0 => {
                let body = serde_json::json!({ "site": site, "by": who.name, "reason": reason });
                return self.federation_entry("invitation_withdrawn", &body).await;
            }
            Err(error) => return Err(error),
        };
        if matches!(record.state, SiteState::Revoked { .. }) {
            return Err(Error::conflict(format!("site {site} is revoked already")));
        }
        let state = SiteState::Revoked { reason: reason.clone(), at: self.shared.clock.now() };
        self.set_state(record, state).await?;
        self.shared.presence.leave(site);
        let gone = Command::Gone { site: site.clone(), reason: format!("revoked: {reason}"), revoked: true };
        self.shared.send(gone).await?;
        tracing::warn!(%site, operator = %who.name, reason, "site revoked");
        let body = serde_json::json!({ "site": site, "by": who.name, "reason": reason });
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

    /// Writes an entry of the federation's own journal and waits until it is durable.
    async fn federation_entry(&self, kind: &str, body: &serde_json::Value) -> Result<(), Error> {
        let draft = EntryDraft { at: self.shared.clock.now(), kind: kind.to_owned(), body: body.to_string() };
        let (reply, answer) = oneshot::channel();
        self.shared.send(Command::Federation { draft, reply: Some(reply) }).await?;
        answer.await.map_err(|_| Error::shutting_down())?
    }
}
