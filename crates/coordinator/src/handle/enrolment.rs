//! Enrolment: from an invitation to a certificate, the one anonymous path, bounded and rate-limited.
//!
//! A token is spent by the first key that comes with it: that key gets the same certificate again, another key is refused and
//! written down as a possible theft. Name and usages come from the invitation, never from the request. What can be refused
//! without spending the token is refused before.

use std::net::IpAddr;

use sheaf_domain::{Digest, Identity, Role, SiteName, Span, Timestamp, code};
use sheaf_pki::{PublicKey, Secret, SigningRequest, Token};
use sheaf_runtime::crash::{self, Point};
use sheaf_store::{Invite, InviteState, SiteCertificate, SiteRecord, SiteState, SpendOutcome};

use crate::incidents::Kind;
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
    pub not_after: Timestamp,
}

/// A request that is well formed.
struct Applicant {
    peer: IpAddr,
    token_hash: Digest,
    csr_pem: String,
    key: PublicKey,
}

impl Handle {
    /// Trades a token and a certificate request for a certificate.
    ///
    /// # Errors
    /// Exhausted when too many ask; permission denied for a token that is unknown, expired, withdrawn or spent by another key,
    /// and for a key that was revoked or belongs to another site; invalid argument for a request that is not well formed.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless; the same key may ask again.
    pub async fn enrol(&self, peer: IpAddr, token: &Secret, csr_pem: &str) -> Result<Enrolment, Error> {
        self.shared.limiter.admit(peer, self.shared.clock.monotonic())?;
        let token = token.expose_text().map(Token::parse).transpose();
        let token = token.map_err(|error| Error::denied(error.to_string()))?;
        let token_hash = token.ok_or_else(|| Error::denied("the token is not text"))?.hash();
        let request = SigningRequest::parse(csr_pem).map_err(|error| Error::invalid(error.to_string()))?;
        let csr_pem = csr_pem.to_owned();
        let applicant = Applicant { peer, token_hash, csr_pem, key: request.public_key().clone() };
        let handle = self.clone();
        self.to_the_end(async move {
            let invite = handle.invitation(&applicant).await?;
            let turn =
                handle.shared.membership.turn(&invite.site, Some(&applicant.key.fingerprint())).await?;
            let enrolled = handle.spend(&invite, &applicant).await;
            drop(turn);
            enrolled
        })
        .await
    }

    /// The invitation of the token, as it was before its turn: a stranger without one waits for nobody.
    async fn invitation(&self, applicant: &Applicant) -> Result<Invite, Error> {
        let invite = self.shared.store.invite_by_token(applicant.token_hash).await?;
        invite.ok_or_else(|| {
            tracing::warn!(peer = %applicant.peer, "an unknown token was presented");
            Error::denied("the token is not known; check the kit or ask for a new invitation")
        })
    }

    async fn spend(&self, invite: &Invite, applicant: &Applicant) -> Result<Enrolment, Error> {
        let fingerprint = applicant.key.fingerprint();
        if invite.state == InviteState::Open {
            self.check_key(&invite.site, &fingerprint)?;
        }
        let spent = self
            .shared
            .store
            .spend_invite(applicant.token_hash, fingerprint, self.shared.clock.now())
            .await?;
        match spent {
            SpendOutcome::Spent(invite) => {
                crash::reached(Point::InviteSpent);
                let admitted = self.admit(&invite, applicant).await;
                self.shared.membership.set_open(&invite.site, None);
                admitted
            }
            SpendOutcome::SameKey(invite) => self.admit(&invite, applicant).await,
            SpendOutcome::OtherKey { site, first } => Err(self.theft(applicant, &site, first)),
            SpendOutcome::Expired => {
                let message =
                    format!("the token has expired; ask for a new invitation [{}]", code::TOKEN_EXPIRED);
                Err(self.refuse_token(&invite.site, &message))
            }
            SpendOutcome::Withdrawn => {
                Err(self.refuse_token(&invite.site, "the invitation was taken back; ask for a new one"))
            }
            _ => Err(Error::denied("the token is not known; check the kit or ask for a new invitation")),
        }
    }

