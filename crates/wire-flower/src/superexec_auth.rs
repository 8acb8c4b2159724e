//! Authentication of SuperExec's AcquireTask: an HMAC of a shared secret over time, nonce and body.
//!
//! Pure. The key is derived from the secret file's bytes for this use alone; the signature covers method, timestamp, nonce
//! and the digest of the body as sent, and is compared in constant time. Refused by name: missing, repeated or malformed
//! headers, timestamps outside the window, another body, signatures that do not verify, nonces seen before. A nonce is
//! reserved only after the signature matched, until its window ends; a full memory refuses and forgets nothing, so that no
//! call can be replayed. Observed with flwr 1.42.0.

use std::collections::{BTreeSet, HashSet};

use http::HeaderMap;
use sheaf_domain::Digest;
use sheaf_pki::HmacKey;

/// The method a SuperExec signs for.
pub const METHOD: &str = "/flwr.proto.Runtime/AcquireTask";
/// A timestamp must be less than this ahead of the server's clock.
pub const AHEAD_S: i64 = 5;
/// A timestamp must be less than this old.
pub const BEHIND_S: i64 = 305;
/// The most nonces that are reserved at a time: more than 200 calls a second for as long as one is reserved.
pub const NONCES_MAX: usize = 65_536;

/// Why a SuperExec is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SuperExecAuthError {
    #[error("the shared secret is empty")]
    EmptySecret,
    #[error("the header {name} is missing")]
    Missing { name: &'static str },
    #[error("the header {name} is given twice")]
    Repeated { name: &'static str },
    #[error("the header {name} cannot be read")]
    Malformed { name: &'static str },
    #[error("the timestamp is {by_s} s ahead of the server's clock")]
    Ahead { by_s: i64 },
    #[error("the timestamp is {by_s} s old")]
    Expired { by_s: i64 },
    #[error("the body is not the one that was signed")]
    OtherBody,
    #[error("the signature does not verify")]
    BadSignature,
    #[error("the nonce was used before")]
    Replayed,
    #[error("{max} nonces are reserved, and no more are remembered")]
    NoncesFull { max: usize },
}

/// Verifies calls, and remembers their nonces.
#[derive(Debug)]
pub struct SuperExecVerifier {
    key: HmacKey,
    reserved: HashSet<Nonce>,
    by_end: BTreeSet<(i64, Nonce)>,
    nonces_max: usize,
}

type Nonce = [u8; 16];

impl SuperExecVerifier {
    /// A verifier for the bytes of the secret file, exactly as they are.
    ///
    /// # Errors
    /// [`SuperExecAuthError::EmptySecret`].
    pub fn new(secret: &[u8]) -> Result<SuperExecVerifier, SuperExecAuthError> {
        SuperExecVerifier::remembering(secret, NONCES_MAX)
    }

    fn remembering(secret: &[u8], nonces_max: usize) -> Result<SuperExecVerifier, SuperExecAuthError> {
        if secret.is_empty() {
            return Err(SuperExecAuthError::EmptySecret);
        }
        let key = HmacKey::new(&HmacKey::new(secret).sign(KEY_CONTEXT));
        Ok(SuperExecVerifier { key, reserved: HashSet::new(), by_end: BTreeSet::new(), nonces_max })
    }

    /// Believes a call, once. `now_s` is the server's clock in seconds since the epoch.
    ///
    /// # Errors
    /// Every [`SuperExecAuthError`] but [`SuperExecAuthError::EmptySecret`].
    pub fn verify(&mut self, headers: &HeaderMap, body: &[u8], now_s: i64) -> Result<(), SuperExecAuthError> {
        let time_s =
            seconds(one(headers, TIMESTAMP)?).ok_or(SuperExecAuthError::Malformed { name: TIMESTAMP })?;
        let nonce_text = one(headers, NONCE)?;
        let nonce: Nonce = lower_hex(nonce_text, NONCE)?;
        let claimed: [u8; 32] = lower_hex(one(headers, BODY_DIGEST)?, BODY_DIGEST)?;
        let signature: [u8; 32] = lower_hex(one(headers, SIGNATURE)?, SIGNATURE)?;
        check_window(time_s, now_s)?;
        let digest = Digest::of(body);
        if *digest.as_bytes() != claimed {
            return Err(SuperExecAuthError::OtherBody);
        }
        let signed = format!("method={METHOD}\nts={time_s}\nnonce={nonce_text}\nbody_sha256={digest}");
        if !self.key.verify(signed.as_bytes(), &signature) {
            return Err(SuperExecAuthError::BadSignature);
        }
        self.reserve(nonce, time_s.saturating_add(BEHIND_S), now_s)
    }

    fn reserve(&mut self, nonce: Nonce, end_s: i64, now_s: i64) -> Result<(), SuperExecAuthError> {
        while let Some((end_s, nonce)) = self.by_end.first().copied() {
            if end_s > now_s {
                break;
            }
            self.by_end.pop_first();
            self.reserved.remove(&nonce);
        }
        if self.reserved.contains(&nonce) {
            return Err(SuperExecAuthError::Replayed);
        }
        if self.reserved.len() >= self.nonces_max {
            return Err(SuperExecAuthError::NoncesFull { max: self.nonces_max });
        }
        self.reserved.insert(nonce);
        self.by_end.insert((end_s, nonce));
        Ok(())
    }
}

fn check_window(time_s: i64, now_s: i64) -> Result<(), SuperExecAuthError> {
    let age_s = now_s.saturating_sub(time_s);
    if age_s <= -AHEAD_S {
        return Err(SuperExecAuthError::Ahead { by_s: age_s.saturating_neg() });
    }
    if age_s >= BEHIND_S { Err(SuperExecAuthError::Expired { by_s: age_s }) } else { Ok(()) }
}

fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, SuperExecAuthError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(SuperExecAuthError::Missing { name })?;
    if values.next().is_some() {
        return Err(SuperExecAuthError::Repeated { name });
    }
    value.to_str().map_err(|_| SuperExecAuthError::Malformed { name })
}

/// Reads seconds since the epoch, as written by every clock since 1970: digits without a leading zero.
fn seconds(text: &str) -> Option<i64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn lower_hex<const LEN: usize>(text: &str, name: &'static str) -> Result<[u8; LEN], SuperExecAuthError> {
    let malformed = SuperExecAuthError::Malformed { name };
    let mut bytes = [0; LEN];
    let read = hex::decode_to_slice(text, &mut bytes);
    if read.is_err() || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Err(malformed)
    } else {
        Ok(bytes)
    }
}

const KEY_CONTEXT: &[u8] = b"superexec-auth-v1";
const TIMESTAMP: &str = "flwr-superexec-ts";
const NONCE: &str = "flwr-superexec-nonce";
const BODY_DIGEST: &str = "flwr-superexec-body-sha256";
const SIGNATURE: &str = "flwr-superexec-signature";

#[cfg(test)]
mod tests;
