//! Who may come in: the whole matrix of invitations, keys, approval, renewal and revocation.

use std::sync::atomic::Ordering;

use sheaf_coordinator::{Certificate, Enrolment, Settings};
use sheaf_domain::{ByteSize, ErrorKind, JournalId, Role, Span};
use sheaf_pki::{EnrolmentLimits, PublicKey, SiteKey, certificate_facts, identity_of_certificate};

use crate::world::{Backend, HOLD_MAX, World, days, name, on_both, participant, plan, settings};

on_both!(
    a_token_is_spent_by_one_key,
    a_site_waits_for_an_operator_to_compare_fingerprints,
    a_revoked_site_is_out_at_once_and_comes_back_with_a_new_key,
    an_enrolment_cut_off_in_the_middle_gets_through_on_its_repetition,
    a_participant_without_a_key_is_the_same_after_a_restart_and_nobody_elses,
    what_anybody_may_ask_for_is_limited_each_for_itself,
);

fn issued(enrolment: Enrolment) -> Certificate {
    match enrolment {
        Enrolment::Issued(certificate) => certificate,
        Enrolment::Pending { .. } => panic!("{enrolment:?}"),
    }
}

fn key() -> SiteKey {
    SiteKey::generate().unwrap()
}

async fn what_anybody_may_ask_for_is_limited_each_for_itself(backend: Backend) {
    let mut world = World::start(backend).await;
    world.limits = EnrolmentLimits { peer_burst: 2, peer_per_minute: 0, ..EnrolmentLimits::default() };
    world.restart().await;
    let peer = std::net::IpAddr::from([127, 0, 0, 1]);
    let of_node = || PublicKey::from_spki_der(key().public_key().spki_der()).unwrap();
    let (known, other, late) = (of_node(), of_node(), of_node());
    for new in [&known, &other] {
        world.relays.register_self(new, peer).await.unwrap();
    }
    assert_eq!(world.relays.register_self(&late, peer).await.unwrap_err().kind(), ErrorKind::Exhausted);
    // What is known is no new key, however often it comes.
    assert_eq!(world.relays.register_self(&known, peer).await.unwrap_err().kind(), ErrorKind::Conflict);

    for _ in 0..2 {
        world.relays.request_login(peer).unwrap();
    }
    assert_eq!(world.relays.request_login(peer).unwrap_err().kind(), ErrorKind::Exhausted);

    world.sites(2).await;
    let kit = world.kit("ward").await;
    assert_eq!(world.enrol(&kit, &key()).await.unwrap_err().kind(), ErrorKind::Exhausted);
}

async fn a_token_is_spent_by_one_key(backend: Backend) {
    let world = World::start(backend).await;
    let kit = world.kit("ward").await;
    let (first, other) = (key(), key());
    // The name comes from the invitation, whatever the request says.
    let peer = std::net::IpAddr::from([127, 0, 0, 1]);
    let csr = first.csr_pem(&name("somebody-else")).unwrap();
    let certificate = issued(world.handle.enrol(peer, &kit.token.to_text(), &csr).await.unwrap());
    let der = rustls_pem(&certificate.pem);
    let identity = identity_of_certificate(&der, "study").unwrap();
    assert_eq!((identity.name.as_str(), identity.role), ("ward", Role::Participant));
    assert_eq!(identity.key_fingerprint, first.fingerprint());
    assert!(world.handle.authorise(&identity, Role::Participant).is_ok());
    assert_eq!(
        world.handle.authorise(&identity, Role::Operator).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );

    // Again and at once: the same certificate.
    assert_eq!(issued(world.enrol(&kit, &first).await.unwrap()), certificate);
    let (one, two) = tokio::join!(world.enrol(&kit, &first), world.enrol(&kit, &first));
    assert_eq!((issued(one.unwrap()), issued(two.unwrap())), (certificate.clone(), certificate));

    // Another key: refused, journalled as a possible theft, seen at the site; the site itself is not touched.
    let refused = world.enrol(&kit, &other).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert!(refused.to_string().contains("another key"), "{refused}");
    world.settle().await;
    let entries = world.journal(JournalId::Federation).await;
    let theft: Vec<_> = entries.iter().filter(|entry| entry.kind == "token_reuse").collect();
    assert_eq!(theft.len(), 1);
    assert!(theft[0].body.contains(&other.fingerprint().to_string()));
    let overview = world.handle.sites(&world.operator).await.unwrap();
    assert_eq!(overview[0].state, "active");
    assert!(overview[0].last_error.as_deref().unwrap().contains("possible theft"));
    assert!(world.handle.authorise(&identity, Role::Participant).is_ok());

    // Two keys at once: one is first.
    let kit = world.kit("lab").await;
    let (a, b) = (key(), key());
    let (one, two) = tokio::join!(world.enrol(&kit, &a), world.enrol(&kit, &b));
    assert_eq!([one.is_ok(), two.is_ok()].iter().filter(|ok| **ok).count(), 1);

    // A key of one site is no other's, and does not spend its token.
    let kit = world.kit("clinic").await;
    let refused = world.enrol(&kit, &first).await.unwrap_err();
    assert!(refused.to_string().contains("another site's"), "{refused}");
    issued(world.enrol(&kit, &key()).await.unwrap());

    // Not known, taken back, too late.
    let stranger = world.kit("branch").await;
    let newer = world.kit("branch").await;
    assert!(world.enrol(&stranger, &key()).await.unwrap_err().to_string().contains("taken back"));
    world.clock.advance(days(2));
    assert!(world.enrol(&newer, &key()).await.unwrap_err().to_string().contains("expired"));
    let overview = world.handle.sites(&world.operator).await.unwrap();
    assert_eq!(overview.iter().find(|site| site.name == name("branch")).unwrap().state, "invitation expired");
    let mut unknown = newer.clone();
    unknown.token = sheaf_pki::Token::generate(&sheaf_runtime::OsEntropy).unwrap();
    assert!(world.enrol(&unknown, &key()).await.unwrap_err().to_string().contains("not known"));
    let garbage = world.handle.enrol(peer, &kit.token.to_text(), "no request").await.unwrap_err();
    assert_eq!(garbage.kind(), ErrorKind::InvalidArgument);
}

