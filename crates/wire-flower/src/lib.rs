//! The Flower front-end: stock SuperNodes, ServerApps and the `flwr` command, over HTTP and gRPC.

pub mod error;
pub mod frames;
pub mod proto;
pub mod push;
pub mod routes;
