//! The calls of a listener by their paths.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;

use crate::federation::Federation;
use crate::header::Peer;
use crate::plan::Transport;
use crate::{grpc, rest};

/// What a listener knows of a connection's peer; it puts this into every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connected {
    /// No TLS.
    Plain,
    /// TLS that asked for no certificate.
    Uncertified,
    /// The common name of the certificate that was asked for and verified.
    Certified(String),
}

impl Connected {
    fn peer(&self) -> Peer<'_> {
        match self {
            Connected::Plain => Peer::Plain,
            Connected::Uncertified => Peer::Uncertified,
            Connected::Certified(common_name) => Peer::Certified(common_name),
        }
    }
}

/// A federation's calls on a listener of its own, as the fallback of a router.
pub fn router(federation: Federation) -> Router {
    Router::new().fallback(call).with_state(federation)
}

async fn call(State(federation): State<Federation>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // A listener that does not say so is none that may serve.
    let Some(connected) = parts.extensions.get::<Connected>().cloned() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let transport = federation.plan().network.transport;
    let path = parts.uri.path();
    match (path.strip_prefix(grpc::SERVICE), path.strip_prefix(rest::PATHS)) {
        (Some(method), _) if transport != Transport::Rest => {
            grpc::call(&federation, method, connected.peer(), body).await
        }
        (_, Some(path)) if transport != Transport::Grpc => {
            rest::call(&federation, path, &parts, connected.peer(), body).await
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
