//! Cases of sites: enrolment, approval, renewal, revocation.

use sheaf_domain::Role;

use super::{at, digest, site_name};
use crate::{Error, SiteCertificate, SiteRecord, SiteState, StateStore};

fn site(name: &str) -> SiteRecord {
    SiteRecord {
        name: site_name(name),
        role: Role::Participant,
        key_fingerprint: digest(name),
        public_key_der: name.as_bytes().to_vec(),
        certificate: Some(certificate("01")),
        state: SiteState::Active,
        enrolled_at: at(0),
        last_seen: None,
        label: None,
        location: None,
    }
}

fn certificate(serial: &str) -> SiteCertificate {
    SiteCertificate { pem: format!("certificate {serial}"), serial: serial.to_owned(), not_after: at(1000) }
}

fn revoked(reason: &str) -> SiteState {
    SiteState::Revoked { reason: reason.to_owned(), at: at(7) }
}

/// Every field is kept, by name and by key, and the list is in the order of names.
pub async fn a_site_reads_back_as_it_was_put(store: &dyn StateStore) {
    let waiting = SiteRecord { state: SiteState::PendingApproval, certificate: None, ..site("b") };
    let gone =
        SiteRecord { state: revoked("left"), last_seen: Some(at(5)), role: Role::Operator, ..site("c") };
    let (label, location) = (Some("Ward 3".to_owned()), Some("48.1,-11.5".to_owned()));
    let waiting = SiteRecord { label, location, ..waiting };
    for record in [&gone, &site("a"), &waiting] {
        store.put_site(record.clone()).await.unwrap();
        assert_eq!(store.site(&record.name).await.unwrap().as_ref(), Some(record));
        assert_eq!(store.site_by_key(record.key_fingerprint).await.unwrap().as_ref(), Some(record));
    }
    assert_eq!(store.sites().await.unwrap(), [site("a"), waiting, gone]);
}

/// A site that waits gets its certificate on approval, and loses its place by revocation; the rest of it stays.
pub async fn a_site_waits_is_approved_and_revoked(store: &dyn StateStore) {
    let waiting = SiteRecord { state: SiteState::PendingApproval, certificate: None, ..site("site-1") };
    store.put_site(waiting.clone()).await.unwrap();
    let too_early = store.replace_site(digest("site-1"), site("site-1")).await;
    assert!(matches!(too_early, Err(Error::Conflict(_))), "{too_early:?}");
    store.set_site_state(&site_name("site-1"), SiteState::Active).await.unwrap();
    let approved = SiteRecord { state: SiteState::Active, ..waiting };
    assert_eq!(store.site(&site_name("site-1")).await.unwrap(), Some(approved));
    store.replace_site(digest("site-1"), site("site-1")).await.unwrap();
    store.set_site_state(&site_name("site-1"), revoked("key lost")).await.unwrap();
    let gone = SiteRecord { state: revoked("key lost"), ..site("site-1") };
    assert_eq!(store.site(&site_name("site-1")).await.unwrap(), Some(gone));
}

/// Two sites cannot share a key; a site can keep or change its own.
pub async fn a_key_belongs_to_one_site(store: &dyn StateStore) {
    store.put_site(site("site-1")).await.unwrap();
    let copy = SiteRecord { key_fingerprint: digest("site-1"), ..site("site-2") };
    assert!(matches!(store.put_site(copy).await, Err(Error::Conflict(_))));
    assert_eq!(store.site(&site_name("site-2")).await.unwrap(), None);
    store.put_site(site("site-1")).await.unwrap();
    let changed = SiteRecord { key_fingerprint: digest("new key"), ..site("site-1") };
    store.put_site(changed.clone()).await.unwrap();
    assert_eq!(store.site_by_key(digest("site-1")).await.unwrap(), None);
    assert_eq!(store.sites().await.unwrap(), [changed]);
}

