//! `[listen]`: where participants and operators connect.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sheaf_domain::Span;

use super::LoopbackAddr;

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSection {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// DNS names and IP addresses participants reach this server by; they go into its certificate and into kits.
    pub names: Vec<String>,
    /// Connections at once; further ones are refused.
    pub connections_max: usize,
    /// A loopback address that is served without TLS as well, for measuring: a signed line takes the handshake's place.
    pub plaintext: Option<LoopbackAddr>,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Span,
    /// How long a drain waits for what is in flight.
    pub drain_timeout: Span,
}

impl Default for ListenSection {
    fn default() -> ListenSection {
        ListenSection {
            address: SocketAddr::from(([127, 0, 0, 1], 7443)),
            names: Vec::new(),
            connections_max: 10_000,
            plaintext: None,
            handshake_timeout: Span::from_secs(10),
            drain_timeout: Span::from_secs(20),
        }
    }
}
