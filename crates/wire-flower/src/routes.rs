//! Which call a path names: HTTP routes, their alias, and gRPC paths.
//!
//! Pure. An unsupported call is told apart from an unknown path: it is answered with the code a stock server without
//! that feature answers. Observed with flwr 1.42.0.

use crate::error::FlowerCode;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// A call of a SuperNode.
    Fleet(FleetCall),
    /// A call of an application process.
    Runtime(RuntimeCall),
    /// A call of the command line.
    Control(ControlCall),
    /// A call with which an operator logs in.
    Login(LoginCall),
    /// `GrpcAdapter/SendReceive`: a Fleet call in an envelope.
    Adapter,
    /// `FlowerService/Join`: the stream of the oldest clients.
    Join,
    /// The liveness path.
    Health,
    /// A call that exists upstream and is not served here: its refusal.
    Unsupported(FlowerCode),
}

#[derive(Debug, Clone, Copy)]
enum Control {
    Served(ControlCall),
    Login(LoginCall),
    Unsupported(FlowerCode),
}

impl Route {
    /// Reads an HTTP path.
    pub fn of_http(path: &str) -> Option<Route> {
        if path == "/health" {
            return Some(Route::Health);
        }
        if let Some(name) = path.strip_prefix("/v1/fleet/").or_else(|| path.strip_prefix("/api/v0/fleet/")) {
            return FLEET.iter().find(|row| row.0 == name).map(|row| Route::Fleet(row.2));
        }
        if let Some(name) = path.strip_prefix("/v1/runtime/") {
            let served = RUNTIME.iter().find(|row| row.0 == name).map(|row| Route::Runtime(row.2));
            let known = || RUNTIME_UNSUPPORTED.contains(&name);
            return served
                .or_else(|| known().then_some(Route::Unsupported(FlowerCode::RuntimeEndpointUnavailable)));
        }
        let name = path.strip_prefix("/v1/control/")?;
        CONTROL.iter().find(|row| row.0 == name).map(|row| row.2.route())
    }

    /// Reads a gRPC path.
    pub fn of_grpc(path: &str) -> Option<Route> {
        let (service, method) = path.strip_prefix("/flwr.proto.")?.split_once('/')?;
        match (service, method) {
            ("Fleet", name) => FLEET.iter().find(|row| row.1 == name).map(|row| Route::Fleet(row.2)),
            ("Control", name) => CONTROL.iter().find(|row| row.1 == name).map(|row| row.2.route()),
            ("GrpcAdapter", "SendReceive") => Some(Route::Adapter),
            ("FlowerService", "Join") => Some(Route::Join),
            _ => None,
        }
    }
}

impl Control {
    fn route(self) -> Route {
        match self {
            Control::Served(call) => Route::Control(call),
            Control::Login(call) => Route::Login(call),
            Control::Unsupported(code) => Route::Unsupported(code),
        }
    }
}

impl FleetCall {
    /// The call whose request an adapter's envelope names, such as `PullMessagesRequest`.
    pub fn of_request_name(name: &str) -> Option<FleetCall> {
        let stem = name.strip_suffix("Request")?;
        let stem = stem.strip_suffix("Fleet").unwrap_or(stem);
        FLEET.iter().find(|row| row.1 == stem).map(|row| row.2)
    }

    /// The name of the answer in an adapter's envelope.
    pub fn response_name(self) -> String {
        let name = FLEET.iter().find(|row| row.2 == self).map_or("", |row| row.1);
        match self {
            FleetCall::RegisterNode | FleetCall::UnregisterNode => format!("{name}FleetResponse"),
            _ => format!("{name}Response"),
        }
    }
}

/// A call of a SuperNode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum FleetCall {
    RegisterNode,
    ActivateNode,
    DeactivateNode,
    UnregisterNode,
    SendNodeHeartbeat,
    PullMessages,
    PushMessages,
    GetRun,
    GetFab,
    PushObject,
    PullObject,
    ConfirmMessageReceived,
}

/// A call of an application process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum RuntimeCall {
    AcquireTask,
    SendTaskHeartbeat,
    PullTaskInput,
    PushTaskOutput,
    PushObject,
    PullObject,
    ConfirmMessageReceived,
    PushMessages,
    PullMessages,
    GetNodes,
    PushLogs,
}

