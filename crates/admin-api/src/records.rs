//! Records: journals, their signed ends, replay, backup, and this API's own document.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;
use sheaf_coordinator::{BackupReport, Handle, ReplayReport};
use sheaf_domain::{ErrorKind, Span};

use crate::routes::{Asked, Caller, JsonBody, Named};
use crate::status::Failure;
use crate::{BackupBody, HeadBody, JournalBody};

const OPENAPI: &str = include_str!("../../../docs/openapi/admin.v1.json");

/// Which entries are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    after: u64,
    #[serde(default = "default_limit")]
    limit: u32,
    #[serde(default)]
    hold_ms: u64,
}

fn default_limit() -> u32 {
    256
}

pub(crate) async fn entries(
    State(handle): State<Handle>,
    caller: Caller,
    Named(journal): Named<String>,
    Asked(page): Asked<Page>,
) -> Result<Json<JournalBody>, Failure> {
    let journal = handle.find_journal(&caller.0, &journal).await?;
    let hold = Span::from_millis(page.hold_ms);
    let entries = handle.journal(&caller.0, journal, page.after, page.limit, hold).await?;
    Ok(Json(JournalBody { entries }))
}

pub(crate) async fn head(
    State(handle): State<Handle>,
    caller: Caller,
    Named(journal): Named<String>,
) -> Result<Json<HeadBody>, Failure> {
    let journal = handle.find_journal(&caller.0, &journal).await?;
    let head = handle.signed_head(&caller.0, journal).await?;
    Ok(Json(HeadBody {
        journal: head.journal.to_string(),
        seq: head.seq,
        hash: head.hash,
        signature: head.signature.iter().map(|byte| format!("{byte:02x}")).collect(),
        at: head.at,
        public_key: handle.journal_key_pem(),
    }))
}

pub(crate) async fn replay(
    State(handle): State<Handle>,
    caller: Caller,
    Named(run): Named<String>,
) -> Result<Json<ReplayReport>, Failure> {
    let run = handle.find_run(&caller.0, &run).await?;
    Ok(Json(handle.replay(&caller.0, run).await?))
}

pub(crate) async fn backup(
    State(handle): State<Handle>,
    caller: Caller,
    JsonBody(body): JsonBody<BackupBody>,
) -> Result<Json<BackupReport>, Failure> {
    if !body.dir.is_absolute() {
        let message = "name the backup directory by its absolute path on the server's machine";
        return Err(Failure::new(ErrorKind::InvalidArgument, message));
    }
    Ok(Json(handle.backup(&caller.0, body.dir).await?))
}

pub(crate) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}
