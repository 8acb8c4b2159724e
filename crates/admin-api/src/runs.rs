//! Runs: create, list, watch, stop, extend, remove.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use sheaf_coordinator::{CreateRun, Force, Handle, RemovedRun};
use sheaf_domain::plan::Plan;
use sheaf_domain::{ErrorKind, JournalId, Role, RunStatus};

use crate::routes::{Caller, JsonBody, Named};
use crate::status::Failure;
use crate::{CreateRunBody, CreatedRun, ExtendBody, PlanBody, PlanSummary, ReasonBody, RemoveBody};

pub(crate) async fn list(
    State(handle): State<Handle>,
    caller: Caller,
) -> Result<Json<Vec<RunStatus>>, Failure> {
    Ok(Json(handle.runs(&caller.0).await?))
}

pub(crate) async fn create(
    State(handle): State<Handle>,
    caller: Caller,
    JsonBody(body): JsonBody<CreateRunBody>,
) -> Result<(StatusCode, Json<CreatedRun>), Failure> {
    let from = match &body.from {
        Some(from) => Some(handle.find_run(&caller.0, from).await?),
        None => None,
    };
    let request = CreateRun { plan: body.plan, init: body.init, upload: body.upload, app: body.app, from };
    let run = handle.create_run(&caller.0, request).await?;
    Ok((StatusCode::CREATED, Json(CreatedRun { run })))
}

pub(crate) async fn check_plan(
    State(handle): State<Handle>,
    caller: Caller,
    JsonBody(body): JsonBody<PlanBody>,
) -> Result<Json<PlanSummary>, Failure> {
    handle.authorise(&caller.0, Role::Operator)?;
    let plan = Plan::parse(&body.plan)?;
    let present = handle.present_for(&caller.0, &plan)?;
    let mut waits = Vec::new();
    if present < plan.cohort.min as usize {
        waits.push(format!("it would wait for participants: {present} of {} present", plan.cohort.min));
    }
    Ok(Json(PlanSummary { summary: plan.summary(), waits }))
}

pub(crate) async fn status(
    State(handle): State<Handle>,
    caller: Caller,
    Named(run): Named<String>,
) -> Result<Json<RunStatus>, Failure> {
    let run = handle.find_run(&caller.0, &run).await?;
    Ok(Json(handle.status(&caller.0, run).await?))
}

pub(crate) async fn stop(
    State(handle): State<Handle>,
    caller: Caller,
    Named(run): Named<String>,
    JsonBody(body): JsonBody<ReasonBody>,
) -> Result<Json<RunStatus>, Failure> {
    let run = handle.find_run(&caller.0, &run).await?;
    Ok(Json(handle.stop(&caller.0, run, body.reason).await?))
}

pub(crate) async fn extend(
    State(handle): State<Handle>,
    caller: Caller,
    Named(run): Named<String>,
    JsonBody(body): JsonBody<ExtendBody>,
) -> Result<Json<RunStatus>, Failure> {
    let run = handle.find_run(&caller.0, &run).await?;
    Ok(Json(handle.extend(&caller.0, run, body.rounds).await?))
}

pub(crate) async fn remove(
    State(handle): State<Handle>,
    caller: Caller,
    Named(run): Named<String>,
    JsonBody(body): JsonBody<RemoveBody>,
) -> Result<Json<RemovedRun>, Failure> {
    let force = if body.force { Force::Yes } else { Force::No };
    Ok(Json(match handle.find_journal(&caller.0, &run).await? {
        JournalId::Run(run) => handle.remove_run(&caller.0, run, force).await?,
        JournalId::Relay(run) => handle.remove_relayed(&caller.0, run, force).await?,
        JournalId::Federation => {
            return Err(Failure::new(ErrorKind::InvalidArgument, "the federation's own journal is no run's"));
        }
    }))
}