/// A call of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ControlCall {
    StartRun,
    StopRun,
    StreamLogs,
    ListRuns,
    RegisterNode,
    UnregisterNode,
    ListNodes,
}

/// A call of a login, which nobody can be logged in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum LoginCall {
    GetLoginDetails,
    GetAuthTokens,
    RefreshAuthTokens,
}

const FLEET: [(&str, &str, FleetCall); 12] = [
    ("register-node", "RegisterNode", FleetCall::RegisterNode),
    ("activate-node", "ActivateNode", FleetCall::ActivateNode),
    ("deactivate-node", "DeactivateNode", FleetCall::DeactivateNode),
    ("unregister-node", "UnregisterNode", FleetCall::UnregisterNode),
    ("send-node-heartbeat", "SendNodeHeartbeat", FleetCall::SendNodeHeartbeat),
    ("pull-messages", "PullMessages", FleetCall::PullMessages),
    ("push-messages", "PushMessages", FleetCall::PushMessages),
    ("get-run", "GetRun", FleetCall::GetRun),
    ("get-fab", "GetFab", FleetCall::GetFab),
    ("push-object", "PushObject", FleetCall::PushObject),
    ("pull-object", "PullObject", FleetCall::PullObject),
    ("confirm-message-received", "ConfirmMessageReceived", FleetCall::ConfirmMessageReceived),
];

const RUNTIME: [(&str, &str, RuntimeCall); 11] = [
    ("acquire-task", "AcquireTask", RuntimeCall::AcquireTask),
    ("send-task-heartbeat", "SendTaskHeartbeat", RuntimeCall::SendTaskHeartbeat),
    ("pull-task-input", "PullTaskInput", RuntimeCall::PullTaskInput),
    ("push-task-output", "PushTaskOutput", RuntimeCall::PushTaskOutput),
    ("push-object", "PushObject", RuntimeCall::PushObject),
    ("pull-object", "PullObject", RuntimeCall::PullObject),
    ("confirm-message-received", "ConfirmMessageReceived", RuntimeCall::ConfirmMessageReceived),
    ("push-messages", "PushMessages", RuntimeCall::PushMessages),
    ("pull-messages", "PullMessages", RuntimeCall::PullMessages),
    ("get-nodes", "GetNodes", RuntimeCall::GetNodes),
    ("push-logs", "PushLogs", RuntimeCall::PushLogs),
];

