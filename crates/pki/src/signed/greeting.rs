//! The greeting of a plaintext connection: one line in front of HTTP, in place of the TLS handshake, that says who is calling.
//!
//! Plaintext is for measuring on one machine: it hides nothing, and nothing holds later bytes of the connection to the greeting.
//! The line is `sheaf-plaintext-1`, followed for a site by the values of the headers of a signed request, each after one
//! space, in the order site, key, timestamp, nonce, body, signature; it ends with a line feed. What is signed is a request
//! `GREET /` without a body.

use sheaf_domain::Digest;

use super::{
    HEADER_BODY, HEADER_KEY, HEADER_NONCE, HEADER_SIGNATURE, HEADER_SITE, HEADER_TIMESTAMP, RequestParts,
    SIGNATURE_TEXT_LEN_MAX, SignatureError, SignedHeaders,
};

/// The longest greeting, in bytes, with its line feed.
pub const GREETING_LEN_MAX: usize = 512 + SIGNATURE_TEXT_LEN_MAX;

const GREETING: &str = "sheaf-plaintext-1";
const FIELDS: [&str; 6] =
    [HEADER_SITE, HEADER_KEY, HEADER_TIMESTAMP, HEADER_NONCE, HEADER_BODY, HEADER_SIGNATURE];

/// What a greeting signs: the parts of the request, and the digest of its body.
pub fn greeting_request(trust_domain: &str) -> (RequestParts<'_>, Digest) {
    (RequestParts { trust_domain, method: "GREET", path_and_query: "/" }, Digest::of(b""))
}

/// The greeting with these headers of a signed request; without any, that of somebody who is not enrolled yet.
pub fn greeting(headers: &[(&'static str, String)]) -> String {
    let mut line = GREETING.to_owned();
    for field in FIELDS {
        if let Some((_, value)) = headers.iter().find(|(name, _)| *name == field) {
            line.push(' ');
            line.push_str(value);
        }
    }
    line.push('\n');
    line
}

/// Reads a greeting without its line feed; `None` when it names nobody.
///
/// # Errors
/// [`SignatureError::Malformed`].
pub fn read_greeting(line: &str) -> Result<Option<SignedHeaders>, SignatureError> {
    let malformed = SignatureError::Malformed { header: GREETING };
    let mut words = line.split(' ');
    if words.next() != Some(GREETING) {
        return Err(malformed);
    }
    let values: Vec<&str> = words.by_ref().take(FIELDS.len()).collect();
    if words.next().is_some() {
        return Err(malformed);
    }
    SignedHeaders::read(|name| {
        let field_idx = FIELDS.iter().position(|field| *field == name)?;
        values.get(field_idx).copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Vec<(&'static str, String)> {
        vec![
            (HEADER_SIGNATURE, "c2ln".to_owned()),
            (HEADER_SITE, "ada".to_owned()),
            (HEADER_KEY, Digest::of(b"key").to_string()),
            (HEADER_TIMESTAMP, "17".to_owned()),
            (HEADER_NONCE, "00112233445566778899aabbccddeeff".to_owned()),
            (HEADER_BODY, Digest::of(b"").to_string()),
        ]
    }

    #[test]
    fn a_greeting_reads_back_and_one_without_a_name_is_nobodys() {
        let line = greeting(&headers());
        let read = read_greeting(line.trim_end()).unwrap().unwrap();
        assert_eq!(
            (read.site.as_str(), read.key, read.signature),
            ("ada", Digest::of(b"key"), b"sig".to_vec())
        );
        assert!(line.len() <= GREETING_LEN_MAX);
        assert_eq!(read_greeting(greeting(&[]).trim_end()).unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused() {
        let line = greeting(&headers());
        let line = line.trim_end();
        let cut = line.rsplit_once(' ').unwrap().0;
        for bad in
            ["", "GET / HTTP/1.1", "sheaf-plaintext-2", cut, &format!("{line} more"), &format!("{line} ")]
        {
            assert!(matches!(read_greeting(bad), Err(SignatureError::Malformed { .. })), "{bad:?}");
        }
    }
}
