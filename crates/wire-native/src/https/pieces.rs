//! Uploading a piece: its length is declared and reserved first, its bytes are spooled as they come, its digest is its name.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http_body_util::BodyExt as _;
use sheaf_domain::{Digest, Identity, TaskId};
use sheaf_messages::{self as messages, bounds, v1};

use super::body::declared_len;
use super::{Door, answer};
use crate::{Error, Handlers};

/// How long the rest of a refused upload is read and thrown away, so that its sender sees the refusal.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The longest declared length that is drained, in bytes; beyond it the connection is simply closed.
const DRAIN_LEN_MAX: u64 = 2 * bounds::PIECE_LEN_MAX;

pub(super) async fn put(
    State(door): State<Door>,
    Path((task, digest)): Path<(String, String)>,
    request: Request,
) -> Response {
    let done = async {
        let digest = messages::digest(&digest)?;
        let task = messages::task(&task)?;
        let (parts, mut body) = request.into_parts();
        let who = door.caller_of_body(&parts, digest)?;
        let len = declared_len(&parts.headers).ok_or(Error::LengthRequired)?;
        let taken = take(&door.handlers, &who, Piece { task, digest, len }, &mut body);
        let result = door.handlers.until_revoked(&who, taken).await;
        if result.is_err() && len <= DRAIN_LEN_MAX {
            drain(body).await;
        }
        result
    };
    answer(done.await)
}

struct Piece {
    task: TaskId,
    digest: Digest,
    len: u64,
}

async fn take(
    handlers: &Handlers,
    who: &Identity,
    piece: Piece,
    body: &mut Body,
) -> Result<v1::PutPieceReply, Error> {
    let mut upload = handlers.upload(who, piece.task, piece.len).await?;
    let mut received = 0u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::Truncated { received })?;
        if let Ok(bytes) = frame.into_data() {
            received = received.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            upload.write(bytes).await?;
        }
    }
    upload.finish(piece.digest).await?;
    Ok(v1::PutPieceReply {})
}

async fn drain(mut body: Body) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whether it comes to an end or not, the refusal stands.
    let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
}