const CONTROL: [(&str, &str, Control); 41] = [
    ("start-run", "StartRun", Control::Served(ControlCall::StartRun)),
    ("stop-run", "StopRun", Control::Served(ControlCall::StopRun)),
    ("start-automation", "StartAutomation", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("list-automations", "ListAutomations", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("stop-automation", "StopAutomation", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("stream-logs", "StreamLogs", Control::Served(ControlCall::StreamLogs)),
    ("list-runs", "ListRuns", Control::Served(ControlCall::ListRuns)),
    ("list-run-series", "ListRunSeries", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("get-run-series", "GetRunSeries", Control::Unsupported(FlowerCode::NoFederationManagement)),
    (
        "update-run-series-description",
        "UpdateRunSeriesDescription",
        Control::Unsupported(FlowerCode::NoFederationManagement),
    ),
    (
        "list-run-series-events",
        "ListRunSeriesEvents",
        Control::Unsupported(FlowerCode::NoFederationManagement),
    ),
    ("get-login-details", "GetLoginDetails", Control::Login(LoginCall::GetLoginDetails)),
    ("get-auth-tokens", "GetAuthTokens", Control::Login(LoginCall::GetAuthTokens)),
    ("list-connectors", "ListConnectors", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("disconnect-connector", "DisconnectConnector", Control::Unsupported(FlowerCode::NoFederationManagement)),
    (
        "begin-connector-oauth",
        "BeginConnectorOAuth",
        Control::Unsupported(FlowerCode::NoFederationManagement),
    ),
    (
        "complete-connector-oauth",
        "CompleteConnectorOAuth",
        Control::Unsupported(FlowerCode::NoFederationManagement),
    ),
    ("pull-artifacts", "PullArtifacts", Control::Unsupported(FlowerCode::NoArtifactProvider)),
    ("register-node", "RegisterNode", Control::Served(ControlCall::RegisterNode)),
    ("unregister-node", "UnregisterNode", Control::Served(ControlCall::UnregisterNode)),
    ("list-nodes", "ListNodes", Control::Served(ControlCall::ListNodes)),
    ("list-federations", "ListFederations", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("list-apps", "ListApps", Control::Unsupported(FlowerCode::NoFederationManagement)),
    (
        "list-app-associations",
        "ListAppAssociations",
        Control::Unsupported(FlowerCode::NoFederationManagement),
    ),
    ("add-app", "AddApp", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("remove-app", "RemoveApp", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("show-federation", "ShowFederation", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("set-federation-icon", "SetFederationIcon", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("create-federation", "CreateFederation", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("archive-federation", "ArchiveFederation", Control::Unsupported(FlowerCode::NoFederationManagement)),
    (
        "add-node-to-federation",
        "AddNodeToFederation",
        Control::Unsupported(FlowerCode::NoFederationManagement),
    ),
    (
        "remove-node-from-federation",
        "RemoveNodeFromFederation",
        Control::Unsupported(FlowerCode::NoFederationManagement),
    ),
    (
        "remove-account-from-federation",
        "RemoveAccountFromFederation",
        Control::Unsupported(FlowerCode::NoFederationManagement),
    ),
    ("create-invitation", "CreateInvitation", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("list-invitations", "ListInvitations", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("accept-invitation", "AcceptInvitation", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("reject-invitation", "RejectInvitation", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("revoke-invitation", "RevokeInvitation", Control::Unsupported(FlowerCode::NoFederationManagement)),
    (
        "configure-simulation-federation",
        "ConfigureSimulationFederation",
        Control::Unsupported(FlowerCode::NoFederationManagement),
    ),
    ("stream-run-events", "StreamRunEvents", Control::Unsupported(FlowerCode::NoFederationManagement)),
    ("refresh-auth-tokens", "RefreshAuthTokens", Control::Login(LoginCall::RefreshAuthTokens)),
];

/// Calls of agent applications, which are not served.
const RUNTIME_UNSUPPORTED: [&str; 11] = [
    "create-task",
    "push-task-message",
    "pull-task-message",
    "push-task-events",
    "get-run-series-events",
    "get-compacted-contexts",
    "put-compacted-context",
    "record-task-usage",
    "get-connector",
    "start-automation",
    "responses",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_has_three_paths() {
        let expected = Some(Route::Fleet(FleetCall::PullMessages));
        for path in ["/v1/fleet/pull-messages", "/api/v0/fleet/pull-messages"] {
            assert_eq!(Route::of_http(path), expected);
        }
        assert_eq!(Route::of_grpc("/flwr.proto.Fleet/PullMessages"), expected);
        assert_eq!(FleetCall::of_request_name("RegisterNodeFleetRequest"), Some(FleetCall::RegisterNode));
        assert_eq!(FleetCall::RegisterNode.response_name(), "RegisterNodeFleetResponse");
    }

    #[test]
    fn unsupported_is_not_unknown() {
        for (path, code) in [
            ("/v1/control/list-federations", FlowerCode::NoFederationManagement),
            ("/v1/control/pull-artifacts", FlowerCode::NoArtifactProvider),
            ("/v1/control/begin-connector-oauth", FlowerCode::NoFederationManagement),
        ] {
            assert_eq!(Route::of_http(path), Some(Route::Unsupported(code)), "{path}");
        }
        let refresh = Route::of_http("/v1/control/refresh-auth-tokens");
        assert_eq!(refresh, Some(Route::Login(LoginCall::RefreshAuthTokens)));
        for path in
            ["/v1/control/no-such-call", "/v1/fleet/", "/v2/fleet/pull-messages", "/v1/fleet/start-run"]
        {
            assert_eq!(Route::of_http(path), None, "{path}");
        }
        assert_eq!(CONTROL.len(), 41);
        assert_eq!(FLEET.len(), 12);
    }
}
