//! Sites: who they are, invitations, approval, revocation.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use sheaf_coordinator::{Handle, InviteRequest, SiteOverview};
use sheaf_domain::{ErrorKind, Identity, Role, SiteName};

use crate::routes::{Caller, JsonBody, Named};
use crate::status::Failure;
use crate::{ApproveBody, InviteBody, KitBody, ReasonBody};

pub(crate) async fn list(
    State(handle): State<Handle>,
    caller: Caller,
) -> Result<Json<Vec<SiteOverview>>, Failure> {
    Ok(Json(handle.sites(&caller.0).await?))
}

pub(crate) async fn whoami(State(handle): State<Handle>, caller: Caller) -> Result<Json<Identity>, Failure> {
    handle.authorise(&caller.0, Role::Operator)?;
    Ok(Json(caller.0))
}

pub(crate) async fn invite(
    State(handle): State<Handle>,
    caller: Caller,
    JsonBody(body): JsonBody<InviteBody>,
) -> Result<(StatusCode, Json<KitBody>), Failure> {
    let request = InviteRequest { site: body.site, ttl: body.ttl, approve: body.approve };
    let kit = handle.invite(&caller.0, request).await?;
    let text = kit.to_text().map_err(|error| Failure::new(ErrorKind::Internal, error.to_string()))?;
    let kit = text.expose_text().unwrap_or_default().to_owned();
    Ok((StatusCode::CREATED, Json(KitBody { kit })))
}

pub(crate) async fn approve(
    State(handle): State<Handle>,
    caller: Caller,
    Named(site): Named<SiteName>,
    JsonBody(body): JsonBody<ApproveBody>,
) -> Result<StatusCode, Failure> {
    handle.approve(&caller.0, &site, body.fingerprint).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn revoke(
    State(handle): State<Handle>,
    caller: Caller,
    Named(site): Named<SiteName>,
    JsonBody(body): JsonBody<ReasonBody>,
) -> Result<StatusCode, Failure> {
    handle.revoke(&caller.0, &site, body.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}
