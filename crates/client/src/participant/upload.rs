//! Handing in a result: the pieces the server does not have, then the submission. May be begun again at any point.

use std::path::Path;

use sheaf_domain::{Digest, ErrorKind, SubmitOutcome};
use sheaf_messages::{bounds, outcome_from_wire, submission_to_wire, v1};
use sheaf_runtime::Compute;
use sheaf_runtime::crash::{self, Point};

use super::results::{Piece, StoredResult};
use crate::Error;
use crate::transport::{Retry, Transport};

/// Uploads what is missing and submits; returns what became of it and how many bytes were sent.
pub(crate) async fn hand_in(
    transport: &dyn Transport,
    retry: &Retry,
    compute: &Compute,
    result: &StoredResult,
    dir: &Path,
) -> Result<(SubmitOutcome, u64), Error> {
    let sent = match upload(transport, retry, compute, result, dir).await {
        Ok(sent) => sent,
        // The task is no longer open: an earlier submission was accepted, or it came too late. The submission tells.
        Err(error) if error.kind() == ErrorKind::Conflict => 0,
        Err(error) => return Err(error),
    };
    let request = submission_to_wire(&result.submission()?);
    let reply = retry.run(|| transport.submit(request.clone())).await?;
    let outcome = outcome_from_wire(reply).map_err(|error| Error::bad_answer("submit", error))?;
    Ok((outcome, sent))
}

async fn upload(
    transport: &dyn Transport,
    retry: &Retry,
    compute: &Compute,
    result: &StoredResult,
    dir: &Path,
) -> Result<u64, Error> {
    let pieces = result.pieces(dir);
    let mut sent = 0;
    for group in pieces.chunks(bounds::DIGESTS_MAX) {
        let missing = missing(transport, retry, result, group).await?;
        for piece in group.iter().filter(|piece| missing.contains(&piece.digest)) {
            let read = piece.clone();
            let bytes = compute.run(move || read.read()).await;
            let bytes = bytes.map_err(|error| Error::Internal(error.to_string()))??;
            let put = || transport.put_piece(result.task(), piece.digest, bytes.clone());
            retry.run(put).await?;
            crash::reached(Point::PieceUploaded);
            sent += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
    }
    Ok(sent)
}

async fn missing(
    transport: &dyn Transport,
    retry: &Retry,
    result: &StoredResult,
    pieces: &[Piece],
) -> Result<std::collections::HashSet<Digest>, Error> {
    if pieces.is_empty() {
        return Ok(std::collections::HashSet::new());
    }
    let request = v1::MissingRequest {
        task: result.task().to_string(),
        digests: pieces.iter().map(|piece| piece.digest.to_string()).collect(),
    };
    let reply = retry.run(|| transport.missing(request.clone())).await?;
    let digests = sheaf_messages::digests(&reply.digests);
    Ok(digests.map_err(|error| Error::bad_answer("missing", error))?.into_iter().collect())
}
