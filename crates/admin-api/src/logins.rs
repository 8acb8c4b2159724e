//! Logins of operators from elsewhere: who is logged in, approval, and their end.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use sheaf_coordinator::{Handle, LoginOverview};
use sheaf_domain::SiteName;

use crate::LoginBody;
use crate::routes::{Caller, JsonBody, Named};
use crate::status::Failure;

pub(crate) async fn list(
    State(handle): State<Handle>,
    caller: Caller,
) -> Result<Json<Vec<LoginOverview>>, Failure> {
    Ok(Json(handle.logins(&caller.0)?))
}

pub(crate) async fn approve(
    State(handle): State<Handle>,
    caller: Caller,
    Named(code): Named<String>,
    JsonBody(body): JsonBody<LoginBody>,
) -> Result<Json<LoginOverview>, Failure> {
    Ok(Json(handle.approve_login(&caller.0, &code, body.name, body.validity)?))
}

pub(crate) async fn end(
    State(handle): State<Handle>,
    caller: Caller,
    Named(name): Named<SiteName>,
) -> Result<StatusCode, Failure> {
    handle.end_login(&caller.0, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
