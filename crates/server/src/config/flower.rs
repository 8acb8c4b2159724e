//! `[flower]`: where Flower's SuperNodes, ServerApps and command line connect.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::LoopbackAddr;

/// `[flower]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowerSection {
    /// Address and port for SuperNodes, over HTTP and gRPC; without it Flower is not served. On a loopback address the command line
    /// and ServerApps are served here too.
    pub address: Option<SocketAddr>,
    /// Another address for SuperNodes, such as the port earlier ones dial; nothing else is served there.
    pub also: Option<SocketAddr>,
    /// Where the command line and ServerApps are served when `address` is no loopback address.
    pub local: Option<LoopbackAddr>,
    /// The server's certificate chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The certificates that ServerApps started here trust, PEM.
    pub roots: Option<PathBuf>,
    /// Serve without TLS. Without this and without a certificate the server does not start.
    pub insecure: bool,
    /// Whether the keys of SuperNodes must have been registered by an operator.
    pub supernode_auth: bool,
    /// Who starts ServerApps [default: sandboxed on a loopback address, external elsewhere].
    pub server_apps: Option<ServerAppsMode>,
    /// The `flwr-serverapp` program [default: found beside `flwr` on the PATH].
    pub server_app: Option<PathBuf>,
    /// An account of this machine that ServerApps run as.
    pub server_app_account: Option<String>,
    /// A file whose bytes every SuperExec must prove to know.
    pub superexec_secret: Option<PathBuf>,
    /// Whether operators log in: the command line is then served wherever nodes are, over TLS, to operators only.
    pub operator_login: bool,
    /// Whether no proxy that sends calls of several nodes over one connection stands in front of this server: a key that was verified
    /// on a TLS connection is then believed there for as long as its signature holds.
    pub direct_connections: bool,
    /// Start ServerApps even where nothing keeps them from reading what this server can read.
    pub server_apps_unwalled: bool,
}

/// Who starts ServerApps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerAppsMode {
    /// Nobody: runs cannot be started.
    Off,
    /// This server, with walls around them.
    Sandboxed,
    /// An operator's own SuperExec.
    External,
}