async fn a_participant_without_a_key_is_the_same_after_a_restart_and_nobody_elses(backend: Backend) {
    let mut world = World::start(backend).await;
    let site = world.site("ward").await;
    let taken = world.handle.take_in(&world.operator, &name("client-1")).await.unwrap();
    assert!(world.handle.authorise(&taken, Role::Participant).is_ok());
    // No key is its own, nobody is invited as it, and it takes in nobody.
    assert!(world.handle.signing_key(&taken.key_fingerprint).is_none());
    assert_eq!(world.invite("client-1", false).await.unwrap_err().kind(), ErrorKind::Conflict);
    let refused = world.handle.take_in(&taken, &name("client-2")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    for (wanted, kind) in [("ward", ErrorKind::Conflict), ("operator", ErrorKind::InvalidArgument)] {
        let refused = world.handle.take_in(&world.operator, &name(wanted)).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{wanted}: {refused}");
    }
    assert!(world.handle.authorise(&site.who, Role::Participant).is_ok());
    world.restart().await;
    assert_eq!(world.handle.take_in(&world.operator, &name("client-1")).await.unwrap(), taken);
    world.handle.revoke(&world.operator, &name("client-1"), "away".to_owned()).await.unwrap();
    let refused = world.handle.take_in(&world.operator, &name("client-1")).await.unwrap_err();
    assert!(refused.to_string().contains("shut out"), "{refused}");
}

fn rustls_pem(pem: &str) -> Vec<u8> {
    use base64_lines::decode;
    decode(pem)
}

/// The DER inside a PEM section.
mod base64_lines {
    pub(super) fn decode(pem: &str) -> Vec<u8> {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let value = |byte: u8| match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let digits: Vec<u8> = body.bytes().filter(|byte| *byte != b'=').map(value).collect();
        let mut out = Vec::new();
        for chunk in digits.chunks(4) {
            let bits = chunk.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit))
                << (6 * (4 - chunk.len()));
            out.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
        }
        out
    }
}

