//! Every route of the API, and who the caller is.

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::routing::{MethodRouter, get, post, put};
use serde::de::DeserializeOwned;
use sheaf_coordinator::Handle;
use sheaf_domain::{ErrorKind, Identity};
use sheaf_pki::Peer;

use crate::status::Failure;
use crate::{logins, models, records, runs, sites, uploads};

/// The longest JSON body accepted, in bytes: a manifest of a large model is the largest.
const BODY_LEN_MAX: usize = 16 * 1024 * 1024;

/// Every route: method and path, as the OpenAPI document has them.
pub const ROUTES: [(&str, &str); 23] = [
    ("get", "/admin/v1/runs"),
    ("post", "/admin/v1/runs"),
    ("post", "/admin/v1/plans/check"),
    ("get", "/admin/v1/runs/{run}"),
    ("post", "/admin/v1/runs/{run}/stop"),
    ("post", "/admin/v1/runs/{run}/extend"),
    ("post", "/admin/v1/runs/{run}/remove"),
    ("post", "/admin/v1/runs/{run}/replay"),
    ("get", "/admin/v1/runs/{run}/models/{which}"),
    ("get", "/admin/v1/runs/{run}/models/{which}/bytes"),
    ("get", "/admin/v1/journals/{journal}"),
    ("get", "/admin/v1/journals/{journal}/head"),
    ("put", "/admin/v1/uploads/{upload}/pieces/{digest}"),
    ("get", "/admin/v1/sites"),
    ("post", "/admin/v1/invites"),
    ("post", "/admin/v1/sites/{site}/approve"),
    ("post", "/admin/v1/sites/{site}/revoke"),
    ("get", "/admin/v1/logins"),
    ("post", "/admin/v1/logins/{login}/approve"),
    ("post", "/admin/v1/logins/{login}/end"),
    ("post", "/admin/v1/backups"),
    ("get", "/admin/v1/whoami"),
    ("get", "/admin/v1/openapi.json"),
];

/// The API over a coordinator. The server must have put a [`Peer`] into every request's extensions.
pub fn router(handle: Handle) -> Router {
    ROUTES
        .iter()
        .fold(Router::new(), |router, (method, path)| match handler(method, path) {
            Some(handler) => router.route(path, handler),
            None => router,
        })
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .with_state(handle)
}

fn handler(method: &str, path: &str) -> Option<MethodRouter<Handle>> {
    Some(match (method, path.trim_start_matches("/admin/v1")) {
        ("get", "/runs") => get(runs::list),
        ("post", "/runs") => post(runs::create),
        ("post", "/plans/check") => post(runs::check_plan),
        ("get", "/runs/{run}") => get(runs::status),
        ("post", "/runs/{run}/stop") => post(runs::stop),
        ("post", "/runs/{run}/extend") => post(runs::extend),
        ("post", "/runs/{run}/remove") => post(runs::remove),
        ("post", "/runs/{run}/replay") => post(records::replay),
        ("get", "/runs/{run}/models/{which}") => get(models::facts),
        ("get", "/runs/{run}/models/{which}/bytes") => get(models::bytes),
        ("get", "/journals/{journal}") => get(records::entries),
        ("get", "/journals/{journal}/head") => get(records::head),
        ("put", "/uploads/{upload}/pieces/{digest}") => {
            put(uploads::piece).layer(DefaultBodyLimit::disable())
        }
        ("get", "/sites") => get(sites::list),
        ("post", "/invites") => post(sites::invite),
        ("post", "/sites/{site}/approve") => post(sites::approve),
        ("post", "/sites/{site}/revoke") => post(sites::revoke),
        ("get", "/logins") => get(logins::list),
        ("post", "/logins/{login}/approve") => post(logins::approve),
        ("post", "/logins/{login}/end") => post(logins::end),
        ("post", "/backups") => post(records::backup),
        ("get", "/whoami") => get(sites::whoami),
        ("get", "/openapi.json") => get(records::openapi),
        _ => return None,
    })
}

/// The caller, as the listener established it; calls without a certificate are refused here.
pub(crate) struct Caller(pub(crate) Identity);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Caller, Failure> {
        let identity = parts.extensions.get::<Peer>().map(|peer| peer.identity.clone());
        identity.map(Caller).ok_or_else(|| {
            Failure::new(
                ErrorKind::Unauthenticated,
                "an operator's client certificate is needed; see `sheaf pki`",
            )
        })
    }
}

/// A JSON body whose refusal is one of ours.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<JsonBody<T>, Failure> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(JsonBody(body)),
            Err(rejection) => Err(Failure::new(ErrorKind::InvalidArgument, rejection.body_text())),
        }
    }
}

/// What a path names; a refusal is one of ours.
pub(crate) struct Named<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named<T>, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(Named(named)),
            Err(rejection) => Err(Failure::new(ErrorKind::InvalidArgument, rejection.body_text())),
        }
    }
}

/// What a query asks for; a refusal is one of ours.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Asked<T>, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Asked(asked)),
            Err(rejection) => Err(Failure::new(ErrorKind::InvalidArgument, rejection.body_text())),
        }
    }
}
