//! What the CA puts into a certificate whatever the request asks for, and how its files are kept.

use std::os::unix::fs::PermissionsExt;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;
use crate::identity_of_certificate;

const DOMAIN: &str = "study.example";

fn now() -> Timestamp {
    Timestamp::from_millis(1_900_000_000_000)
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::create(DOMAIN, Span::from_secs(1_000_000), now()).unwrap()
}

fn name(text: &str) -> SiteName {
    SiteName::new(text).unwrap()
}

fn parsed(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).unwrap().1
}

/// A request that asks for everything it should not get.
fn greedy_csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(vec!["server.study.example".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "operator-in-chief");
    params.subject_alt_names.push(uri_name(identity_uri(DOMAIN, Role::Operator, &name("root"))).unwrap());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    params.serialize_request(&key).unwrap().pem().unwrap()
}

#[test]
fn a_request_gets_the_name_and_usages_of_the_invitation_and_none_of_its_own() {
    let issued = authority()
        .issue(&greedy_csr(), &name("clinic-a"), Role::Participant, Span::from_secs(3_600), now())
        .unwrap();
    let identity = identity_of_certificate(&issued.der, DOMAIN).unwrap();
    assert_eq!((identity.name, identity.role), (name("clinic-a"), Role::Participant));
    assert_eq!(identity.key_fingerprint, issued.key_fingerprint);

    let certificate = parsed(&issued.der);
    assert_eq!(certificate.subject().to_string(), "CN=clinic-a");
    assert!(!certificate.is_ca());
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI("sheaf://study.example/participant/clinic-a")]);
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && !extended.server_auth && !extended.any);
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
}

#[test]
fn certificates_are_dated_back_a_little_and_end_when_told_or_with_the_ca() {
    let ca = authority();
    let csr = SiteKey::generate().unwrap().csr_pem(&name("a")).unwrap();
    let issue = |validity| ca.issue(&csr, &name("a"), Role::Participant, validity, now()).unwrap();
    let short = issue(Span::from_secs(60));
    assert_eq!(short.not_after, now().after(Span::from_secs(60)));
    let facts = certificate_facts(&short.der).unwrap();
    assert_eq!(now().since(facts.not_before), CLOCK_SKEW_ALLOWED);
    assert_eq!(certificate_facts(short.pem.as_bytes()).unwrap(), facts);
    assert_eq!((facts.serial.len(), &facts.serial), (32, &short.serial));
    assert_eq!(issue(Span::from_secs(2_000_000)).not_after, ca.not_after());
    assert_ne!(issue(Span::from_secs(60)).serial, short.serial);

    let late = ca.not_after().after(Span::from_millis(1));
    let error = ca.issue(&csr, &name("a"), Role::Participant, Span::from_secs(1), late).unwrap_err();
    assert!(matches!(error, Error::AuthorityExpired { .. }));
    let forever = Span::from_millis(u64::MAX);
    assert!(matches!(CertificateAuthority::create(DOMAIN, forever, now()), Err(Error::InvalidArgument(_))));
}

#[test]
fn a_server_certificate_is_for_its_names_and_server_use_only() {
    let names = ["localhost", "127.0.0.1", "::1", "fl.study.example"].map(str::to_owned);
    let server = authority().issue_server(&names, Span::from_secs(60), now()).unwrap();
    let certificate = parsed(&server.issued.der);
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && !extended.client_auth);
    assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 4);
    assert_eq!(server.issued.key_fingerprint, server.key.fingerprint());
    assert!(matches!(identity_of_certificate(&server.issued.der, DOMAIN), Err(Error::NoIdentity)));
    for bad in [vec![], vec!["not a name".to_owned()], vec!["a\nb".to_owned()]] {
        assert!(matches!(
            authority().issue_server(&bad, Span::from_secs(60), now()),
            Err(Error::InvalidArgument(_))
        ));
    }
}

#[test]
fn keys_of_every_accepted_type_get_a_certificate() {
    let ca = authority();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let issued = ca.issue(&csr, &name("a"), Role::Operator, Span::from_secs(60), now()).unwrap();
        assert_eq!(issued.key_fingerprint, Digest::of(&key.subject_public_key_info()));
        assert_eq!(identity_of_certificate(&issued.der, DOMAIN).unwrap().role, Role::Operator);
    }
}

#[test]
fn the_ca_reads_back_from_its_files_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("pki");
    let ca = authority();
    ca.save(&dir).unwrap();
    let mode = |file: &str| std::fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(CA_KEY_FILE), 0o600);
    let read = CertificateAuthority::load(&dir).unwrap();
    assert_eq!((read.pin(), read.trust_domain(), read.not_after()), (ca.pin(), DOMAIN, ca.not_after()));
    assert_eq!(read.certificate_pem(), ca.certificate_pem());
    assert!(matches!(authority().save(&dir), Err(Error::Exists { .. })));
    assert_eq!(CertificateAuthority::load(&dir).unwrap().pin(), ca.pin());

    std::fs::set_permissions(dir.join(CA_KEY_FILE), PermissionsExt::from_mode(0o644)).unwrap();
    let error = CertificateAuthority::load(&dir).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_ca_whose_saving_was_cut_short_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (cut_short, ca) = (authority(), authority());
    cut_short.save(dir.path()).unwrap();
    std::fs::remove_file(dir.path().join(CA_KEY_FILE)).unwrap();
    ca.save(dir.path()).unwrap();
    assert_eq!(CertificateAuthority::load(dir.path()).unwrap().pin(), ca.pin());
}

#[test]
fn a_ca_certificate_of_another_key_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    authority().save(one.path()).unwrap();
    authority().save(two.path()).unwrap();
    std::fs::copy(one.path().join(CA_CERTIFICATE_FILE), two.path().join(CA_CERTIFICATE_FILE)).unwrap();
    assert!(matches!(CertificateAuthority::load(two.path()), Err(Error::KeyMismatch)));
}

#[test]
fn a_certificate_issued_after_reading_the_ca_back_names_the_same_issuer() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority();
    ca.save(dir.path()).unwrap();
    let csr = SiteKey::generate().unwrap().csr_pem(&name("a")).unwrap();
    let read = CertificateAuthority::load(dir.path()).unwrap();
    let issued = read.issue(&csr, &name("a"), Role::Participant, Span::from_secs(60), now()).unwrap();
    assert_eq!(parsed(&issued.der).issuer().as_raw(), parsed(ca.certificate_der()).subject().as_raw());
    let key = crate::PublicKey::from_spki_der(parsed(ca.certificate_der()).public_key().raw).unwrap();
    let certificate = parsed(&issued.der);
    assert!(
        key.verify("it", certificate.tbs_certificate.as_ref(), &certificate.signature_value.data).is_ok()
    );
}

#[test]
fn trust_domains_are_checked() {
    for bad in ["", "Study", "a/b", "a b", "-a", ".a", "a:1", "é", &"a".repeat(65)] {
        let made = CertificateAuthority::create(bad, Span::from_secs(60), now());
        assert!(matches!(made, Err(Error::InvalidArgument(_))), "{bad:?} was taken");
    }
}