async fn a_site_waits_for_an_operator_to_compare_fingerprints(backend: Backend) {
    let world = World::start(backend).await;
    let kit = world.invite("ward", true).await.unwrap();
    let key = key();
    let who = participant("ward", key.fingerprint());
    for _ in 0..2 {
        let pending = world.enrol(&kit, &key).await.unwrap();
        assert_eq!(pending, Enrolment::Pending { fingerprint: key.fingerprint() });
    }
    let refused = world.handle.next(&who, &[], Span::default()).await.unwrap_err();
    assert!(refused.to_string().contains("approval"), "{refused}");
    let wrong = world.handle.approve(&world.operator, &name("ward"), sheaf_domain::Digest::of(b"x")).await;
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(matches!(world.enrol(&kit, &key).await.unwrap(), Enrolment::Pending { .. }));
    world.handle.approve(&world.operator, &name("ward"), key.fingerprint()).await.unwrap();
    let again = world.handle.approve(&world.operator, &name("ward"), key.fingerprint()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    let certificate = issued(world.enrol(&kit, &key).await.unwrap());
    assert_eq!(issued(world.enrol(&kit, &key).await.unwrap()), certificate);
    world.handle.next(&who, &[], Span::default()).await.unwrap();
    let kinds = world.kinds(JournalId::Federation).await;
    for kind in ["site_invited", "site_waits_for_approval", "site_approved", "site_enrolled"] {
        assert!(kinds.iter().any(|other| other == kind), "{kind}: {kinds:?}");
    }
    let unknown =
        world.handle.approve(&world.operator, &name("nobody"), key.fingerprint()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

async fn a_revoked_site_is_out_at_once_and_comes_back_with_a_new_key(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(3).await;
    world.present(&sites).await;
    let run = world.create(&plan(1, 2, "keep_updates = \"run\"")).await;
    let (handle, who) = (world.handle.clone(), sites[2].who.clone());
    // A held request and whoever watches the connection end with the revocation; the other sites notice nothing.
    let have: Vec<_> = world.orders(&sites[2]).await.iter().map(|order| order.assignment.task).collect();
    let held = async move { handle.next(&who, &have, HOLD_MAX).await };
    let watched = world.handle.revoked(&sites[2].who.name);
    let (answer, (), ()) = tokio::join!(held, watched, async {
        let site = &sites[2].who.name;
        world.handle.revoke(&world.operator, site, "left the study".to_owned()).await.unwrap();
    });
    // It is told to drop what it had, or that it may not come in: whichever it hears first.
    if let Err(refused) = answer {
        assert!(refused.to_string().contains("left the study"), "{refused}");
    }
    let refused = world.handle.next(&sites[2].who, &[], Span::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let csr = sites[2].key.csr_pem(&sites[2].who.name).unwrap();
    assert_eq!(
        world.handle.renew(&sites[2].who, &csr).await.unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    world.settle().await;
    let kinds = world.kinds(JournalId::Federation).await;
    assert!(
        kinds.iter().any(|kind| kind == "site_revoked") && kinds.iter().any(|kind| kind == "access_refused")
    );
    let twice = world.handle.revoke(&world.operator, &sites[2].who.name, String::new()).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    let status = world.drive(run, &sites[..2]).await;
    assert_eq!(status.sites[2].presence, "revoked");

    // The old key stays out; it does not even spend the new token.
    world.restart().await;
    let kit = world.kit("site-2").await;
    let overview = world.handle.sites(&world.operator).await.unwrap();
    assert!(overview[2].state.ends_with("; invited again"), "{}", overview[2].state);
    let refused = world.enrol(&kit, &sites[2].key).await.unwrap_err();
    assert!(refused.to_string().contains("was revoked"), "{refused}");
    let new = key();
    issued(world.enrol(&kit, &new).await.unwrap());
    let who = participant("site-2", new.fingerprint());
    world.handle.next(&who, &[], Span::default()).await.unwrap();
    let old = world.handle.next(&sites[2].who, &[], Span::default()).await.unwrap_err();
    assert!(old.to_string().contains("another key"), "{old}");
    assert!(world.handle.signing_key(&new.fingerprint()).is_some());
    assert!(world.handle.signing_key(&sites[2].key.fingerprint()).is_none());

    // An invitation that is still open goes with the revocation of its name.
    let kit = world.kit("ward").await;
    world.handle.revoke(&world.operator, &name("ward"), String::new()).await.unwrap();
    assert!(world.enrol(&kit, &key()).await.unwrap_err().to_string().contains("taken back"));
    let unknown = world.handle.revoke(&world.operator, &name("nobody"), String::new()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

async fn an_enrolment_cut_off_in_the_middle_gets_through_on_its_repetition(backend: Backend) {
    let mut world = World::start(backend).await;
    let kit = world.kit("ward").await;
    let (first, second) = (key(), key());
    let cut_off = async |world: &World, kit, key| {
        // The token is spent, the site not yet written.
        world.faults.dead.store(true, Ordering::SeqCst);
        let error = world.enrol(kit, key).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        world.faults.dead.store(false, Ordering::SeqCst);
    };
    cut_off(&world, &kit, &first).await;
    world.restart().await;
    let other = world.enrol(&kit, &second).await.unwrap_err();
    assert!(other.to_string().contains("another key"), "{other}");
    issued(world.enrol(&kit, &first).await.unwrap());

    // Also when the name was another key's before.
    world.clock.advance(Span::from_secs(1));
    world.handle.revoke(&world.operator, &name("ward"), String::new()).await.unwrap();
    let kit = world.kit("ward").await;
    cut_off(&world, &kit, &second).await;
    world.restart().await;
    issued(world.enrol(&kit, &second).await.unwrap());
}

#[tokio::test]
async fn invitations_are_refused_for_names_that_are_taken() {
    let mut few = settings();
    few.sites_max = 2;
    let world = World::with(Backend::Memory, few, ByteSize::from_mib(1)).await;
    world.site("ward").await;
    let refused = world.invite("ward", false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("sheaf revoke ward"), "{refused}");
    for taken in ["op", "operator", "Operator", "server", "federation"] {
        assert_eq!(
            world.invite(taken, false).await.unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{taken}"
        );
    }
    world.kit("lab").await;
    assert_eq!(world.invite("clinic", false).await.unwrap_err().kind(), ErrorKind::Exhausted);
    // Nobody but an operator invites, revokes or looks.
    let who = participant("ward", sheaf_domain::Digest::of(b"x"));
    assert!(world.handle.sites(&who).await.is_err());
    assert!(world.handle.revoke(&who, &name("ward"), String::new()).await.is_err());
}

#[tokio::test]
async fn a_participant_with_an_operators_name_changes_nothing_for_the_operator() {
    let world = World::start(Backend::Memory).await;
    let site = world.site("ward").await;
    let namesake = crate::world::operator("ward");
    assert!(world.handle.authorise(&namesake, Role::Operator).is_ok());
    assert!(world.handle.authorise(&namesake, Role::Participant).is_err());
    assert!(world.handle.authorise(&site.who, Role::Operator).is_err());
    world.handle.revoke(&world.operator, &site.who.name, String::new()).await.unwrap();
    assert!(world.handle.authorise(&namesake, Role::Operator).is_ok());
}

#[tokio::test]
async fn certificates_are_renewed_for_their_key_within_the_grace() {
    let settings = Settings { certificate_validity: days(1), renewal_grace: days(3), ..settings() };
    let world = World::with(Backend::Memory, settings, ByteSize::from_mib(1)).await;
    let kit = world.kit("ward").await;
    let key = key();
    issued(world.enrol(&kit, &key).await.unwrap());
    let who = participant("ward", key.fingerprint());
    let csr = key.csr_pem(&who.name).unwrap();
    world.clock.advance(Span::from_secs(3600));
    let renewed = world.handle.renew(&who, &csr).await.unwrap();
    let facts = certificate_facts(renewed.pem.as_bytes()).unwrap();
    assert_eq!(facts.key_fingerprint, key.fingerprint());
    let other = SiteKey::generate().unwrap().csr_pem(&who.name).unwrap();
    assert_eq!(world.handle.renew(&who, &other).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    // Off for longer than the certificate lives, but within the grace; its token still stands for its key.
    world.clock.advance(days(3));
    world.handle.renew(&who, &csr).await.unwrap();
    world.clock.advance(days(2));
    let again = issued(world.enrol(&kit, &key).await.unwrap());
    assert!(again.not_after > renewed.not_after);
    // Beyond the grace only an operator helps, and need not revoke first.
    world.clock.advance(days(5));
    let late = world.handle.renew(&who, &csr).await.unwrap_err();
    assert!(late.to_string().contains("beyond the grace"), "{late}");
    assert!(world.enrol(&kit, &key).await.unwrap_err().to_string().contains("beyond the grace"));
    let kit = world.kit("ward").await;
    issued(world.enrol(&kit, &SiteKey::generate().unwrap()).await.unwrap());
}

#[tokio::test]
async fn too_many_enrolments_are_told_when_to_come_again() {
    let world = World::start(Backend::Memory).await;
    let kit = world.kit("ward").await;
    let key = key();
    let mut limited = None;
    for _ in 0..10_001 {
        let peer = std::net::IpAddr::from([127, 0, 0, 1]);
        if let Err(error) = world.handle.enrol(peer, &kit.token.to_text(), "x").await
            && error.kind() == ErrorKind::Exhausted
        {
            limited = error.retry_after();
            break;
        }
    }
    assert!(limited.is_some_and(|after| after > Span::default()));
    drop(key);
}
