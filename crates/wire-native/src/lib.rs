//! The native protocol, server side: gRPC and HTTPS over the same handlers, on the one port.
//!
//! Translates and nothing else: messages of the peer ↔ calls on the coordinator's handle, kinds of errors ↔ statuses. It never
//! sees a store, decides no rule of a round, and reads no body whose bound is not known. Whoever accepts connections puts
//! [`PeerIdentity`] and [`PeerAddr`] into the extensions of every request.

mod error;
mod grpc;
mod handlers;
mod https;
mod peer;
pub mod status;

use std::sync::Arc;

use sheaf_pki::RequestVerifier;

pub use error::Error;
pub use handlers::Handlers;
pub use https::{ROUTES, Wanted, parse_message, wanted_range};
pub use peer::{PeerAddr, PeerIdentity};

/// The paths of the HTTPS transport, `/native/v1/*`, to be merged with others on one port.
pub fn router(handlers: Handlers, verifier: Arc<RequestVerifier>) -> axum::Router {
    https::router(handlers, verifier)
}

/// The gRPC service, `/sheaf.native.v1.Participant/*`, to be merged with others on one port.
pub fn grpc(handlers: Handlers) -> axum::Router {
    grpc::router(handlers)
}
