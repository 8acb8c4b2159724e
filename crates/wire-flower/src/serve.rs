//! From a request to a call: by its path and its content type, on a listener that serves some of the services.
//!
//! What a listener does not serve is refused by name: the services that start programs are not for sites.

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::{HeaderMap, Method, StatusCode, header};

use crate::answer::{Answer, refuse_grpc, refuse_http};
use crate::connection::Signed;
use crate::error::{FlowerCode, FlowerError};
use crate::front::{Flower, Served};
use crate::incoming::Incoming;
use crate::node_auth::NodeHeaders;
use crate::operators::Caller;
use crate::routes::Route;

/// Flower's services on one listener, as the fallback of a router.
pub fn router(flower: Flower, served: Served) -> Router {
    Router::new().fallback(call).with_state((flower, served))
}

async fn call(State((flower, served)): State<(Flower, Served)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let caller = Caller::of(&parts);
    caller.connection.look_at(&parts.headers);
    if is_grpc(&parts.headers) {
        let route = Route::of_grpc(path).ok_or_else(|| unknown(path));
        let answer = match route {
            Ok(route) => {
                let incoming = Incoming::grpc(body);
                unbroken(dispatch(&flower, served, route, &parts.headers, caller, incoming, true)).await
            }
            Err(error) => Err(error),
        };
        return answer.map_or_else(|error| refuse_grpc(&error), Answer::into_grpc);
    }
    let route = Route::of_http(path).ok_or_else(|| unknown(path));
    if [Method::GET, Method::HEAD].contains(&parts.method) {
        let page = served.control.then(|| flower.login_page(path)).flatten();
        if matches!(route, Ok(Route::Health)) {
            return StatusCode::OK.into_response();
        }
        if let Some(page) = page {
            return page;
        }
    }
    let answer = match route.and_then(|route| check_http(&parts.method, &parts.headers).map(|()| route)) {
        Ok(route) => {
            let incoming = Incoming::http(body);
            unbroken(dispatch(&flower, served, route, &parts.headers, caller, incoming, false)).await
        }
        Err(error) => Err(error),
    };
    answer.map_or_else(|error| refuse_http(&error), Answer::into_http)
}

/// Carries a call out; what breaks in us on the way is "ask again" to whoever called.
///
/// Locks are taken through poison everywhere, and what is durable changes in whole transactions: a call that breaks leaves nothing half done.
async fn unbroken(call: impl Future<Output = Result<Answer, FlowerError>>) -> Result<Answer, FlowerError> {
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a call broke: this is a fault of the server");
        Err(FlowerError::new(FlowerCode::Unavailable, "the server cannot answer this call now; ask again"))
    })
}

async fn dispatch(
    flower: &Flower,
    served: Served,
    route: Route,
    headers: &HeaderMap,
    caller: Caller,
    incoming: Incoming,
    grpc: bool,
) -> Result<Answer, FlowerError> {
    let refused = match route {
        Route::Fleet(call) if served.fleet => {
            let node = if grpc { NodeHeaders::of_grpc(headers) } else { NodeHeaders::of_http(headers) };
            match node {
                Ok(headers) => {
                    let signed = Signed { headers, connection: caller.connection };
                    return flower.fleet(call, &signed, incoming).await;
                }
                Err(error) => FlowerError::new(FlowerCode::NodeAuthenticationFailed, error.to_string()),
            }
        }
        Route::Adapter if served.fleet && grpc => match NodeHeaders::of_grpc(headers) {
            Ok(headers) => {
                let signed = Signed { headers, connection: caller.connection };
                return flower.adapted(&signed, incoming).await;
            }
            Err(error) => FlowerError::new(FlowerCode::NodeAuthenticationFailed, error.to_string()),
        },
        Route::Runtime(call) if served.runtime => return flower.runtime(call, headers, incoming).await,
        Route::Control(call) if served.control => return flower.control(call, &caller, incoming).await,
        Route::Login(call) if served.control => return flower.login(call, &caller, incoming).await,
        Route::Unsupported(FlowerCode::RuntimeEndpointUnavailable) if served.runtime => {
            not_offered(FlowerCode::RuntimeEndpointUnavailable)
        }
        Route::Unsupported(code) if served.control => not_offered(code),
        Route::Runtime(_) | Route::Unsupported(FlowerCode::RuntimeEndpointUnavailable) => {
            FlowerError::new(FlowerCode::UnknownPath, "applications are not served on this address")
        }
        Route::Control(_) | Route::Login(_) | Route::Unsupported(_) => {
            FlowerError::new(FlowerCode::UnknownPath, "the command line is not served on this address")
        }
        Route::Fleet(_) => FlowerError::new(FlowerCode::Unavailable, "nodes are not served on this address"),
        Route::Adapter | Route::Join | Route::Health => {
            FlowerError::new(FlowerCode::UnknownPath, "this call is not served here")
        }
    };
    incoming.drain().await;
    Err(refused)
}

fn not_offered(code: FlowerCode) -> FlowerError {
    FlowerError::new(code, "this server does not offer this call")
}

fn unknown(path: &str) -> FlowerError {
    let shown: String = path.chars().take(120).collect();
    FlowerError::new(FlowerCode::UnknownPath, format!("there is no call {shown:?}"))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|kind| kind.starts_with("application/grpc"))
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

fn check_http(method: &Method, headers: &HeaderMap) -> Result<(), FlowerError> {
    if method != Method::POST {
        return Err(FlowerError::new(FlowerCode::UnknownPath, "calls are made with POST"));
    }
    let kind = content_type(headers).unwrap_or_default();
    if kind.split(';').next().map(str::trim) == Some("application/protobuf") {
        return Ok(());
    }
    let detail = "the content type of a call is application/protobuf";
    Err(FlowerError::new(FlowerCode::UnsupportedContentType, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_breaks_is_answered_with_ask_again() {
        let broken = unbroken(async { panic!("a fault of ours") }).now_or_never();
        let Some(Err(told)) = broken else { panic!("it was answered") };
        assert_eq!(told.code.http(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(!told.detail.contains("fault"), "{told}");
        let done = unbroken(async { Ok(Answer::Message(Default::default())) }).now_or_never();
        assert!(matches!(done, Some(Ok(Answer::Message(_)))));
    }
}
