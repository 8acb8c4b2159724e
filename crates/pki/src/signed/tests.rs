//! Signed requests: every field is covered, none is taken twice, and the memory stays bounded.

use std::collections::HashMap;

use proptest::prelude::*;
use sheaf_domain::{ErrorKind, Span};
use sheaf_runtime::OsEntropy;

use super::*;

const WINDOW: Span = Span::from_secs(300);
const REQUEST: RequestParts<'_> =
    RequestParts { trust_domain: "study.example", method: "POST", path_and_query: "/v1/tasks/7?part=2" };

fn now() -> Timestamp {
    Timestamp::from_millis(1_900_000_000_000)
}

fn site() -> SiteName {
    SiteName::new("clinic-a").unwrap()
}

fn verifier(nonces_max: usize) -> RequestVerifier {
    RequestVerifier::new(WINDOW, nonces_max, Timestamp::default())
}

fn signed_at(key: &SiteKey, at: Timestamp) -> SignedHeaders {
    let headers = sign_request(key, &site(), &REQUEST, &Digest::of(b"body"), at, &OsEntropy).unwrap();
    read(&headers.into_iter().collect()).unwrap().unwrap()
}

fn read(headers: &HashMap<&'static str, String>) -> Result<Option<SignedHeaders>, SignatureError> {
    SignedHeaders::read(|name| headers.get(name).map(String::as_str))
}

fn check(headers: &SignedHeaders, request: &RequestParts<'_>, key: &SiteKey) -> Result<(), SignatureError> {
    verifier(100).verify(headers, request, key.public_key().spki_der(), now())
}

#[test]
fn a_signed_request_is_taken_once() {
    let key = SiteKey::generate().unwrap();
    let headers = signed_at(&key, now());
    let verifier = verifier(100);
    let spki = key.public_key().spki_der();
    assert_eq!(verifier.verify(&headers, &REQUEST, spki, now()), Ok(()));
    assert_eq!(verifier.verify(&headers, &REQUEST, spki, now()), Err(SignatureError::Replayed));
    let last = now().after(WINDOW);
    assert_eq!(verifier.verify(&headers, &REQUEST, spki, last), Err(SignatureError::Replayed));
    assert_eq!(headers.check_body(&Digest::of(b"body")), Ok(()));
    assert_eq!(headers.check_body(&Digest::of(b"bodz")), Err(SignatureError::BodyMismatch));
}

#[test]
fn every_accepted_key_type_signs() {
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    for pem in [p384, ed25519] {
        let key = SiteKey::from_pem(&pem.into()).unwrap();
        assert_eq!(check(&signed_at(&key, now()), &REQUEST, &key), Ok(()));
    }
}

#[test]
fn a_change_in_any_field_is_refused() {
    let key = SiteKey::generate().unwrap();
    let other = SiteKey::generate().unwrap();
    let good = signed_at(&key, now());
    assert_eq!(check(&good, &REQUEST, &key), Ok(()));
    for request in [
        RequestParts { trust_domain: "other.example", ..REQUEST },
        RequestParts { method: "PUT", ..REQUEST },
        RequestParts { path_and_query: "/v1/tasks/8?part=2", ..REQUEST },
        RequestParts { path_and_query: "/v1/tasks/7", ..REQUEST },
        RequestParts { path_and_query: "/v1/tasks/7?part=2\n", ..REQUEST },
    ] {
        assert_eq!(check(&good, &request, &key), Err(SignatureError::Invalid), "{request:?}");
    }
    let changed: [fn(&mut SignedHeaders); 5] = [
        |headers| headers.site = SiteName::new("clinic-b").unwrap(),
        |headers| headers.timestamp = headers.timestamp.after(Span::from_millis(1)),
        |headers| headers.nonce[15] ^= 1,
        |headers| headers.body = Digest::of(b"bodz"),
        |headers| headers.signature[10] ^= 1,
    ];
    for (index, change) in changed.iter().enumerate() {
        let mut headers = good.clone();
        change(&mut headers);
        assert_eq!(check(&headers, &REQUEST, &key), Err(SignatureError::Invalid), "change {index}");
    }
    assert_eq!(check(&good, &REQUEST, &other), Err(SignatureError::OtherKey));
    let mut claimed = good;
    claimed.key = other.fingerprint();
    assert_eq!(check(&claimed, &REQUEST, &other), Err(SignatureError::Invalid));
}

#[test]
fn a_request_outside_the_window_is_refused_by_its_skew() {
    let key = SiteKey::generate().unwrap();
    let at = |ms: i64| Timestamp::from_millis(now().as_millis().checked_add_signed(ms).unwrap());
    assert_eq!(check(&signed_at(&key, at(-300_000)), &REQUEST, &key), Ok(()));
    assert_eq!(check(&signed_at(&key, at(5_000)), &REQUEST, &key), Ok(()));
    let old = check(&signed_at(&key, at(-300_001)), &REQUEST, &key).unwrap_err();
    assert!(old.to_string().contains("300001ms behind"), "{old}");
    let early = check(&signed_at(&key, at(7_000)), &REQUEST, &key).unwrap_err();
    assert!(early.to_string().contains("7s ahead"), "{early}");
    assert_eq!(early.kind(), ErrorKind::Unauthenticated);
}

