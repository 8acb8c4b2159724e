//! Pieces of a first model an operator hands in: room is reserved before the body is read.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use sheaf_coordinator::Handle;
use sheaf_domain::{Digest, ErrorKind};

use crate::routes::{Caller, Named};
use crate::status::Failure;

pub(crate) async fn piece(
    State(handle): State<Handle>,
    caller: Caller,
    Named((upload, digest)): Named<(String, Digest)>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<StatusCode, Failure> {
    let len = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok())
        .ok_or_else(|| Failure::new(ErrorKind::InvalidArgument, "a piece needs its Content-Length"))?;
    let mut piece = handle.operator_upload(&caller.0, &upload, len).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::new(ErrorKind::Unavailable, "the body broke off"))?;
        if let Ok(bytes) = frame.into_data() {
            piece.write(bytes).await?;
        }
    }
    piece.finish(digest).await?;
    Ok(StatusCode::CREATED)
}
