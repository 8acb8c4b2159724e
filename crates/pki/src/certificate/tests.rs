//! Certificates that carry no, a foreign, or more than one identity; and bytes that are no certificate.

use proptest::prelude::*;
use rcgen::{CertificateParams, SanType};
use sheaf_domain::Span;

use super::*;
use crate::{CertificateAuthority, SiteKey};

const DOMAIN: &str = "study.example";

fn certificate_with(uris: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).to_owned().try_into().unwrap())).collect();
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn issued() -> Vec<u8> {
    let now = Timestamp::from_millis(1_900_000_000_000);
    let ca = CertificateAuthority::create(DOMAIN, Span::from_secs(600), now).unwrap();
    let name = SiteName::new("clinic-a").unwrap();
    let csr = SiteKey::generate().unwrap().csr_pem(&name).unwrap();
    ca.issue(&csr, &name, Role::Participant, Span::from_secs(60), now).unwrap().der
}

#[test]
fn the_identity_is_the_uri_and_nothing_else() {
    let identity = identity_of_certificate(
        &certificate_with(&["https://elsewhere.example/x", "sheaf://study.example/operator/ann"]),
        DOMAIN,
    )
    .unwrap();
    assert_eq!((identity.name.as_str(), identity.role), ("ann", Role::Operator));
    for none in [
        &[][..],
        &["https://study.example/operator/ann"],
        &["sheaf://study.example"],
        &["sheaf://study.example/operator"],
        &["sheaf://study.example/operator/"],
        &["sheaf://study.example/operator/ann/b"],
        &["sheaf://study.example/admin/ann"],
        &["sheaf://study.example/Operator/ann"],
        &["sheaf://study.example/operator/a%6en"],
        &["sheaf://study.example/operator/ann", "sheaf://study.example/participant/bob"],
    ] {
        let read = identity_of_certificate(&certificate_with(none), DOMAIN);
        assert!(matches!(read, Err(Error::NoIdentity)), "{none:?} gave {read:?}");
    }
}

#[test]
fn a_certificate_of_another_trust_domain_is_refused_by_name() {
    let der = certificate_with(&["sheaf://other.example/operator/ann"]);
    let error = identity_of_certificate(&der, DOMAIN).unwrap_err();
    assert!(error.to_string().contains("other.example"), "{error}");
}

#[test]
fn a_chain_gives_its_first_certificate_and_no_chain_gives_nobody() {
    let der = issued();
    let chain = [CertificateDer::from(der.as_slice())];
    let peer = peer_of_chain(Some(&chain), DOMAIN).unwrap().unwrap();
    assert_eq!(peer.identity, identity_of_certificate(&der, DOMAIN).unwrap());
    assert_eq!(peer.not_after, certificate_facts(&der).unwrap().not_after);
    assert_eq!(peer_of_chain(None, DOMAIN).unwrap(), None);
    assert_eq!(peer_of_chain(Some(&[]), DOMAIN).unwrap(), None);
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut der = issued();
    der.push(0);
    assert!(identity_of_certificate(&der, DOMAIN).is_err());
    assert!(certificate_facts(&der).is_err());
    assert!(matches!(certificate_facts(&vec![0x30; CERTIFICATE_LEN_MAX + 1]), Err(Error::TooLarge { .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        at: prop::sample::Index,
        cut: prop::sample::Index,
        value: u8,
    ) {
        let _ = certificate_facts(&bytes);
        prop_assert!(identity_of_certificate(&bytes, DOMAIN).is_err());
        let mut der = issued();
        let at = at.index(der.len());
        der[at] = value;
        let _ = certificate_facts(&der);
        let _ = identity_of_certificate(&der, DOMAIN);
        let _ = trust_domain_of_authority(&der);
        der.truncate(cut.index(der.len()));
        prop_assert!(identity_of_certificate(&der, DOMAIN).is_err());
    }
}
