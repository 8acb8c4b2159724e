//! The server's check of signed requests: fresh, signed by the site's registered key, seen for the first time.
//!
//! Nothing is persisted. A nonce is remembered for as long as its request is fresh; a request signed before this verifier
//! started, or so soon after that an earlier life could have taken it, is refused, and the client signs again. Only a
//! request whose signature verifies takes up memory, and no key more than an eighth of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use sheaf_domain::{Digest, ErrorKind, Span, Timestamp};

use super::{RequestParts, SignedHeaders, text_to_sign};
use crate::PublicKey;

/// How far a site's clock may be ahead of the server's. After a start, requests are refused for this long, since a clock
/// ahead by this much could have signed them for the life before.
pub const AHEAD_MAX: Span = Span::from_secs(5);

/// Why a signed request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// A header of the signature is missing or cannot be read.
    #[error("the header {header} is missing or malformed")]
    Malformed {
        /// The header.
        header: &'static str,
    },
    /// The registered key is not the one the request names.
    #[error("the request names another key than the one registered for this site")]
    OtherKey,
    /// The site's clock and the server's differ by too much, or the request was held up on the way.
    #[error(
        "the request was signed {skew} {} the server's time, more than the {allowed} allowed: set the site's clock",
        if *ahead { "ahead of" } else { "behind" }
    )]
    Skewed {
        /// By how much they differ.
        skew: Span,
        /// Whether the site is ahead.
        ahead: bool,
        /// What is allowed in this direction.
        allowed: Span,
    },
    /// Signed before the server started, or so soon after that it may have been taken before.
    #[error(
        "the request was signed before the server was ready to tell it from a repeated one: sign again in {retry_after}"
    )]
    BeforeStart {
        /// When a newly signed one is taken.
        retry_after: Span,
    },
    /// The signature is not the key's, or what it covers was changed.
    #[error("the request's signature does not verify")]
    Invalid,
    /// The body is not the one that was signed.
    #[error("the request's body is not the one that was signed")]
    BodyMismatch,
    /// The same request came before.
    #[error("the request came before: a signed request is taken once")]
    Replayed,
    /// No room to remember another request.
    #[error("too many signed requests within {window}: try again later")]
    Full {
        /// For how long requests are remembered.
        window: Span,
    },
}

impl SignatureError {
    /// What sort of failure this is; the transient ones go away when the client signs again later.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SignatureError::Malformed { .. } | SignatureError::BodyMismatch => ErrorKind::InvalidArgument,
            SignatureError::BeforeStart { .. } => ErrorKind::Unavailable,
            SignatureError::Full { .. } => ErrorKind::Exhausted,
            SignatureError::OtherKey
            | SignatureError::Skewed { .. }
            | SignatureError::Invalid
            | SignatureError::Replayed => ErrorKind::Unauthenticated,
        }
    }
}

/// Checks signed requests; one per server, shared by its front-ends.
#[derive(Debug)]
pub struct RequestVerifier {
    window: Span,
    nonces_max: usize,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    /// Nothing signed at or before this instant is taken.
    floor: Timestamp,
    seen: HashSet<(Digest, [u8; 16])>,
    by_time: BTreeSet<(Timestamp, Digest, [u8; 16])>,
    per_key: HashMap<Digest, usize>,
}

impl RequestVerifier {
    /// A verifier that takes requests at most `window` old and remembers at most `nonces_max` of them.
    ///
    /// `started_at` is the server's start. Requests are taken from [`AHEAD_MAX`] after it on; a server that never ran
    /// before (a new data directory, a test) has nothing to tell apart and passes `Timestamp::default()`.
    pub fn new(window: Span, nonces_max: usize, started_at: Timestamp) -> RequestVerifier {
        let floor = if started_at == Timestamp::default() { started_at } else { started_at.after(AHEAD_MAX) };
        let memory =
            Memory { floor, seen: HashSet::new(), by_time: BTreeSet::new(), per_key: HashMap::new() };
        RequestVerifier { window, nonces_max: nonces_max.max(1), memory: Mutex::new(memory) }
    }

    /// Checks that the holder of `public_key_spki_der` signed this request just now, and for the first time.
    ///
    /// The caller has looked the key up by `headers.key` and checks that it belongs to `headers.site`; once the body is
    /// read it must call [`SignedHeaders::check_body`].
    ///
    /// # Errors
    /// [`SignatureError`]; a refused request is not remembered.
    pub fn verify(
        &self,
        headers: &SignedHeaders,
        request: &RequestParts<'_>,
        public_key_spki_der: &[u8],
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        self.check_fresh(headers.timestamp, now)?;
        let key = PublicKey::from_spki_der(public_key_spki_der).map_err(|_| SignatureError::OtherKey)?;
        if key.fingerprint() != headers.key {
            return Err(SignatureError::OtherKey);
        }
        let text = text_to_sign(request, &headers.site, &headers.body, headers.timestamp, &headers.nonce)
            .ok_or(SignatureError::Invalid)?;
        key.verify("the request", text.as_bytes(), &headers.signature)
            .map_err(|_| SignatureError::Invalid)?;
        self.remember(headers, now)
    }

    fn check_fresh(&self, signed: Timestamp, now: Timestamp) -> Result<(), SignatureError> {
        let ahead_allowed = self.window.min(AHEAD_MAX);
        if signed > now.after(ahead_allowed) {
            return Err(SignatureError::Skewed {
                skew: signed.since(now),
                ahead: true,
                allowed: ahead_allowed,
            });
        }
        if now > signed.after(self.window) {
            return Err(SignatureError::Skewed {
                skew: now.since(signed),
                ahead: false,
                allowed: self.window,
            });
        }
        Ok(())
    }

    fn remember(&self, headers: &SignedHeaders, now: Timestamp) -> Result<(), SignatureError> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.forget_expired(now, self.window);
        if headers.timestamp <= memory.floor {
            let retry_after = memory.floor.after(Span::from_millis(1)).since(now);
            return Err(SignatureError::BeforeStart { retry_after: retry_after.max(Span::from_millis(1)) });
        }
        if memory.seen.contains(&(headers.key, headers.nonce)) {
            return Err(SignatureError::Replayed);
        }
        let of_key = memory.per_key.get(&headers.key).copied().unwrap_or(0);
        if memory.seen.len() >= self.nonces_max || of_key >= self.nonces_max.div_ceil(8) {
            return Err(SignatureError::Full { window: self.window });
        }
        memory.seen.insert((headers.key, headers.nonce));
        memory.by_time.insert((headers.timestamp, headers.key, headers.nonce));
        memory.per_key.insert(headers.key, of_key.saturating_add(1));
        Ok(())
    }
}

impl Memory {
    /// Drops what is no longer fresh, and moves the floor over it: should the clock step back, it stays refused.
    fn forget_expired(&mut self, now: Timestamp, window: Span) {
        while let Some((signed, key, nonce)) = self.by_time.first().copied() {
            if signed.after(window) >= now {
                return;
            }
            self.by_time.pop_first();
            self.seen.remove(&(key, nonce));
            self.floor = self.floor.max(signed);
            if let Some(count) = self.per_key.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.per_key.remove(&key);
                }
            }
        }
    }
}
