//! From a kit to a certificate, and from a certificate to the next.

use std::sync::{Arc, Mutex, PoisonError};

use sheaf_domain::{ErrorKind, Span, Timestamp};
use sheaf_messages::v1;
use sheaf_pki::{Kit, SiteKey, certificate_facts};

use super::event::{Event, EventSink};
use super::home::{Enrolled, Home};
use super::link::{Authority, Link, Maker};
use crate::Error;
use crate::transport::Retry;

/// Who this site is: as it was kept, or by the kit if there is one that was not used yet.
pub(crate) async fn identity(
    home: &Home,
    kit: Option<&Kit>,
    maker: &Maker,
    retry: &Retry,
    events: &EventSink,
) -> Result<(Enrolled, Arc<SiteKey>), Error> {
    let kept = home.enrolled()?;
    match (kept, kit) {
        (None, None) => Err(Error::setting(
            home.dir().display().to_string(),
            "this site is not enrolled yet: a kit is needed",
        )),
        (Some(kept), Some(kit)) if kept.site != kit.site || kept.trust_domain != kit.trust_domain => {
            let reason = format!("it belongs to site {} of {}", kept.site, kept.trust_domain);
            Err(Error::setting(home.dir().display().to_string(), reason))
        }
        (Some(kept), kit) if kit.is_none_or(|kit| kit.token.hash() == kept.invitation) => {
            let key = home.key(&kept.invitation)?;
            Ok((kept, Arc::new(key)))
        }
        (_, Some(kit)) => enrol(home, kit, maker, retry, events).await,
        (Some(kept), None) => {
            let key = home.key(&kept.invitation)?;
            Ok((kept, Arc::new(key)))
        }
    }
}

async fn enrol(
    home: &Home,
    kit: &Kit,
    maker: &Maker,
    retry: &Retry,
    events: &EventSink,
) -> Result<(Enrolled, Arc<SiteKey>), Error> {
    let invitation = kit.token.hash();
    let key = home.key(&invitation)?;
    let certificate = certificate(kit, &key, maker, retry, events).await?;
    let enrolled = Enrolled {
        format: Enrolled::FORMAT,
        site: kit.site.clone(),
        trust_domain: kit.trust_domain.clone(),
        servers: kit.servers.clone(),
        ca_pin: kit.ca_pin,
        invitation,
        obtained_at: maker.clock.now(),
        not_after: checked(&certificate, &key)?,
        ca_pem: kit.ca_pem.clone(),
        certificate_pem: certificate.certificate_pem,
    };
    home.keep(&enrolled)?;
    events.emit(Event::Enrolled { not_after: enrolled.not_after });
    Ok((enrolled, Arc::new(key)))
}

/// Asks until there is a certificate: each of the server's addresses in turn, and again while approval is awaited.
async fn certificate(
    kit: &Kit,
    key: &SiteKey,
    maker: &Maker,
    retry: &Retry,
    events: &EventSink,
) -> Result<v1::Certificate, Error> {
    let token = kit.token.to_text();
    let request = v1::EnrolRequest {
        token: token.expose_text().unwrap_or_default().to_owned(),
        csr_pem: key.csr_pem(&kit.site)?,
    };
    let authority = Authority { ca_pem: &kit.ca_pem, ca_pin: kit.ca_pin };
    let transports = kit.servers.iter().map(|server| maker.anonymous(server, authority));
    let transports = transports.collect::<Result<Vec<_>, Error>>()?;
    let mut turn = 0usize;
    let mut told = false;
    let last_reason = Mutex::new(String::new());
    loop {
        let reply = retry
            .run(|| {
                let transport = transports.get(turn % transports.len().max(1)).map(Arc::clone);
                turn = turn.wrapping_add(1);
                let (request, last_reason) = (request.clone(), &last_reason);
                async move {
                    let transport = transport.ok_or_else(|| Error::setting("servers", "there is none"))?;
                    transport.enrol(request).await.inspect_err(|error| unanswered(last_reason, error, events))
                }
            })
            .await?;
        match (reply.state.as_str(), reply.certificate) {
            ("issued", Some(certificate)) => return Ok(certificate),
            ("pending", _) => {
                if !told {
                    events.emit(Event::ApprovalAwaited { fingerprint: key.fingerprint() });
                    told = true;
                }
                tokio::time::sleep(APPROVAL_PAUSE.as_duration()).await;
                // The address that answered is asked again.
                turn = turn.wrapping_sub(1);
            }
            (other, _) => return Err(Error::bad_answer("enrol", format!("state {other:?}"))),
        }
    }
}

/// Tells why the server did not answer, once as long as the reason stays the same.
fn unanswered(last_reason: &Mutex<String>, error: &Error, events: &EventSink) {
    let reason = error.to_string();
    let mut last = last_reason.lock().unwrap_or_else(PoisonError::into_inner);
    if error.is_transient() && *last != reason {
        last.clone_from(&reason);
        events.emit(Event::Disconnected { reason });
    }
}

/// Gets a new certificate and uses it from then on.
pub(crate) async fn renew(link: &Link, home: &Home, now: Timestamp) -> Result<Timestamp, Error> {
    let enrolled = link.enrolled();
    let request = v1::RenewRequest { csr_pem: link.key().csr_pem(&enrolled.site)? };
    let answer = match link.for_renewal()?.renew(request.clone()).await {
        // It may have ended on the way, or by the server's clock; a signed request is still taken.
        Err(error) if error.kind() == ErrorKind::Unauthenticated => link.signed()?.renew(request).await,
        answer => answer,
    };
    let reply = answer?;
    let certificate = reply.certificate.ok_or_else(|| Error::bad_answer("renew", "no certificate"))?;
    let not_after = checked(&certificate, link.key())?;
    let renewed =
        Enrolled { obtained_at: now, not_after, certificate_pem: certificate.certificate_pem, ..enrolled };
    home.keep(&renewed)?;
    link.renewed(renewed)?;
    Ok(not_after)
}

/// When to renew: at two thirds of the certificate's life.
pub(crate) fn renew_at(enrolled: &Enrolled) -> Timestamp {
    let life = enrolled.not_after.since(enrolled.obtained_at).as_millis();
    enrolled.obtained_at.after(Span::from_millis(life - life / 3))
}

/// Whether a failed renewal is final: the server knows this site and will not have it.
pub(crate) fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unauthenticated)
}

/// The end of a certificate that is for our key.
fn checked(certificate: &v1::Certificate, key: &SiteKey) -> Result<Timestamp, Error> {
    let facts = certificate_facts(certificate.certificate_pem.as_bytes())?;
    if facts.key_fingerprint != key.fingerprint() {
        return Err(Error::bad_answer("enrol", "the certificate is for another key"));
    }
    Ok(facts.not_after)
}

const APPROVAL_PAUSE: Span = Span::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_domain::{Digest, SiteName};

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        let enrolled = Enrolled {
            format: Enrolled::FORMAT,
            site: SiteName::new("site-1").unwrap(),
            trust_domain: "study".to_owned(),
            servers: Vec::new(),
            ca_pin: Digest::of(b""),
            invitation: Digest::of(b""),
            obtained_at: Timestamp::from_millis(1_000),
            not_after: Timestamp::from_millis(4_000),
            ca_pem: String::new(),
            certificate_pem: String::new(),
        };
        assert_eq!(renew_at(&enrolled), Timestamp::from_millis(3_000));
    }
}