    /// Refuses a key with which the site could never come in, before it spends the token.
    fn check_key(&self, site: &SiteName, fingerprint: &Digest) -> Result<(), Error> {
        match self.shared.registry.by_key(fingerprint) {
            None => Ok(()),
            Some(known) if known.name != *site => {
                Err(self.refuse_token(site, "this key is another site's; every site makes a key of its own"))
            }
            Some(known) => match &known.state {
                SiteState::Revoked { reason, .. } => {
                    let message =
                        format!("this key was revoked ({reason}); make a new one, the token is still good");
                    Err(self.refuse_token(site, &message))
                }
                _ => Ok(()),
            },
        }
    }

    fn refuse_token(&self, site: &SiteName, message: &str) -> Error {
        self.shared.incident(site, Kind::TokenRefused, None, message);
        Error::denied(message)
    }

    fn theft(&self, applicant: &Applicant, site: &SiteName, first: Digest) -> Error {
        let (peer, other) = (applicant.peer, applicant.key.fingerprint());
        tracing::error!(%site, %peer, %other, "a spent token came with another key: it may have been stolen");
        let text = format!(
            "possible theft: its token came again from {peer} with another key, {other} [{}]",
            code::TOKEN_REUSED
        );
        if self.shared.incidents.note(site, Kind::TokenRefused, None, &text, self.shared.clock.monotonic()) {
            let body = serde_json::json!({
                "site": site, "first_key": first, "other_key": other, "peer": peer.to_string(),
            });
            self.shared.note_in_journal("token_reuse", &body);
        }
        Error::denied(format!(
            "the token of site {site} was used by another key; if that was not you, have the site revoked and invited again [{}]",
            code::TOKEN_REUSED
        ))
    }

    /// Lets a key in that has spent the invitation, now or before.
    async fn admit(&self, invite: &Invite, applicant: &Applicant) -> Result<Enrolment, Error> {
        let now = self.shared.clock.now();
        let fingerprint = applicant.key.fingerprint();
        let known = self.shared.registry.site(&invite.site);
        let same_key = known.as_ref().filter(|site| site.key_fingerprint == fingerprint);
        if let Some(site) = same_key {
            match (&site.state, &site.certificate) {
                (SiteState::Revoked { reason, .. }, _) => {
                    let message =
                        format!("site {} was revoked: {reason} [{}]", site.name, code::SITE_REVOKED);
                    return Err(self.refuse_token(&site.name, &message));
                }
                (SiteState::PendingApproval, _) => return Ok(Enrolment::Pending { fingerprint }),
                (SiteState::Active, Some(certificate)) if certificate.not_after > now => {
                    return Ok(Enrolment::Issued(self.certificate(certificate)));
                }
                (SiteState::Active, Some(certificate)) => self.check_grace(certificate)?,
                (SiteState::Active, None) => {}
            }
        } else if let (Some(site), InviteState::Spent { at, .. }) = (&known, invite.state)
            && site.enrolled_at > at
        {
            // An invitation made later has been used; one made before this one was not, even if we died in between.
            let message = format!("site {} was enrolled again with another key since", invite.site);
            return Err(self.refuse_token(&invite.site, &message));
        }
        let state = match invite.approve && same_key.is_none() {
            true => SiteState::PendingApproval,
            false => SiteState::Active,
        };
        let certificate = match state {
            SiteState::Active => Some(self.issue(&applicant.csr_pem, &invite.site, invite.role)?),
            _ => None,
        };
        let record = SiteRecord {
            name: invite.site.clone(),
            role: invite.role,
            key_fingerprint: fingerprint,
            public_key_der: applicant.key.spki_der().to_vec(),
            certificate,
            state,
            enrolled_at: same_key.map_or(now, |site| site.enrolled_at),
            last_seen: same_key.and_then(|site| site.last_seen),
            label: same_key.and_then(|site| site.label.clone()),
            location: same_key.and_then(|site| site.location.clone()),
        };
        self.put(record).await
    }

