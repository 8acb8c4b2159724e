//! The native protocol over HTTPS: JSON control messages and raw binary bodies, over the same [`Handlers`] as gRPC.
//!
//! For networks that let nothing but HTTP/1.1 through. Identity is the client certificate, or where a proxy takes that away a
//! signature over the request. Bodies are bounded before they are read; a piece's body is read only once its length is reserved.

mod auth;
mod body;
mod numbers;
mod pieces;
mod range;
mod versions;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get, post, put};
use http::{HeaderValue, header};
use serde::Serialize;
use sheaf_domain::Identity;
use sheaf_messages::{bounds, v1};
use sheaf_pki::RequestVerifier;

pub use body::parse as parse_message;
pub use range::{Wanted, wanted as wanted_range};

use crate::peer::{Ended, PeerAddr};
use crate::status::to_response;
use crate::{Error, Handlers};

/// Every path served, with its method; what the OpenAPI document describes.
pub const ROUTES: [(&str, &str); 10] = [
    ("post", "/native/v1/enrol"),
    ("post", "/native/v1/renew"),
    ("post", "/native/v1/beat"),
    ("post", "/native/v1/next"),
    ("get", "/native/v1/versions/{run}/{lineage}/{version}/bytes"),
    ("post", "/native/v1/missing"),
    ("put", "/native/v1/tasks/{task}/pieces/{digest}"),
    ("post", "/native/v1/submit"),
    ("post", "/native/v1/fail"),
    ("post", "/native/v1/leave"),
];

/// The paths of the native protocol as a router, to be merged with others on one port.
pub(crate) fn router(handlers: Handlers, verifier: Arc<RequestVerifier>) -> Router {
    let [enrol, renew, beat, next, versions, missing, pieces, submit, fail, leave] =
        ROUTES.map(|(_, path)| path);
    Router::new()
        .route(enrol, post(call_enrol))
        .route(renew, post(call_renew))
        .route(beat, post(call_beat))
        .route(next, post(call_next))
        .route(versions, get(versions::read))
        .route(missing, post(call_missing))
        .route(pieces, put(pieces::put))
        .route(submit, post(call_submit))
        .route(fail, post(call_fail))
        .route(leave, post(call_leave))
        .method_not_allowed_fallback(async || to_response(&Error::WrongMethod))
        .route("/native/{*rest}", any(async || to_response(&Error::NoSuchPath)))
        .with_state(Door { handlers, verifier })
}

/// What every path needs.
#[derive(Clone)]
pub(crate) struct Door {
    handlers: Handlers,
    verifier: Arc<RequestVerifier>,
}

async fn call_enrol(State(door): State<Door>, request: Request) -> Response {
    let done = async {
        let peer = request.extensions().get::<PeerAddr>().copied();
        let peer = peer.ok_or_else(|| Error::Unauthenticated("the peer's address is unknown".to_owned()))?;
        let message = body::message(request, bounds::ENROL_BODY_LEN_MAX, None).await?;
        door.handlers.enrol(peer.0.ip(), message).await
    };
    answer(done.await)
}

async fn call_renew(State(door): State<Door>, request: Request) -> Response {
    let done = async {
        let limit = bounds::ENROL_BODY_LEN_MAX;
        let (who, message) = door.message_from(request, limit, Ended::Allowed).await?;
        door.handlers.renew(&who, message).await
    };
    answer(done.await)
}

async fn call_beat(State(door): State<Door>, request: Request) -> Response {
    let done = async {
        let (who, message) = door.message(request, bounds::CONTROL_BODY_LEN_MAX).await?;
        door.handlers.beat(&who, message).await
    };
    answer(done.await)
}

async fn call_next(State(door): State<Door>, request: Request) -> Response {
    let done = async {
        let (who, message) = door.message(request, bounds::CONTROL_BODY_LEN_MAX).await?;
        door.handlers.next(&who, message).await
    };
    answer(done.await)
}

async fn call_missing(State(door): State<Door>, request: Request) -> Response {
    let done = async {
        let (who, message) = door.message(request, bounds::LIST_BODY_LEN_MAX).await?;
        door.handlers.missing(&who, message).await
    };
    answer(done.await)
}

async fn call_submit(State(door): State<Door>, request: Request) -> Response {
    let done = async {
        let (who, content) = door.content_from(request, bounds::LIST_BODY_LEN_MAX, Ended::Refused).await?;
        match body::parse(&content) {
            Ok(message) => door.handlers.submit(&who, message).await,
            Err(error) => submit_unread(&door, &who, &content, error).await,
        }
    };
    answer(done.await)
}

/// A submission that is not the JSON of one: perhaps only for want of numbers JSON has no words for; else it is refused under
/// the task it names.
async fn submit_unread(
    door: &Door,
    who: &Identity,
    content: &[u8],
    error: Error,
) -> Result<v1::SubmitReply, Error> {
    #[derive(serde::Deserialize)]
    struct Named {
        task: String,
    }

    let content = numbers::named(content);
    match body::parse(&content) {
        Ok(message) => door.handlers.submit(who, message).await,
        Err(_) => {
            let named = serde_json::from_slice::<Named>(&content);
            let task = named.map(|named| named.task).unwrap_or_default();
            door.handlers.refuse(who, &task, error).await
        }
    }
}

async fn call_fail(State(door): State<Door>, request: Request) -> Response {
    let done = async {
        let (who, message) = door.message(request, bounds::CONTROL_BODY_LEN_MAX).await?;
        door.handlers.fail(&who, message).await
    };
    answer(done.await)
}

async fn call_leave(State(door): State<Door>, request: Request) -> Response {
    let done = async {
        let (who, message) = door.message(request, bounds::CONTROL_BODY_LEN_MAX).await?;
        door.handlers.leave(&who, message).await
    };
    answer(done.await)
}

fn answer<T: Serialize>(result: Result<T, Error>) -> Response {
    let body = result.and_then(|message| {
        serde_json::to_vec(&message).map_err(|error| {
            let kind = sheaf_domain::ErrorKind::Internal;
            sheaf_coordinator::Error::new(kind, format!("the answer has no JSON form: {error}")).into()
        })
    });
    match body {
        Ok(body) => {
            let mut response = Response::new(axum::body::Body::from(body));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => to_response(&error),
    }
}
