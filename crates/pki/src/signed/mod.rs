//! Signed requests: how a site proves itself where a proxy on the way opens TLS and a client certificate cannot pass.
//!
//! What is signed is this text, each line ended by a line feed: `sheaf-request-1`, the trust domain, the site's name, the
//! method, the path with its query exactly as sent, SHA-256 of the body (hexadecimal), the time (ms since the epoch), the
//! nonce (32 hexadecimal digits). The signature is the site key's own: ECDSA with SHA-256 for P-256. It covers no other
//! header, and hides nothing: a proxy that opens TLS reads the request and its answer.

mod greeting;
mod verifier;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sheaf_domain::{Digest, SiteName, Timestamp};
use sheaf_runtime::Entropy;

use crate::{Error, SiteKey};

pub use greeting::{GREETING_LEN_MAX, greeting, greeting_request, read_greeting};
pub use verifier::{AHEAD_MAX, RequestVerifier, SignatureError};

/// The site's name.
pub const HEADER_SITE: &str = "sheaf-site";
/// The fingerprint of the site's key, hexadecimal.
pub const HEADER_KEY: &str = "sheaf-key";
/// When the request was signed, milliseconds since the epoch.
pub const HEADER_TIMESTAMP: &str = "sheaf-timestamp";
/// 128 random bits, hexadecimal.
pub const HEADER_NONCE: &str = "sheaf-nonce";
/// SHA-256 of the body, hexadecimal: known, and signed, before the body is read.
pub const HEADER_BODY: &str = "sheaf-body";
/// The signature, base64url without padding.
pub const HEADER_SIGNATURE: &str = "sheaf-signature";
/// In an answer that refuses a signature: the server's time, milliseconds since the epoch, by which a client whose clock
/// is off may sign again.
pub const HEADER_SERVER_TIME: &str = "sheaf-server-time";

const SIGNATURE_TEXT_LEN_MAX: usize = 2_048;

/// The parts of a request that both ends know without its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestParts<'a> {
    /// The federation the request is meant for.
    pub trust_domain: &'a str,
    /// The method in capitals, such as `POST`.
    pub method: &'a str,
    /// The path with its query, exactly as in the request line.
    pub path_and_query: &'a str,
}

/// The headers that prove a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeaders {
    /// The site that claims to have signed it.
    pub site: SiteName,
    /// The fingerprint of the key it claims to have signed with.
    pub key: Digest,
    /// When it was signed, on the site's clock.
    pub timestamp: Timestamp,
    /// 128 random bits.
    pub nonce: [u8; 16],
    /// SHA-256 that the body must have.
    pub body: Digest,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Signs a request whose body has the digest `body` (that of no bytes when there is none); gives the headers to add.
///
/// # Errors
/// [`Error::InvalidArgument`] for a method or path with control characters; [`Error::Entropy`], [`Error::Crypto`].
pub fn sign_request(
    key: &SiteKey,
    site: &SiteName,
    request: &RequestParts<'_>,
    body: &Digest,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<Vec<(&'static str, String)>, Error> {
    let mut nonce = [0; 16];
    entropy.fill(&mut nonce).map_err(|source| Error::Entropy("a nonce", source))?;
    let text = text_to_sign(request, site, body, now, &nonce).ok_or_else(|| {
        Error::InvalidArgument("a request with control characters cannot be signed".to_owned())
    })?;
    let signature = key.sign(text.as_bytes())?;
    Ok(vec![
        (HEADER_SITE, site.to_string()),
        (HEADER_KEY, key.fingerprint().to_string()),
        (HEADER_TIMESTAMP, now.as_millis().to_string()),
        (HEADER_NONCE, hex::encode(nonce)),
        (HEADER_BODY, body.to_string()),
        (HEADER_SIGNATURE, URL_SAFE_NO_PAD.encode(signature)),
    ])
}

impl SignedHeaders {
    /// Reads the headers through `header`, which gives the only value of a name; `None` when the request is not signed.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`] naming the header that is missing or bad while others are there.
    pub fn read<'a>(
        header: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Result<Option<SignedHeaders>, SignatureError> {
        let names = [HEADER_SITE, HEADER_KEY, HEADER_TIMESTAMP, HEADER_NONCE, HEADER_BODY, HEADER_SIGNATURE];
        if names.iter().all(|name| header(name).is_none()) {
            return Ok(None);
        }
        let value = |name| header(name).ok_or(SignatureError::Malformed { header: name });
        Ok(Some(SignedHeaders {
            site: parsed(HEADER_SITE, value(HEADER_SITE)?)?,
            key: parsed(HEADER_KEY, value(HEADER_KEY)?)?,
            timestamp: Timestamp::from_millis(parsed(HEADER_TIMESTAMP, value(HEADER_TIMESTAMP)?)?),
            nonce: nonce_of(value(HEADER_NONCE)?)
                .ok_or(SignatureError::Malformed { header: HEADER_NONCE })?,
            body: parsed(HEADER_BODY, value(HEADER_BODY)?)?,
            signature: signature_of(value(HEADER_SIGNATURE)?)
                .ok_or(SignatureError::Malformed { header: HEADER_SIGNATURE })?,
        }))
    }

    /// Compares the digest of the body as it was read with the one that was signed.
    ///
    /// # Errors
    /// [`SignatureError::BodyMismatch`].
    pub fn check_body(&self, read: &Digest) -> Result<(), SignatureError> {
        if *read == self.body { Ok(()) } else { Err(SignatureError::BodyMismatch) }
    }
}

fn parsed<T: std::str::FromStr>(header: &'static str, text: &str) -> Result<T, SignatureError> {
    text.parse().map_err(|_| SignatureError::Malformed { header })
}

fn nonce_of(text: &str) -> Option<[u8; 16]> {
    let mut nonce = [0; 16];
    hex::decode_to_slice(text, &mut nonce).ok()?;
    Some(nonce)
}

fn signature_of(text: &str) -> Option<Vec<u8>> {
    if text.len() > SIGNATURE_TEXT_LEN_MAX {
        return None;
    }
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// The text that is signed; `None` when a part could be taken for the end of its line.
fn text_to_sign(
    request: &RequestParts<'_>,
    site: &SiteName,
    body: &Digest,
    at: Timestamp,
    nonce: &[u8; 16],
) -> Option<String> {
    let RequestParts { trust_domain, method, path_and_query } = request;
    if [trust_domain, method, path_and_query]
        .iter()
        .any(|part| part.bytes().any(|byte| byte.is_ascii_control()))
    {
        return None;
    }
    let at = at.as_millis();
    let nonce = hex::encode(nonce);
    Some(format!(
        "sheaf-request-1\n{trust_domain}\n{site}\n{method}\n{path_and_query}\n{body}\n{at}\n{nonce}\n"
    ))
}

#[cfg(test)]
mod tests;
