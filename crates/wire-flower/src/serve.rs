//! From a request to a call: by its path and its content type, on a listener that serves some of the services.
//!
//! What a listener does not serve is refused by name: the services that start programs are not for sites.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};

use crate::answer::{Answer, refuse_grpc, refuse_http};
use crate::error::{FlowerCode, FlowerError};
use crate::front::{Flower, Served};
use crate::incoming::Incoming;
use crate::node_auth::NodeHeaders;
use crate::routes::Route;

/// Flower's services on one listener, as the fallback of a router.
pub fn router(flower: Flower, served: Served) -> Router {
    Router::new().fallback(call).with_state((flower, served))
}

async fn call(State((flower, served)): State<(Flower, Served)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if is_grpc(&parts.headers) {
        let route = Route::of_grpc(path).ok_or_else(|| unknown(path));
        let answer = match route {
            Ok(route) => dispatch(&flower, served, route, &parts.headers, Incoming::grpc(body), true).await,
            Err(error) => Err(error),
        };
        return answer.map_or_else(|error| refuse_grpc(&error), Answer::into_grpc);
    }
    let route = Route::of_http(path).ok_or_else(|| unknown(path));
    if matches!(route, Ok(Route::Health)) && [Method::GET, Method::HEAD].contains(&parts.method) {
        return StatusCode::OK.into_response();
    }
    let answer = match route.and_then(|route| check_http(&parts.method, &parts.headers).map(|()| route)) {
        Ok(route) => dispatch(&flower, served, route, &parts.headers, Incoming::http(body), false).await,
        Err(error) => Err(error),
    };
    answer.map_or_else(|error| refuse_http(&error), Answer::into_http)
}

async fn dispatch(
    flower: &Flower,
    served: Served,
    route: Route,
    headers: &HeaderMap,
    incoming: Incoming,
    grpc: bool,
) -> Result<Answer, FlowerError> {
    let refused = match route {
        Route::Fleet(call) if served.fleet => {
            let node = if grpc { NodeHeaders::of_grpc(headers) } else { NodeHeaders::of_http(headers) };
            match node {
                Ok(node) => return flower.fleet(call, &node, incoming).await,
                Err(error) => FlowerError::new(FlowerCode::NodeAuthenticationFailed, error.to_string()),
            }
        }
        Route::Runtime(call) if served.local => return flower.runtime(call, headers, incoming).await,
        Route::Control(call) if served.local => return flower.control(call, incoming).await,
        Route::Unsupported(code) if served.local => {
            FlowerError::new(code, "this server does not offer this call")
        }
        Route::Runtime(_) => {
            FlowerError::new(FlowerCode::UnknownPath, "applications are not served on this address")
        }
        Route::Control(_) | Route::Unsupported(_) => {
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
