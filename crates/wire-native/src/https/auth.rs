//! Who makes a request: the client certificate of its connection, or a signature over the request itself.
//!
//! A signature is checked from the headers alone, before the body is read; it covers the body's digest, which is compared with
//! the body once that is in.

use axum::extract::Request;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request as HttpRequest};
use serde::de::DeserializeOwned;
use sheaf_domain::{Digest, Identity};
use sheaf_messages::Listed;
use sheaf_pki::{RequestParts, SignedHeaders};

use super::{Door, body};
use crate::Error;
use crate::peer::{Ended, PeerIdentity, check_end};

/// A caller, and the digest its body must have if it signed one.
pub(super) struct Caller {
    who: Identity,
    body: Option<Digest>,
}

impl Door {
    /// Reads a control message and who sends it.
    pub(super) async fn message<T: DeserializeOwned + Listed>(
        &self,
        request: Request,
        limit: usize,
    ) -> Result<(Identity, T), Error> {
        self.message_from(request, limit, Ended::Refused).await
    }

    /// As [`Door::message`], from a caller whose certificate may have ended.
    pub(super) async fn message_from<T: DeserializeOwned + Listed>(
        &self,
        request: Request,
        limit: usize,
        ended: Ended,
    ) -> Result<(Identity, T), Error> {
        let (who, content) = self.content_from(request, limit, ended).await?;
        let message = body::parse(&content).inspect_err(|error| self.note(&who, error))?;
        Ok((who, message))
    }

    /// Reads a body and who sends it.
    pub(super) async fn content_from(
        &self,
        request: Request,
        limit: usize,
        ended: Ended,
    ) -> Result<(Identity, Bytes), Error> {
        let (parts, body) = request.into_parts();
        let Caller { who, body: signed } = self.caller(&parts, ended)?;
        let content = body::content(HttpRequest::from_parts(parts, body), limit, signed).await;
        content.inspect_err(|error| self.note(&who, error)).map(|content| (who, content))
    }

    /// Notes a body that is no message, where operators see it.
    fn note(&self, who: &Identity, error: &Error) {
        if matches!(error, Error::Json(_) | Error::BodyTooLarge { .. }) {
            self.handlers.handle().note_malformed(who, &error.to_string());
        }
    }

    /// Who makes a request whose body has the digest `expected` (that of no bytes when there is none).
    pub(super) fn caller_of_body(&self, parts: &Parts, expected: Digest) -> Result<Identity, Error> {
        let caller = self.caller(parts, Ended::Refused)?;
        if caller.body.is_some_and(|signed| signed != expected) {
            return Err(self.bad_signature(sheaf_pki::SignatureError::BodyMismatch));
        }
        Ok(caller.who)
    }

    fn caller(&self, parts: &Parts, ended: Ended) -> Result<Caller, Error> {
        let now = self.handlers.clock().now();
        let peer = parts.extensions.get::<PeerIdentity>();
        if peer.is_some_and(|peer| peer.0.is_some()) {
            let who = PeerIdentity::caller(peer, now, ended)?;
            return Ok(Caller { who, body: None });
        }
        let header = |name| single(&parts.headers, name);
        match SignedHeaders::read(header).map_err(|error| self.bad_signature(error))? {
            Some(signed) => self.signer(parts, &signed, ended),
            None => Err(Error::Unauthenticated(
                "a client certificate of this federation or a signed request is needed".to_owned(),
            )),
        }
    }

    fn signer(&self, parts: &Parts, signed: &SignedHeaders, ended: Ended) -> Result<Caller, Error> {
        let now = self.handlers.clock().now();
        let handle = self.handlers.handle();
        // An unknown key and a key of another site are answered alike.
        let facts = handle.signing_key(&signed.key).filter(|facts| facts.site == signed.site);
        let facts = facts.ok_or_else(|| self.bad_signature(sheaf_pki::SignatureError::OtherKey))?;
        let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = RequestParts {
            trust_domain: handle.trust_domain(),
            method: parts.method.as_str(),
            path_and_query,
        };
        let verified = self.verifier.verify(signed, &request, &facts.public_key_der, now);
        verified.map_err(|error| self.bad_signature(error))?;
        check_end(facts.not_after, now, ended)?;
        let who = Identity {
            trust_domain: handle.trust_domain().to_owned(),
            name: facts.site,
            role: facts.role,
            key_fingerprint: signed.key,
        };
        Ok(Caller { who, body: Some(signed.body) })
    }

    fn bad_signature(&self, error: sheaf_pki::SignatureError) -> Error {
        Error::Signature { error, server_time: Some(self.handlers.clock().now()) }
    }
}

/// The only value of a header; a repeated one is none.
fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}
