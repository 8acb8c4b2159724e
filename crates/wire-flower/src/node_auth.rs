//! Node authentication: who signed a call, and when.
//!
//! A node sends its public key (PEM), a timestamp and an ECDSA signature with SHA-256 over the timestamp's ASCII alone.
//! Refused by name: missing or repeated headers, keys that are no P-256 or P-384, timestamps outside the window,
//! signatures that do not verify. A verified triple is remembered until its window ends, in a memory with a bound; a key
//! verified on a connection of our own TLS may be remembered there by [`KnownKey`], the timestamp being checked always.
//! Observed with flwr 1.42.0.

use std::collections::{BTreeSet, HashMap};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::HeaderMap;
use sheaf_domain::Digest;
use sheaf_pki::PublicKey;

use crate::timestamp::parse_isoformat_us;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The longest header value read, in bytes.
pub const HEADER_LEN_MAX: usize = 2_048;

/// Why a node is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NodeAuthError {
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
    #[error("the public key is not accepted: {reason}")]
    Key { reason: String },
    #[error("the signature does not verify")]
    BadSignature,
}

/// The three headers of a call, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NodeHeaders {
    /// PEM, as sent.
    pub public_key: Bytes,
    pub timestamp: String,
    pub signature: Bytes,
}

impl NodeHeaders {
    /// Reads the headers of an HTTP call: base64.
    ///
    /// # Errors
    /// [`NodeAuthError::Missing`], [`NodeAuthError::Repeated`], [`NodeAuthError::Malformed`].
    pub fn of_http(headers: &HeaderMap) -> Result<NodeHeaders, NodeAuthError> {
        NodeHeaders::read(headers, "flwr-public-key", "flwr-signature")
    }

    /// Reads the headers of a gRPC call: binary headers, padded or not.
    ///
    /// # Errors
    /// As [`NodeHeaders::of_http`].
    pub fn of_grpc(headers: &HeaderMap) -> Result<NodeHeaders, NodeAuthError> {
        NodeHeaders::read(headers, "flwr-public-key-bin", "flwr-signature-bin")
    }

    fn read(
        headers: &HeaderMap,
        key: &'static str,
        signature: &'static str,
    ) -> Result<NodeHeaders, NodeAuthError> {
        let decode = |name: &'static str| -> Result<Bytes, NodeAuthError> {
            let text = one(headers, name)?;
            LENIENT.decode(text).map(Bytes::from).map_err(|_| NodeAuthError::Malformed { name })
        };
        Ok(NodeHeaders {
            public_key: decode(key)?,
            timestamp: one(headers, "flwr-timestamp")?.to_owned(),
            signature: decode(signature)?,
        })
    }

    fn name(&self) -> Digest {
        let parts: [&[u8]; 3] = [&self.public_key, self.timestamp.as_bytes(), &self.signature];
        let mut whole = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            whole.extend_from_slice(&(part.len() as u64).to_be_bytes());
            whole.extend_from_slice(part);
        }
        Digest::of(&whole)
    }
}

fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, NodeAuthError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(NodeAuthError::Missing { name })?;
    if values.next().is_some() {
        return Err(NodeAuthError::Repeated { name });
    }
    let text = value.to_str().map_err(|_| NodeAuthError::Malformed { name })?;
    if text.len() > HEADER_LEN_MAX { Err(NodeAuthError::Malformed { name }) } else { Ok(text) }
}

/// How far a timestamp may be from the server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Window {
    pub ahead_us: i64,
    pub behind_us: i64,
}

impl Default for Window {
    fn default() -> Window {
        Window { ahead_us: 5_000_000, behind_us: 305_000_000 }
    }
}

impl Window {
    /// When the timestamp of a call falls out of the window, in microseconds since the epoch.
    pub fn end_us(self, headers: &NodeHeaders) -> Option<i64> {
        Some(parse_isoformat_us(&headers.timestamp)?.saturating_add(self.behind_us))
    }

    /// Checks a time against the clock; both in microseconds since the epoch. Both ends are excluded.
    ///
    /// # Errors
    /// [`NodeAuthError::Ahead`], [`NodeAuthError::Expired`].
    pub fn check(self, time_us: i64, now_us: i64) -> Result<(), NodeAuthError> {
        let age_us = now_us.saturating_sub(time_us);
        if age_us <= -self.ahead_us {
            return Err(NodeAuthError::Ahead { by_s: age_us.saturating_neg() / 1_000_000 });
        }
        if age_us >= self.behind_us {
            return Err(NodeAuthError::Expired { by_s: age_us / 1_000_000 });
        }
        Ok(())
    }
}

