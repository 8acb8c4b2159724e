//! The errors a Flower peer is answered with: one table from error to HTTP status, numeric code and gRPC status.
//!
//! Invariant: a Fleet call is answered 200, 403 (the run is over) or 503 (temporary, or our own fault), and beyond these
//! only with the refusals stock peers document: 401, 412 with 2001, 2002, 2004, 2005, 2006, 400 with 1003 or 2003, 415.
//! [`FlowerError::for_fleet`] turns everything else into 503: a SuperNode stops for good after an unknown status.
//! Codes observed with flwr 1.42.0.

use http::StatusCode;

/// A gRPC status code, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum GrpcCode {
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
    ResourceExhausted = 8,
}

/// Why a call is refused, each with the numeric code peers know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FlowerCode {
    NoFederationManagement,
    InvalidRunConfig,
    RunIdNotFound,
    RunAlreadyFinished,
    NoAccountAuth,
    NoArtifactProvider,
    PublicKeyNotValid,
    PublicKeyAlreadyInUse,
    NodeNotFound,
    FederationNotFound,
    NoPermissions,
    FailedToCreateRun,
    InvalidAppSpec,
    AccountAuthenticationFailed,
    InvalidSupernodeLocation,
    UnsupportedContentType,
    InvalidProtobufPayload,
    RuntimeAuthenticationFailed,
    SupernodeRegistrationDisabled,
    SupernodeUnregistrationDisabled,
    InvalidHeartbeatInterval,
    NodeActivationFailed,
    NodeDeactivationFailed,
    NodeUnregistrationFailed,
    RunStatusNotAllowed,
    GetRunFailed,
    GetFabFailed,
    RuntimeTaskStartFailed,
    RuntimeUnexpectedNodeId,
    RuntimeEndpointUnavailable,
    RuntimeFabNotFound,
    RuntimeInvalidMessageCount,
    RuntimeMessageRunIdMismatch,
    /// A node's identity was not proven; upstream sends no code with it.
    NodeAuthenticationFailed,
    /// The body is over the limit; no code.
    TooLarge,
    /// No such path; no code.
    UnknownPath,
    /// Busy, draining, or our own fault towards a node: ask again. No code.
    Unavailable,
    /// Our own fault towards anyone but a node. No code.
    Internal,
}

impl FlowerCode {
    /// The numeric code, the HTTP status and the gRPC status.
    fn row(self) -> (Option<u16>, u16, GrpcCode) {
        use FlowerCode as C;
        use GrpcCode as G;
        match self {
            C::NoFederationManagement => (Some(1), 501, G::Unimplemented),
            C::NoPermissions => (Some(9), 403, G::PermissionDenied),
            C::FailedToCreateRun => (Some(14), 500, G::Internal),
            C::InvalidRunConfig => (Some(15), 412, G::FailedPrecondition),
            C::RunIdNotFound => (Some(16), 404, G::NotFound),
            C::RunAlreadyFinished => (Some(18), 412, G::FailedPrecondition),
            C::NoAccountAuth => (Some(19), 501, G::Unimplemented),
            C::NoArtifactProvider => (Some(20), 501, G::Unimplemented),
            C::PublicKeyNotValid => (Some(22), 412, G::FailedPrecondition),
            C::PublicKeyAlreadyInUse => (Some(23), 412, G::FailedPrecondition),
            C::NodeNotFound => (Some(24), 404, G::NotFound),
            C::FederationNotFound => (Some(25), 412, G::FailedPrecondition),
            C::InvalidAppSpec => (Some(33), 412, G::FailedPrecondition),
            C::AccountAuthenticationFailed => (Some(36), 401, G::Unauthenticated),
            C::InvalidSupernodeLocation => (Some(45), 400, G::InvalidArgument),
            C::UnsupportedContentType => (Some(1002), 415, G::InvalidArgument),
            C::InvalidProtobufPayload => (Some(1003), 400, G::InvalidArgument),
            C::RuntimeAuthenticationFailed => (Some(1008), 401, G::Unauthenticated),
            C::SupernodeRegistrationDisabled => (Some(2001), 412, G::FailedPrecondition),
            C::SupernodeUnregistrationDisabled => (Some(2002), 412, G::FailedPrecondition),
            C::InvalidHeartbeatInterval => (Some(2003), 400, G::InvalidArgument),
            C::NodeActivationFailed => (Some(2004), 412, G::FailedPrecondition),
            C::NodeDeactivationFailed => (Some(2005), 412, G::FailedPrecondition),
            C::NodeUnregistrationFailed => (Some(2006), 412, G::FailedPrecondition),
            C::RunStatusNotAllowed => (Some(2007), 403, G::PermissionDenied),
            C::GetRunFailed => (Some(2008), 403, G::PermissionDenied),
            C::GetFabFailed => (Some(2009), 403, G::PermissionDenied),
            C::RuntimeTaskStartFailed => (Some(3002), 412, G::FailedPrecondition),
            C::RuntimeUnexpectedNodeId => (Some(3004), 412, G::FailedPrecondition),
            C::RuntimeEndpointUnavailable => (Some(3005), 403, G::PermissionDenied),
            C::RuntimeFabNotFound => (Some(3012), 404, G::NotFound),
            C::RuntimeInvalidMessageCount => (Some(3013), 400, G::InvalidArgument),
            C::RuntimeMessageRunIdMismatch => (Some(3014), 403, G::PermissionDenied),
            C::NodeAuthenticationFailed => (None, 401, G::Unauthenticated),
            C::TooLarge => (None, 413, G::ResourceExhausted),
            C::UnknownPath => (None, 404, G::Unimplemented),
            C::Unavailable => (None, 503, G::Unavailable),
            C::Internal => (None, 500, G::Internal),
        }
    }

