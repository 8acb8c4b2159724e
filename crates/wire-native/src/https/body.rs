//! Bodies of control messages: bounded before they are read, checked against their signature before they are parsed.

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use sheaf_domain::Digest;
use sheaf_messages::Listed;
use sheaf_pki::SignatureError;

use crate::Error;

/// Reads a JSON message of at most `limit` bytes whose digest, if one was signed, is `signed`.
pub(super) async fn message<T: DeserializeOwned + Listed>(
    request: Request,
    limit: usize,
    signed: Option<Digest>,
) -> Result<T, Error> {
    parse(&content(request, limit, signed).await?)
}

/// Reads a body of at most `limit` bytes whose digest, if one was signed, is `signed`.
pub(super) async fn content(request: Request, limit: usize, signed: Option<Digest>) -> Result<Bytes, Error> {
    let (parts, body) = request.into_parts();
    let bytes = collect(&parts.headers, body, limit).await?;
    if signed.is_some_and(|signed| signed != Digest::of(&bytes)) {
        let error = SignatureError::BodyMismatch;
        return Err(Error::Signature { error, server_time: None });
    }
    Ok(bytes)
}

/// Reads a JSON message, which must be an object.
///
/// # Errors
/// [`Error::Json`].
pub fn parse<T: DeserializeOwned + Listed>(bytes: &[u8]) -> Result<T, Error> {
    sheaf_messages::decode_json(bytes).map_err(|error| Error::Json(error.to_string()))
}

/// The declared length of a body, if it declares one.
pub(super) fn declared_len(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Error> {
    let within = u64::try_from(limit).unwrap_or(u64::MAX);
    if declared_len(headers).is_some_and(|len| len > within) {
        return Err(Error::BodyTooLarge { limit });
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::BodyTooLarge { limit }),
        Err(_) => Err(Error::Truncated { received: 0 }),
    }
}