    async fn put(&self, record: SiteRecord) -> Result<Enrolment, Error> {
        self.shared.store.put_site(record.clone()).await?;
        crash::reached(Point::SiteKept);
        let outcome = match &record.certificate {
            Some(certificate) => Enrolment::Issued(self.certificate(certificate)),
            None => Enrolment::Pending { fingerprint: record.key_fingerprint },
        };
        let kind = if record.certificate.is_some() { "site_enrolled" } else { "site_waits_for_approval" };
        let body = serde_json::json!({ "site": record.name, "key": record.key_fingerprint });
        tracing::info!(site = %record.name, key = %record.key_fingerprint, kind, "enrolment");
        self.shared.registry.put(record);
        self.federation_entry(kind, &body).await?;
        crash::reached(Point::SiteJournalled);
        Ok(outcome)
    }

    fn issue(&self, csr_pem: &str, site: &SiteName, role: Role) -> Result<SiteCertificate, Error> {
        let (validity, now) = (self.shared.settings.certificate_validity, self.shared.clock.now());
        let issued = self.shared.ca.issue(csr_pem, site, role, validity, now);
        let issued = issued.map_err(|error| Error::new(error.kind(), error.to_string()))?;
        Ok(SiteCertificate { pem: issued.pem, serial: issued.serial, not_after: issued.not_after })
    }

    fn certificate(&self, certificate: &SiteCertificate) -> Certificate {
        Certificate {
            pem: certificate.pem.clone(),
            ca_pem: self.shared.ca.certificate_pem().to_owned(),
            not_after: certificate.not_after,
        }
    }

    fn check_grace(&self, certificate: &SiteCertificate) -> Result<(), Error> {
        let (now, grace) = (self.shared.clock.now(), self.shared.settings.renewal_grace);
        if certificate.not_after.after(grace) >= now {
            return Ok(());
        }
        let ago = Span::from_secs(now.since(certificate.not_after).as_millis() / 1000);
        Err(Error::denied(format!(
            "the certificate ended {ago} ago, beyond the grace of {grace}; ask for a new invitation"
        )))
    }

    /// Whether a site is in and its certificate can still be used or renewed.
    pub(super) fn can_come_in(&self, site: &SiteRecord) -> bool {
        let renewable = |certificate| self.check_grace(certificate).is_ok();
        site.state == SiteState::Active && site.certificate.as_ref().is_none_or(renewable)
    }

    /// Issues a site's next certificate for the key it has; also within the grace after the last one ended.
    ///
    /// # Errors
    /// Permission denied when the site is not active, asks for another key, or is beyond the grace.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless; calling again issues another.
    pub async fn renew(&self, who: &Identity, csr_pem: &str) -> Result<Certificate, Error> {
        self.authorise(who, Role::Participant)?;
        let request = SigningRequest::parse(csr_pem).map_err(|error| Error::invalid(error.to_string()))?;
        let (handle, who, csr_pem) = (self.clone(), who.clone(), csr_pem.to_owned());
        self.to_the_end(async move {
            let turn = handle.shared.membership.turn(&who.name, None).await?;
            let renewed = handle.renew_key(&who, &request, &csr_pem).await;
            drop(turn);
            renewed
        })
        .await
    }

    async fn renew_key(
        &self,
        who: &Identity,
        request: &SigningRequest,
        csr_pem: &str,
    ) -> Result<Certificate, Error> {
        // Again, now that nothing can come in between.
        self.authorise(who, Role::Participant)?;
        let site = self
            .shared
            .registry
            .site(&who.name)
            .ok_or_else(|| Error::not_found("the site is not enrolled"))?;
        if request.fingerprint() != site.key_fingerprint {
            return Err(Error::denied(
                "a certificate is renewed for the key it was issued for; another needs an invitation",
            ));
        }
        if let Some(certificate) = &site.certificate {
            self.check_grace(certificate)?;
        }
        let certificate = self.issue(csr_pem, &who.name, site.role)?;
        let mut record = (*site).clone();
        record.certificate = Some(certificate.clone());
        self.shared.store.replace_site(site.key_fingerprint, record.clone()).await?;
        self.shared.registry.put(record);
        tracing::info!(site = %who.name, "certificate renewed");
        let body = serde_json::json!({ "site": who.name, "not_after": certificate.not_after });
        self.federation_entry("certificate_renewed", &body).await?;
        Ok(self.certificate(&certificate))
    }
}
