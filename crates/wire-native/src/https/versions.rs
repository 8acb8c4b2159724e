//! Reading a version's canonical byte stream, whole or by range; never held in memory whole.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use sheaf_domain::{ByteSpan, Digest, Identity, VersionRef};
use sheaf_messages::{self as messages, v1};

use super::Door;
use super::range::{Wanted, wanted};
use crate::status::to_response;
use crate::{Error, Handlers};

/// How much of a stream is read at once, in bytes.
const READ_LEN: u64 = 1024 * 1024;

pub(super) async fn read(
    State(door): State<Door>,
    Path((run, lineage, version)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let done = async {
        let (parts, _) = request.into_parts();
        let who = door.caller_of_body(&parts, Digest::of(b""))?;
        let version =
            version.parse().map_err(|_| Error::Protocol("the version in the path is not a number"))?;
        let version = messages::version_from_wire(Some(&v1::Version { run, lineage, version }))?;
        let total = door.handlers.version_len(&who, &version).await?;
        let wanted = wanted(&parts.headers, total)?;
        respond(door.handlers.clone(), who, version, total, wanted).await
    };
    done.await.unwrap_or_else(|error| to_response(&error))
}

async fn respond(
    handlers: Handlers,
    who: Identity,
    version: VersionRef,
    total: u64,
    wanted: Wanted,
) -> Result<Response, Error> {
    let (offset, len) = match wanted {
        Wanted::Whole => (0, total),
        Wanted::Part { offset, len } => (offset, len),
    };
    let mut reading = Reading { handlers, who, version, offset, left: len };
    // What fails at once fails as a status, not as a broken body.
    let first = reading.step().await?;
    let rest = stream::try_unfold((first, reading), async |(ready, mut reading)| match ready {
        None => Ok(None),
        Some(bytes) => {
            let next = reading.step().await?;
            Ok::<_, Error>(Some((bytes, (next, reading))))
        }
    });
    let mut response = Response::new(Body::from_stream(rest));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Wanted::Part { offset, len } = wanted {
        let last = offset.saturating_add(len).saturating_sub(1);
        if let Ok(range) = HeaderValue::try_from(format!("bytes {offset}-{last}/{total}")) {
            headers.insert(header::CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// A read under way; role and revocation are checked with every step.
struct Reading {
    handlers: Handlers,
    who: Identity,
    version: VersionRef,
    offset: u64,
    left: u64,
}

impl Reading {
    async fn step(&mut self) -> Result<Option<Bytes>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let span = ByteSpan { offset: self.offset, len: self.left.min(READ_LEN) };
        let bytes = self.handlers.read_version(&self.who, &self.version, span).await?;
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if len != span.len {
            return Err(Error::Protocol("the version is shorter than its manifest says"));
        }
        self.offset = self.offset.saturating_add(len);
        self.left = self.left.saturating_sub(len);
        Ok(Some(bytes))
    }
}