#[test]
fn a_request_that_an_earlier_life_could_have_taken_is_refused_and_signing_again_helps() {
    let key = SiteKey::generate().unwrap();
    let spki = key.public_key().spki_der();
    let restarted = RequestVerifier::new(WINDOW, 100, now());
    let ahead = signed_at(&key, now().after(AHEAD_MAX));
    for headers in
        [signed_at(&key, Timestamp::from_millis(now().as_millis() - 1)), signed_at(&key, now()), ahead]
    {
        let error = restarted.verify(&headers, &REQUEST, spki, now()).unwrap_err();
        assert_eq!(
            error,
            SignatureError::BeforeStart { retry_after: AHEAD_MAX.max(Span::from_millis(5_001)) }
        );
        assert!(error.kind().is_transient());
    }
    let later = now().after(Span::from_millis(5_001));
    assert_eq!(restarted.verify(&signed_at(&key, later), &REQUEST, spki, later), Ok(()));
}

#[test]
fn the_memory_is_bounded_and_freed_by_time() {
    let keys: Vec<SiteKey> = (0..9).map(|_| SiteKey::generate().unwrap()).collect();
    let verifier = verifier(8);
    let take =
        |key: &SiteKey, at| verifier.verify(&signed_at(key, at), &REQUEST, key.public_key().spki_der(), at);
    assert_eq!(take(&keys[0], now()), Ok(()));
    let full = take(&keys[0], now()).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Exhausted, "one key takes at most an eighth");
    for key in &keys[1..8] {
        assert_eq!(take(key, now()), Ok(()));
    }
    assert_eq!(take(&keys[8], now()), Err(SignatureError::Full { window: WINDOW }));
    let later = now().after(WINDOW).after(Span::from_millis(1));
    assert_eq!(take(&keys[0], later), Ok(()));
    assert_eq!(take(&keys[8], later), Ok(()));
}

#[test]
fn a_request_forgotten_because_of_its_age_stays_refused_when_the_clock_steps_back() {
    let key = SiteKey::generate().unwrap();
    let spki = key.public_key().spki_der();
    let verifier = verifier(100);
    let old = signed_at(&key, now());
    assert_eq!(verifier.verify(&old, &REQUEST, spki, now()), Ok(()));
    let later = now().after(WINDOW).after(Span::from_secs(1));
    assert_eq!(verifier.verify(&signed_at(&key, later), &REQUEST, spki, later), Ok(()));
    let again = verifier.verify(&old, &REQUEST, spki, now()).unwrap_err();
    assert!(matches!(again, SignatureError::BeforeStart { .. }), "{again}");
}

#[test]
fn missing_and_malformed_headers_are_named() {
    assert_eq!(read(&HashMap::new()), Ok(None));
    let key = SiteKey::generate().unwrap();
    let good: HashMap<_, _> = sign_request(&key, &site(), &REQUEST, &Digest::of(b""), now(), &OsEntropy)
        .unwrap()
        .into_iter()
        .collect();
    for name in good.keys().copied() {
        let mut headers = good.clone();
        headers.remove(name);
        assert_eq!(read(&headers), Err(SignatureError::Malformed { header: name }));
        headers.insert(name, "!".repeat(3_000));
        assert_eq!(read(&headers), Err(SignatureError::Malformed { header: name }));
    }
    let control = RequestParts { path_and_query: "/a\nb", ..REQUEST };
    assert!(sign_request(&key, &site(), &control, &Digest::of(b""), now(), &OsEntropy).is_err());
}

proptest! {
    #[test]
    fn no_header_makes_the_reader_panic_and_no_forgery_is_taken(
        texts in proptest::collection::vec("\\PC{0,80}", 6),
        nonce in "[0-9a-f]{32}",
        at: u64,
        signature in "[A-Za-z0-9_-]{0,100}",
    ) {
        let names = [HEADER_SITE, HEADER_KEY, HEADER_TIMESTAMP, HEADER_NONCE, HEADER_BODY, HEADER_SIGNATURE];
        let _ = read(&names.into_iter().zip(texts).collect());
        let key = SiteKey::generate().unwrap();
        let digest = key.fingerprint().to_string();
        let forged = ["clinic-a".to_owned(), digest.clone(), at.to_string(), nonce, digest, signature];
        if let Ok(Some(headers)) = read(&names.into_iter().zip(forged).collect()) {
            let verifier = verifier(10);
            let taken = verifier.verify(&headers, &REQUEST, key.public_key().spki_der(), headers.timestamp);
            prop_assert_eq!(taken, Err(SignatureError::Invalid));
        }
    }
}
