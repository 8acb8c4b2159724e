//! Kits that read back, and kits that are refused with the line that is wrong.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use sheaf_domain::Span;
use sheaf_runtime::OsEntropy;

use super::*;
use crate::CertificateAuthority;

fn now() -> Timestamp {
    Timestamp::from_millis(1_900_000_000_000)
}

fn kit() -> Kit {
    let ca = CertificateAuthority::create("study.example", Span::from_secs(600), now()).unwrap();
    Kit {
        site: SiteName::new("clinic-a").unwrap(),
        trust_domain: "study.example".to_owned(),
        servers: ["fl.study.example:8443", "192.0.2.7:443", "[2001:db8::1]:443"].map(str::to_owned).to_vec(),
        ca_pem: ca.certificate_pem().to_owned(),
        ca_pin: ca.pin(),
        token: Token::generate(&OsEntropy).unwrap(),
        expires_at: now().after(Span::from_secs(86_400)),
    }
}

fn text_of(kit: &Kit) -> String {
    kit.to_text().unwrap().expose_text().unwrap().to_owned()
}

#[test]
fn a_kit_reads_back_from_its_text_and_its_file() {
    let kit = kit();
    assert_eq!(Kit::parse(&text_of(&kit)).unwrap(), kit);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clinic-a.kit.toml");
    kit.save(&path).unwrap();
    assert!(matches!(kit.save(&path), Err(Error::Exists { .. })));
    assert_eq!(Kit::load(&path).unwrap(), kit);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(matches!(Kit::load(&path), Err(Error::ReadableByOthers { mode: 0o644, .. })));
}

#[test]
fn the_kit_of_format_1_kept_with_the_tests_still_opens() {
    let kit = Kit::parse(include_str!("../../testdata/kit-1.toml")).unwrap();
    assert_eq!(kit.site.as_str(), "clinic-a");
    assert_eq!(kit.servers, ["fl.study.example:8443"]);
    assert_eq!(kit.expires_at, Timestamp::from_millis(1_900_086_400_000));
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let text = text_of(&kit()).replace("token =", "proxy = \"http://example\"\ntoken =");
    let error = Kit::parse(&text).unwrap_err().to_string();
    assert!(error.contains("line 8:") && error.contains("proxy"), "{error}");
}

#[test]
fn no_message_and_no_debug_text_repeats_the_token() {
    let kit = kit();
    let token = kit.token.to_text();
    let token = token.expose_text().unwrap();
    let misplaced = text_of(&kit).replace("format = 1", &format!("format = \"{token}\""));
    let cut = text_of(&kit).replace(token, &token[..token.len() - 1]);
    for text in [misplaced, cut, text_of(&kit).replace("\"\n", "\n")] {
        let error = Kit::parse(&text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(&token[..20]), "{shown}");
    }
    assert!(!format!("{kit:?}").contains(&token[7..]));
}

#[test]
fn kits_that_contradict_themselves_are_refused() {
    let other = CertificateAuthority::create("study.example", Span::from_secs(600), now()).unwrap();
    let pin = Kit { ca_pin: other.pin(), ..kit() };
    assert!(matches!(pin.to_text(), Err(Error::PinMismatch { .. })));
    let good = kit();
    let text = text_of(&good);
    assert!(matches!(
        Kit::parse(&text.replace(&good.ca_pin.to_string(), &other.pin().to_string())),
        Err(Error::PinMismatch { .. })
    ));
    for (from, to) in [
        ("fl.study.example:8443", "fl.study.example"),
        ("fl.study.example:8443", "fl.study.example:0"),
        ("fl.study.example:8443", "fl.study.example:99999"),
        ("fl.study.example:8443", "fl study:80"),
        ("\"study.example\"", "\"Study Example\""),
        ("format = 1", "format = 2\nnew_key = true"),
        ("2030-", "never-"),
        ("clinic-a", "../clinic"),
        ("BEGIN CERTIFICATE", "BEGIN PRIVATE KEY"),
    ] {
        assert!(text.contains(from), "{from:?} is not in the kit");
        assert!(Kit::parse(&text.replace(from, to)).is_err(), "{to:?} was taken");
    }
    let error = Kit::parse(&text.replace("format = 1", "format = 2\nnew_key = true")).unwrap_err();
    assert!(error.to_string().contains("format 2"), "{error}");
    let long = format!("{text}#{}", "x".repeat(KIT_LEN_MAX));
    assert!(matches!(Kit::parse(&long), Err(Error::TooLarge { .. })));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(noise in "\\PC{0,200}", at: prop::sample::Index, with in "\\PC{0,4}") {
        prop_assert!(Kit::parse(&noise).is_err());
        let text = include_str!("../../testdata/kit-1.toml");
        let at = at.index(text.len());
        let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        let _ = Kit::parse(&changed);
    }
}