/// A renewal names the key it comes from, and may bring another, but not that of another site.
pub async fn a_renewal_needs_the_present_key(store: &dyn StateStore) {
    store.put_site(site("site-1")).await.unwrap();
    store.put_site(site("site-2")).await.unwrap();
    let renewed = SiteRecord {
        key_fingerprint: digest("new key"),
        certificate: Some(certificate("02")),
        ..site("site-1")
    };
    let stale = store.replace_site(digest("old key"), renewed.clone()).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    store.replace_site(digest("site-1"), renewed.clone()).await.unwrap();
    assert_eq!(store.site(&site_name("site-1")).await.unwrap().as_ref(), Some(&renewed));
    let taken = SiteRecord { key_fingerprint: digest("site-2"), ..renewed.clone() };
    assert!(matches!(store.replace_site(digest("new key"), taken).await, Err(Error::Conflict(_))));
    assert_eq!(store.site(&site_name("site-1")).await.unwrap(), Some(renewed));
}

/// A revocation that came first stands.
pub async fn a_renewal_does_not_undo_a_revocation(store: &dyn StateStore) {
    store.put_site(site("site-1")).await.unwrap();
    store.set_site_state(&site_name("site-1"), revoked("key lost")).await.unwrap();
    let renewal = store.replace_site(digest("site-1"), site("site-1")).await;
    assert!(matches!(renewal, Err(Error::Conflict(_))), "{renewal:?}");
    let kept = store.site(&site_name("site-1")).await.unwrap().unwrap();
    assert_eq!(kept.state, revoked("key lost"));
}

/// Only a site that is revoked, and has the key that is named, is forgotten; its name and key are free then.
pub async fn a_revoked_site_can_be_forgotten(store: &dyn StateStore) {
    let name = site_name("site-1");
    store.put_site(site("site-1")).await.unwrap();
    assert!(!store.forget_site(&name, digest("site-1")).await.unwrap(), "it is active");
    store.set_site_state(&name, revoked("left")).await.unwrap();
    assert!(!store.forget_site(&name, digest("another")).await.unwrap(), "another key");
    assert!(store.forget_site(&name, digest("site-1")).await.unwrap());
    assert!(!store.forget_site(&name, digest("site-1")).await.unwrap(), "it is gone");
    assert_eq!(store.sites().await.unwrap(), []);
    assert_eq!(store.site_by_key(digest("site-1")).await.unwrap(), None);
    let heir = SiteRecord { key_fingerprint: digest("site-1"), ..site("site-2") };
    store.put_site(heir.clone()).await.unwrap();
    assert_eq!(store.sites().await.unwrap(), [heir]);
}

/// Sightings come in batches and late; the newest stands, and strangers are passed over.
pub async fn sightings_never_go_back(store: &dyn StateStore) {
    store.put_site(site("site-1")).await.unwrap();
    store.put_site(site("site-2")).await.unwrap();
    for (first, second) in [(10, 5), (8, 20)] {
        let seen = vec![
            (site_name("site-1"), at(first)),
            (site_name("stranger"), at(99)),
            (site_name("site-2"), at(second)),
        ];
        store.touch_sites(seen).await.unwrap();
    }
    let seen: Vec<_> = store.sites().await.unwrap().into_iter().map(|site| site.last_seen).collect();
    assert_eq!(seen, [Some(at(10)), Some(at(20))]);
}

/// What is asked of a site that is not there is answered so.
pub async fn an_unknown_site_is_told_apart(store: &dyn StateStore) {
    let name = site_name("stranger");
    assert_eq!(store.site(&name).await.unwrap(), None);
    assert_eq!(store.site_by_key(digest("stranger")).await.unwrap(), None);
    assert!(matches!(store.set_site_state(&name, SiteState::Active).await, Err(Error::NotFound(_))));
    assert!(matches!(store.replace_site(digest("key"), site("stranger")).await, Err(Error::NotFound(_))));
    assert_eq!(store.sites().await.unwrap(), []);
}
