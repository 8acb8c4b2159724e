//! Errors in the words of the transports: the one place where a kind becomes a gRPC code or an HTTP status.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use sheaf_domain::{ErrorKind, Span};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::Error;

/// The metadata key and header that carry [`ErrorKind::name`].
pub const ERROR_KIND: &str = "sheaf-error-kind";
/// The metadata key that carries when to try again, in milliseconds.
pub const RETRY_AFTER_MS: &str = "sheaf-retry-after-ms";

/// The gRPC code of a kind.
pub const fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The HTTP status of a kind.
pub const fn http_status(kind: ErrorKind) -> StatusCode {
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

/// The gRPC status of an error, with its kind in the metadata.
pub fn to_status(error: &Error) -> Status {
    note(error);
    let mut metadata = MetadataMap::new();
    metadata.insert(ERROR_KIND, MetadataValue::from_static(error.kind().name()));
    if let Some(after) = error.retry_after() {
        metadata.insert(RETRY_AFTER_MS, MetadataValue::from(after.as_millis()));
    }
    Status::with_metadata(code(error.kind()), error.to_string(), metadata)
}

/// The HTTP response of an error, with its kind in the body.
pub fn to_response(error: &Error) -> Response {
    note(error);
    let status = match error {
        Error::LengthRequired => StatusCode::LENGTH_REQUIRED,
        Error::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::RangeNotSatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
        Error::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        other => http_status(other.kind()),
    };
    let mut fields = serde_json::json!({ "kind": error.kind().name(), "message": error.to_string() });
    if let (Some(fields), Some(after)) = (fields.as_object_mut(), error.retry_after()) {
        fields.insert("retry_after_ms".to_owned(), after.as_millis().into());
    }
    let body = serde_json::json!({ "error": fields }).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    if let Error::Signature { server_time: Some(server_time), .. } = error {
        headers.insert(sheaf_pki::HEADER_SERVER_TIME, HeaderValue::from(server_time.as_millis()));
    }
    if let Error::RangeNotSatisfiable { total } = error
        && let Ok(range) = HeaderValue::try_from(format!("bytes */{total}"))
    {
        headers.insert(header::CONTENT_RANGE, range);
    }
    response
}

/// Faults of ours are logged where they are told; everything else is the caller's.
fn note(error: &Error) {
    if error.kind() == ErrorKind::Internal {
        tracing::error!(%error, "a native request failed");
    } else {
        tracing::debug!(%error, kind = error.kind().name(), "a native request was refused");
    }
}

fn whole_seconds(span: Span) -> u64 {
    span.as_millis().div_ceil(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_status_and_a_code_of_its_own() {
        let kinds = [
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::InvalidArgument,
            ErrorKind::Unauthenticated,
            ErrorKind::PermissionDenied,
            ErrorKind::Exhausted,
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::Internal,
        ];
        let codes: std::collections::HashSet<i32> = kinds.iter().map(|kind| code(*kind) as i32).collect();
        let statuses: std::collections::HashSet<u16> =
            kinds.iter().map(|kind| http_status(*kind).as_u16()).collect();
        assert_eq!((codes.len(), statuses.len()), (kinds.len(), kinds.len()));
    }

    #[test]
    fn a_status_says_its_kind_and_when_to_come_again() {
        let error =
            Error::Coordinator(sheaf_coordinator::Error::new(ErrorKind::Exhausted, "the budget is used up"));
        let status = to_status(&error);
        assert_eq!(status.metadata().get(ERROR_KIND).unwrap(), "exhausted");
        assert_eq!(status.metadata().get(RETRY_AFTER_MS).unwrap(), "1000");
        let response = to_response(&error);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn a_range_beyond_the_end_names_the_end() {
        let response = to_response(&Error::RangeNotSatisfiable { total: 19 });
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(response.headers()[header::CONTENT_RANGE], "bytes */19");
    }
}
