//! A call signed by the stock library, and calls with one thing wrong.

use prost::Message;

use super::*;
use crate::proto::AcquireTaskRequest;
use SuperExecAuthError as E;

const GOLDEN: &str = include_str!("../../testdata/flower/1.42.0/superexec_auth.txt");

struct Call {
    secret: Vec<u8>,
    body: Vec<u8>,
    headers: HeaderMap,
    time_s: i64,
}

fn golden() -> Call {
    let mut lines = GOLDEN.lines().map(|line| line.split_once(' ').unwrap());
    let mut bytes = || hex::decode(lines.next().unwrap().1).unwrap();
    let (secret, body) = (bytes(), bytes());
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.insert(name, value.parse().unwrap());
    }
    let time_s = headers[TIMESTAMP].to_str().unwrap().parse().unwrap();
    Call { secret, body, headers, time_s }
}

/// Headers as a SuperExec with this secret would send them, for an empty body.
fn signed(secret: &[u8], time_s: i64, nonce: u128) -> HeaderMap {
    let (nonce, digest) = (format!("{nonce:032x}"), Digest::of(b"").to_string());
    let canonical = format!("method={METHOD}\nts={time_s}\nnonce={nonce}\nbody_sha256={digest}");
    let code = HmacKey::new(&HmacKey::new(secret).sign(KEY_CONTEXT)).sign(canonical.as_bytes());
    let values = [time_s.to_string(), nonce, digest, hex::encode(code)];
    let names = [TIMESTAMP, NONCE, BODY_DIGEST, SIGNATURE].map(http::HeaderName::from_static);
    names.into_iter().zip(values.map(|value| value.parse().unwrap())).collect()
}

#[test]
fn the_stock_call_is_believed_once() {
    let Call { secret, body, headers, time_s } = golden();
    let request = AcquireTaskRequest::decode(&body[..]).unwrap();
    assert_eq!(request.supported_task_types, ["flwr-serverapp", "flwr-clientapp"]);
    let mut verifier = SuperExecVerifier::new(&secret).unwrap();
    assert_eq!(verifier.verify(&headers, &body, time_s), Ok(()));
    for now_s in [time_s, time_s + 304, time_s - 4] {
        assert_eq!(verifier.verify(&headers, &body, now_s), Err(E::Replayed));
    }
    assert_eq!(SuperExecVerifier::new(b"").unwrap_err(), E::EmptySecret);
    assert!(!format!("{verifier:?}").contains("secret"));
}

#[test]
fn both_ends_of_the_window_are_excluded() {
    let Call { secret, body, headers, time_s } = golden();
    for (now_s, expected) in [
        (time_s - 4, Ok(())),
        (time_s + 304, Ok(())),
        (time_s - 5, Err(E::Ahead { by_s: 5 })),
        (time_s + 305, Err(E::Expired { by_s: 305 })),
        (i64::MIN, Err(E::Ahead { by_s: i64::MAX })),
    ] {
        let mut verifier = SuperExecVerifier::new(&secret).unwrap();
        assert_eq!(verifier.verify(&headers, &body, now_s), expected, "{now_s}");
    }
}

#[test]
fn every_part_is_covered_by_the_signature() {
    let Call { secret, body, headers, time_s } = golden();
    let mut verifier = SuperExecVerifier::new(&secret).unwrap();
    let other_digest = Digest::of(b"other").to_string();
    for (name, value, body, expected) in [
        (TIMESTAMP, (time_s + 1).to_string(), &body[..], E::BadSignature),
        (NONCE, "0".repeat(32), &body[..], E::BadSignature),
        (SIGNATURE, "0".repeat(64), &body[..], E::BadSignature),
        (BODY_DIGEST, other_digest.clone(), &body[..], E::OtherBody),
        (BODY_DIGEST, other_digest, &b"other"[..], E::BadSignature),
        (NONCE, headers[NONCE].to_str().unwrap().to_owned(), &b"other"[..], E::OtherBody),
    ] {
        let mut changed = headers.clone();
        changed.insert(name, value.parse().unwrap());
        assert_eq!(verifier.verify(&changed, body, time_s), Err(expected), "{name}");
    }
    let mut stranger = SuperExecVerifier::new(b"another secret").unwrap();
    assert_eq!(stranger.verify(&headers, &body, time_s), Err(E::BadSignature));
    // None of these reserved the nonce.
    assert_eq!(verifier.verify(&headers, &body, time_s), Ok(()));
}

#[test]
fn wrong_headers_are_refused_by_name() {
    let Call { secret, body, headers, time_s } = golden();
    let mut verifier = SuperExecVerifier::new(&secret).unwrap();
    for name in [TIMESTAMP, NONCE, BODY_DIGEST, SIGNATURE] {
        let mut changed = headers.clone();
        changed.append(name, headers[name].clone());
        assert_eq!(verifier.verify(&changed, &body, time_s), Err(E::Repeated { name }));
        changed.remove(name);
        assert_eq!(verifier.verify(&changed, &body, time_s), Err(E::Missing { name }));
        let good = headers[name].to_str().unwrap();
        for bad in ["", "+1", "01", " 1", "-1", "99999999999999999999", &good.to_uppercase(), &good[1..]] {
            if bad == good || (name == TIMESTAMP && bad == &good[1..]) {
                continue;
            }
            changed.insert(name, bad.parse().unwrap());
            assert_eq!(verifier.verify(&changed, &body, time_s), Err(E::Malformed { name }), "{bad:?}");
        }
    }
}

#[test]
fn nonces_are_kept_for_their_window_and_no_more_than_fit() {
    let (secret, start_s) = (b"secret", 1_800_000_000);
    let mut verifier = SuperExecVerifier::remembering(secret, 3).unwrap();
    for nonce in 0..3 {
        assert_eq!(verifier.verify(&signed(secret, start_s, nonce), b"", start_s), Ok(()));
    }
    let full = Err(E::NoncesFull { max: 3 });
    assert_eq!(verifier.verify(&signed(secret, start_s, 3), b"", start_s), full);
    assert_eq!(verifier.verify(&signed(b"other", start_s, 3), b"", start_s), Err(E::BadSignature));
    let later_s = start_s + BEHIND_S;
    assert_eq!(verifier.verify(&signed(secret, later_s, 0), b"", later_s - 1), Err(E::Replayed));
    assert_eq!(verifier.verify(&signed(secret, later_s, 3), b"", later_s - 1), full);
    assert_eq!(verifier.verify(&signed(secret, later_s, 3), b"", later_s), Ok(()));
    assert_eq!((verifier.reserved.len(), verifier.by_end.len()), (1, 1));
}
