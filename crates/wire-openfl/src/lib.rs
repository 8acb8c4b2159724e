//! The OpenFL front-end: what stock collaborators say, in our words.
//!
//! Translates and nothing else. The words of the stack (plan, task, tensor key, pipeline) live here and nowhere below. A federation
//! is one run of the engine, each of its tasks a stage; collaborators ask for tasks and tensors and hand in results over gRPC or over HTTP,
//! both of which come to the same calls.
//!
//! Source: observed with openfl 1.9.

mod calls;
mod coder;
mod encoded;
pub mod error;
mod federation;
pub mod fields;
pub mod frames;
mod grpc;
pub mod header;
mod intake;
pub mod metrics_log;
pub mod plan;
pub mod program;
pub mod proto;
mod rest;
pub mod results;
mod routes;
pub mod state;
mod tell;
pub mod tensors;

pub use federation::{BeginError, Ending, Federation, Opening};
pub use routes::{Connected, router};