/// The key verified on one connection of our own TLS; the first, while it is not forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownKey(Option<Bytes>);

impl KnownKey {
    /// Whether these are the bytes of the key verified here.
    pub fn is(&self, public_key: &[u8]) -> bool {
        self.0.as_deref() == Some(public_key)
    }

    /// Takes a key whose signature was verified, if none is known; tells whether it did.
    pub fn bind(&mut self, public_key: &Bytes) -> bool {
        let free = self.0.is_none();
        if free {
            self.0 = Some(public_key.clone());
        }
        free
    }

    /// Forgets the key.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

/// A believed caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedNode {
    /// The key's PEM, exactly as sent.
    pub public_key: Bytes,
}

/// Verifies calls, and remembers what it verified.
#[derive(Debug)]
pub struct NodeVerifier {
    window: Window,
    verified: HashMap<Digest, i64>,
    by_end: BTreeSet<(i64, Digest)>,
    remembered_max: usize,
}

impl NodeVerifier {
    /// A verifier that remembers at most `remembered_max` triples.
    pub fn new(window: Window, remembered_max: usize) -> NodeVerifier {
        NodeVerifier { window, verified: HashMap::new(), by_end: BTreeSet::new(), remembered_max }
    }

    /// Checks everything that costs little: the timestamp, then what is remembered. `None` means that the signature
    /// must still be verified, with [`verify_signature`], outside any lock, and then reported to [`Self::remember`]. `known` says that the
    /// key was verified on this very connection, see [`KnownKey`].
    ///
    /// # Errors
    /// [`NodeAuthError::Malformed`], [`NodeAuthError::Ahead`], [`NodeAuthError::Expired`].
    pub fn quick(
        &mut self,
        headers: &NodeHeaders,
        known: bool,
        now_us: i64,
    ) -> Result<Option<VerifiedNode>, NodeAuthError> {
        let time_us = parse_isoformat_us(&headers.timestamp)
            .ok_or(NodeAuthError::Malformed { name: "flwr-timestamp" })?;
        self.window.check(time_us, now_us)?;
        self.expire(now_us);
        let believed = known || self.verified.contains_key(&headers.name());
        Ok(believed.then(|| VerifiedNode { public_key: headers.public_key.clone() }))
    }

    /// Remembers a triple whose signature was verified.
    pub fn remember(&mut self, headers: &NodeHeaders) {
        let Some(end_us) = self.window.end_us(headers) else { return };
        let name = headers.name();
        if self.remembered_max == 0 || self.verified.insert(name, end_us).is_some() {
            return;
        }
        self.by_end.insert((end_us, name));
        if self.verified.len() > self.remembered_max
            && let Some((_, name)) = self.by_end.pop_first()
        {
            self.verified.remove(&name);
        }
    }

    fn expire(&mut self, now_us: i64) {
        while let Some((end_us, name)) = self.by_end.first().copied() {
            if end_us > now_us {
                break;
            }
            self.by_end.pop_first();
            self.verified.remove(&name);
        }
    }

    /// How many triples are remembered.
    pub fn remembered(&self) -> usize {
        self.verified.len()
    }
}

/// Verifies the signature of a call: the dear part.
///
/// # Errors
/// [`NodeAuthError::Key`], [`NodeAuthError::BadSignature`].
pub fn verify_signature(headers: &NodeHeaders) -> Result<VerifiedNode, NodeAuthError> {
    let refused = |reason: String| NodeAuthError::Key { reason };
    let pem = std::str::from_utf8(&headers.public_key).map_err(|_| refused("it is not PEM".to_owned()))?;
    let key = PublicKey::from_pem(pem).map_err(|error| refused(error.to_string()))?;
    match key.verify_ecdsa_sha256("the call", headers.timestamp.as_bytes(), &headers.signature) {
        Ok(()) => Ok(VerifiedNode { public_key: headers.public_key.clone() }),
        Err(error @ sheaf_pki::Error::UnsupportedKey { .. }) => Err(refused(error.to_string())),
        Err(_) => Err(NodeAuthError::BadSignature),
    }
}

#[cfg(test)]
mod tests;
