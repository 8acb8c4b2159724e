//! The Flower front-end: stock SuperNodes, ServerApps and the `flwr` command, over HTTP and gRPC.

pub mod frames;
pub mod proto;
