//! Headers made by the stock library, and everything that is wrong with others.

use super::*;

const GOLDEN: &str = include_str!("../../testdata/flower/1.42.0/node_auth.txt");
const NOW_US: i64 = 1_795_227_952_192_024;

fn golden(padded: bool, grpc: bool) -> HeaderMap {
    let lines: Vec<&str> = GOLDEN.lines().collect();
    let suffix = if grpc { "-bin" } else { "" };
    let mut headers = HeaderMap::new();
    for (name, value) in [("flwr-public-key", lines[0]), ("flwr-signature", lines[2])] {
        let value = if padded { value } else { value.trim_end_matches('=') };
        let name: http::HeaderName = format!("{name}{suffix}").parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }
    headers.insert("flwr-timestamp", lines[1].parse().unwrap());
    headers
}

#[test]
fn the_stock_signature_verifies_over_both_transports() {
    for padded in [true, false] {
        let http = NodeHeaders::of_http(&golden(padded, false)).unwrap();
        let grpc = NodeHeaders::of_grpc(&golden(padded, true)).unwrap();
        assert_eq!(http, grpc);
        assert_eq!(http.public_key.len(), 215);
        assert_eq!(verify_signature(&http).unwrap().public_key, http.public_key);
    }
}

#[test]
fn a_verified_triple_is_believed_until_its_window_ends() {
    let headers = NodeHeaders::of_http(&golden(true, false)).unwrap();
    let mut verifier = NodeVerifier::new(Window::default(), 4);
    assert_eq!(verifier.quick(&headers, false, NOW_US), Ok(None));
    let mut known = KnownKey::default();
    verifier.remember(&headers);
    assert!(known.bind(&headers.public_key));
    assert!(verifier.quick(&headers, false, NOW_US).unwrap().is_some());
    let other = NodeHeaders { signature: Bytes::from_static(b"x"), ..headers.clone() };
    assert_eq!(verifier.quick(&other, false, NOW_US), Ok(None));
    assert!(verifier.quick(&other, known.is(&other.public_key), NOW_US).unwrap().is_some());
    assert_eq!(
        verifier.quick(&headers, known.is(&headers.public_key), NOW_US + 305_000_000),
        Err(NodeAuthError::Expired { by_s: 305 })
    );
    assert_eq!(
        verifier.quick(&headers, known.is(&headers.public_key), NOW_US - 5_000_000),
        Err(NodeAuthError::Ahead { by_s: 5 })
    );
    assert!(verifier.quick(&headers, false, NOW_US + 304_999_999).unwrap().is_some());
    known.forget();
    assert_eq!(verifier.quick(&other, known.is(&other.public_key), NOW_US), Ok(None));
}

#[test]
fn the_memory_is_bounded() {
    let headers = NodeHeaders::of_http(&golden(true, false)).unwrap();
    let mut verifier = NodeVerifier::new(Window::default(), 4);
    for n in 0u8..20 {
        verifier.remember(&NodeHeaders { signature: Bytes::copy_from_slice(&[n]), ..headers.clone() });
        assert!(verifier.remembered() <= 4);
    }
}

#[test]
fn wrong_headers_are_refused_by_name() {
    let good = golden(true, false);
    let mut missing = good.clone();
    missing.remove("flwr-signature");
    assert_eq!(NodeHeaders::of_http(&missing), Err(NodeAuthError::Missing { name: "flwr-signature" }));
    let mut twice = good.clone();
    twice.append("flwr-timestamp", "x".parse().unwrap());
    assert_eq!(NodeHeaders::of_http(&twice), Err(NodeAuthError::Repeated { name: "flwr-timestamp" }));
    let mut bad = good.clone();
    bad.insert("flwr-public-key", "?".parse().unwrap());
    assert_eq!(NodeHeaders::of_http(&bad), Err(NodeAuthError::Malformed { name: "flwr-public-key" }));
    let headers = NodeHeaders::of_http(&good).unwrap();
    let later = NodeHeaders { timestamp: "2026-11-21T02:25:53+00:00".to_owned(), ..headers.clone() };
    assert_eq!(verify_signature(&later), Err(NodeAuthError::BadSignature));
    let no_key = NodeHeaders { public_key: Bytes::from_static(b"\xff"), ..headers };
    assert!(matches!(verify_signature(&no_key), Err(NodeAuthError::Key { .. })));
}
