//! Why a call is refused, and how each transport says it: the one table.
//!
//! Over gRPC collaborators ask again after any error; over HTTP after 503, so what passes is 503 there, what is wrong with results 400,
//! with identity 401, and a tensor is never 404.

use http::StatusCode;

/// What sort of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Who calls is not who it says, or not of the collaborators.
    Identity,
    /// The header is not for this federation.
    Header,
    /// The request cannot be read.
    Request,
    /// The results cannot be read, or do not pass.
    Results,
    /// There is no such tensor.
    NoTensor,
    /// The call is not served.
    NotServed,
    /// It may pass.
    NotNow,
}

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// Its sort.
    pub sort: Sort,
    /// What is wrong, for people.
    pub message: String,
}

impl CallError {
    pub(crate) fn new(sort: Sort, message: impl std::fmt::Display) -> CallError {
        CallError { sort, message: message.to_string() }
    }

    /// The status over gRPC. Upstream's assertions are 2, unknown.
    pub fn grpc(&self) -> u16 {
        match self.sort {
            Sort::Identity => 16,
            Sort::Header | Sort::Request | Sort::Results | Sort::NoTensor => 2,
            Sort::NotServed => 12,
            Sort::NotNow => 14,
        }
    }

    /// The status over HTTP.
    pub fn http(&self) -> StatusCode {
        match self.sort {
            Sort::Identity | Sort::Header => StatusCode::UNAUTHORIZED,
            Sort::Request | Sort::Results => StatusCode::BAD_REQUEST,
            Sort::NoTensor => StatusCode::INTERNAL_SERVER_ERROR,
            Sort::NotServed => StatusCode::NOT_IMPLEMENTED,
            Sort::NotNow => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<sheaf_coordinator::Error> for CallError {
    fn from(error: sheaf_coordinator::Error) -> CallError {
        CallError::new(Sort::NotNow, error)
    }
}