    /// The number peers know it by, if there is one.
    pub fn number(self) -> Option<u16> {
        self.row().0
    }

    /// The HTTP status.
    pub fn http(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// The gRPC status.
    pub fn grpc(self) -> GrpcCode {
        self.row().2
    }

    fn safe_for_nodes(self) -> bool {
        use FlowerCode as C;
        matches!(
            self,
            C::RunStatusNotAllowed
                | C::GetRunFailed
                | C::GetFabFailed
                | C::NodeAuthenticationFailed
                | C::Unavailable
                | C::UnsupportedContentType
                | C::InvalidProtobufPayload
                | C::SupernodeRegistrationDisabled
                | C::SupernodeUnregistrationDisabled
                | C::InvalidHeartbeatInterval
                | C::NodeActivationFailed
                | C::NodeDeactivationFailed
                | C::NodeUnregistrationFailed
        )
    }
}

/// A refusal, with what the peer is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct FlowerError {
    /// Which refusal.
    pub code: FlowerCode,
    /// What the peer reads.
    pub detail: String,
}

impl FlowerError {
    /// A refusal.
    pub fn new(code: FlowerCode, detail: impl Into<String>) -> FlowerError {
        FlowerError { code, detail: detail.into() }
    }

    /// The same towards a SuperNode: what is no documented refusal becomes "ask again", without our reason.
    #[must_use]
    pub fn for_fleet(self) -> FlowerError {
        if self.code.safe_for_nodes() {
            self
        } else {
            FlowerError::new(FlowerCode::Unavailable, "the server cannot answer this call now; ask again")
        }
    }

    /// The JSON body of the HTTP answer.
    pub fn json(&self) -> String {
        let mut body = serde_json::Map::new();
        if let Some(number) = self.code.number() {
            body.insert("code".to_owned(), number.into());
        }
        body.insert("detail".to_owned(), self.detail.clone().into());
        serde_json::Value::Object(body).to_string()
    }

    /// The message of the gRPC answer: the same JSON where a code exists, as stock peers parse it.
    pub fn grpc_message(&self) -> String {
        if self.code.number().is_some() { self.json() } else { self.detail.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use FlowerCode as C;

    /// What a SuperNode meets in place of each refusal.
    const TOWARD_NODES: [(FlowerCode, u16); 38] = [
        (C::NoFederationManagement, 503),
        (C::InvalidRunConfig, 503),
        (C::RunIdNotFound, 503),
        (C::RunAlreadyFinished, 503),
        (C::NoAccountAuth, 503),
        (C::NoArtifactProvider, 503),
        (C::PublicKeyNotValid, 503),
        (C::PublicKeyAlreadyInUse, 503),
        (C::NodeNotFound, 503),
        (C::FederationNotFound, 503),
        (C::InvalidSupernodeLocation, 503),
        (C::NoPermissions, 503),
        (C::FailedToCreateRun, 503),
        (C::InvalidAppSpec, 503),
        (C::AccountAuthenticationFailed, 503),
        (C::UnsupportedContentType, 415),
        (C::InvalidProtobufPayload, 400),
        (C::RuntimeAuthenticationFailed, 503),
        (C::SupernodeRegistrationDisabled, 412),
        (C::SupernodeUnregistrationDisabled, 412),
        (C::InvalidHeartbeatInterval, 400),
        (C::NodeActivationFailed, 412),
        (C::NodeDeactivationFailed, 412),
        (C::NodeUnregistrationFailed, 412),
        (C::RunStatusNotAllowed, 403),
        (C::GetRunFailed, 403),
        (C::GetFabFailed, 403),
        (C::RuntimeTaskStartFailed, 503),
        (C::RuntimeUnexpectedNodeId, 503),
        (C::RuntimeEndpointUnavailable, 503),
        (C::RuntimeFabNotFound, 503),
        (C::RuntimeInvalidMessageCount, 503),
        (C::RuntimeMessageRunIdMismatch, 503),
        (C::NodeAuthenticationFailed, 401),
        (C::TooLarge, 503),
        (C::UnknownPath, 503),
        (C::Unavailable, 503),
        (C::Internal, 503),
    ];

    #[test]
    fn a_node_never_meets_a_status_it_cannot_survive() {
        for (code, status) in TOWARD_NODES {
            let told = FlowerError::new(code, "our reason").for_fleet();
            assert_eq!(told.code.http().as_u16(), status, "{code:?}");
            assert!(
                status != 503 || code == C::Unavailable || told.detail != "our reason",
                "{code:?} tells our reason"
            );
            assert!(status != 503 || told.code.grpc() == GrpcCode::Unavailable, "{code:?} over gRPC");
        }
        let different: std::collections::HashSet<String> =
            TOWARD_NODES.iter().map(|(code, _)| format!("{code:?}")).collect();
        assert_eq!(different.len(), C::Internal as usize + 1, "every code is in the table, once");
    }

    #[test]
    fn the_body_carries_code_and_detail() {
        let error = FlowerError::new(FlowerCode::NodeActivationFailed, "no \"key\"");
        assert_eq!(error.json(), r#"{"code":2004,"detail":"no \"key\""}"#);
        assert_eq!(FlowerError::new(FlowerCode::NodeAuthenticationFailed, "x").json(), r#"{"detail":"x"}"#);
    }
}
