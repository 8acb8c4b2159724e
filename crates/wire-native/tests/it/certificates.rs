//! Certificates that end: on a live connection, at a renewal, within and beyond the grace.

use std::sync::Arc;

use sheaf_client::Error;
use sheaf_domain::{ErrorKind, Span};
use sheaf_messages::v1;
use sheaf_pki::certificate_facts;

use crate::world::{Site, Way, World, days, on_every_way};

on_every_way! {
    a_renewed_certificate_works_and_is_for_the_same_key,
    an_ended_certificate_is_refused_and_renewed_within_the_grace,
}

fn renewal(site: &Site) -> v1::RenewRequest {
    v1::RenewRequest { csr_pem: site.key.csr_pem(&site.name).unwrap() }
}

async fn a_renewed_certificate_works_and_is_for_the_same_key(way: Way) {
    let world = World::start().await;
    let site = world.site("a", way).await;
    world.clock.advance(Span::from_secs(16 * 3600));
    let certificate = world.connect(&site, way).renew(renewal(&site)).await.unwrap().certificate.unwrap();
    assert!(certificate.not_after_ms > site.certificate.not_after_ms);
    let facts = certificate_facts(certificate.certificate_pem.as_bytes()).unwrap();
    assert_eq!(facts.key_fingerprint, site.key.fingerprint());
    world.clock.advance(Span::from_secs(16 * 3600));
    let renewed = Site { certificate, ..site };
    world.connect(&renewed, way).beat(v1::BeatRequest::default()).await.unwrap();
}

async fn an_ended_certificate_is_refused_and_renewed_within_the_grace(way: Way) {
    let world = World::start().await;
    let site = world.site("a", way).await;
    let transport = world.connect(&site, way);
    transport.beat(v1::BeatRequest::default()).await.unwrap();
    world.clock.advance(days(2));
    // The connection is still there; the certificate is not.
    let refused = transport.beat(v1::BeatRequest::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused}");
    if way != Way::Signed {
        let refused = world.connect(&site, way).beat(v1::BeatRequest::default()).await.unwrap_err();
        assert!(matches!(refused, Error::Unreachable { .. }), "{refused}");
    }
    let signed = world.connect(&site, Way::Signed);
    let certificate = signed.renew(renewal(&site)).await.unwrap().certificate.unwrap();
    let site = Site { certificate, ..site };
    world.connect(&site, way).beat(v1::BeatRequest::default()).await.unwrap();
    world.clock.advance(days(16));
    let beyond = world.connect(&site, Way::Signed).renew(renewal(&site)).await.unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::PermissionDenied, "{beyond}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_opens_no_connection() {
    let (world, other) = (World::start().await, World::start().await);
    let stranger = other.site("a", Way::Https).await;
    let refused = world.connect(&stranger, Way::Https).beat(v1::BeatRequest::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Unreachable { .. }), "{refused}");
    let key = Arc::clone(&stranger.key);
    assert_eq!(key.fingerprint(), stranger.key.fingerprint());
}

#[tokio::test]
async fn a_site_whose_clock_is_off_signs_by_the_servers() {
    use sheaf_client::transport::{
        Address, HttpsTransport, ProxySettings, Signing, Timeouts, Transport as _,
    };
    use sheaf_runtime::{Clock, ManualClock, OsEntropy};

    let world = World::start().await;
    let site = world.site("a", Way::Signed).await;
    let behind = ManualClock::starting_at(sheaf_domain::Timestamp::from_millis(
        world.clock.now().as_millis() - 3_600_000,
    ));
    let signing = Signing::new(
        Arc::clone(&site.key),
        site.name.clone(),
        "study".to_owned(),
        behind,
        OsEntropy::shared(),
    );
    let address = Address::parse(&format!("localhost:{}", world.address.port())).unwrap();
    let tls = world.client_tls(None);
    let signing = Some(Arc::new(signing));
    let transport = HttpsTransport::new(address, ProxySettings::none(), &tls, signing, Timeouts::default());
    transport.beat(v1::BeatRequest::default()).await.unwrap();
}
