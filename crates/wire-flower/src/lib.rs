//! The Flower front-end: stock SuperNodes, ServerApps and the `flwr` command, over HTTP and gRPC.

pub mod error;
pub mod fab;
pub mod frames;
pub mod node_auth;
pub mod object;
pub mod proto;
pub mod push;
pub mod routes;
pub mod superexec_auth;
pub mod timestamp;
