//! `[telemetry]`: metrics and health.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `[telemetry]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySection {
    /// A plain HTTP address that serves `/metrics` and `/health` to anyone who reaches it; loopback or a private network.
    /// Without it, `/metrics` is served on the main port to operators only.
    pub address: Option<SocketAddr>,
}
