//! Failures as HTTP: the one place where kinds become status codes.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sheaf_domain::{ErrorKind, Span};

use crate::{ErrorBody, ErrorDetail};

/// A failed call on its way out.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Span>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), retry_after: None }
    }
}

impl From<sheaf_coordinator::Error> for Failure {
    fn from(error: sheaf_coordinator::Error) -> Failure {
        if error.kind() == ErrorKind::Internal {
            tracing::error!(%error, "a call failed");
        }
        Failure { kind: error.kind(), message: error.to_string(), retry_after: error.retry_after() }
    }
}

impl From<sheaf_domain::Error> for Failure {
    fn from(error: sheaf_domain::Error) -> Failure {
        Failure::new(error.kind(), error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let detail = ErrorDetail {
            kind: self.kind.name().to_owned(),
            message: self.message,
            retry_after_ms: self.retry_after.map(Span::as_millis),
        };
        let mut response = (status_of(self.kind), Json(ErrorBody { error: detail })).into_response();
        if let Some(span) = self.retry_after {
            let secs = HeaderValue::from(span.as_millis().div_ceil(1000));
            response.headers_mut().insert(header::RETRY_AFTER, secs);
        }
        response
    }
}

/// The status code of a kind of failure.
fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
