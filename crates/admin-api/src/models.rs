//! Models: what they are, and their bytes as one stream read from the store piece by piece.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sheaf_coordinator::{Handle, ModelRef, Which};
use sheaf_domain::{ByteSpan, ErrorKind, Identity};

use crate::ModelBody;
use crate::routes::{Asked, Caller, Named};
use crate::status::Failure;

/// How much is read at once, in bytes.
const STRIDE: u64 = 1024 * 1024;

pub(crate) async fn facts(
    State(handle): State<Handle>,
    caller: Caller,
    Named((run, which)): Named<(String, String)>,
) -> Result<Json<ModelBody>, Failure> {
    let model = find(&handle, &caller.0, &run, &which).await?;
    Ok(Json(ModelBody {
        bytes: model.manifest.byte_len(),
        tensors: model.manifest.specs().cloned().collect(),
        digest: model.digest,
        version: model.version,
    }))
}

/// Where a stream begins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct From {
    #[serde(default)]
    offset: u64,
}

pub(crate) async fn bytes(
    State(handle): State<Handle>,
    caller: Caller,
    Named((run, which)): Named<(String, String)>,
    Asked(from): Asked<From>,
) -> Result<Response, Failure> {
    let model = find(&handle, &caller.0, &run, &which).await?;
    let total = model.manifest.byte_len();
    if from.offset > total {
        let message = format!("the model has {total} bytes; none is at {}", from.offset);
        return Err(Failure::new(ErrorKind::InvalidArgument, message));
    }
    let reader = (handle, caller.0, model.version, from.offset);
    let stream = futures_util::stream::try_unfold(reader, move |(handle, who, version, offset)| async move {
        if offset >= total {
            return Ok(None);
        }
        let span = ByteSpan { offset, len: STRIDE.min(total - offset) };
        let part = handle.read_version(&who, &version, span).await?;
        let next = offset + part.len() as u64;
        Ok::<_, sheaf_coordinator::Error>(Some((part, (handle, who, version, next))))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, (total - from.offset).to_string()),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

async fn find(handle: &Handle, who: &Identity, run: &str, which: &str) -> Result<ModelRef, Failure> {
    let run = handle.find_run(who, run).await?;
    let which = match which {
        "best" => Which::Best,
        "last" => Which::Last,
        round => Which::Round(round.parse().map_err(|_| {
            Failure::new(
                ErrorKind::InvalidArgument,
                format!("{round:?} is neither best, last nor a round's number"),
            )
        })?),
    };
    Ok(handle.model(who, run, which).await?)
}
