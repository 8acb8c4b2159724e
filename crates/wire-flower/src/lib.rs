//! The Flower front-end: stock SuperNodes, ServerApps and the `flwr` command, over HTTP and gRPC.
//!
//! Translates and nothing else: messages of the peer ↔ calls on the coordinator's handles, kinds of errors ↔ Flower's codes. The
//! words of the stack (SuperNode, ServerApp, FAB, task) live here and nowhere below. What it does not serve it refuses by the code that
//! upstream has for it; a SuperNode hears documented refusals alone, and *ask again* in place of all else.
//!
//! Source: observed with flwr 1.42.0 and 1.39.0.

mod adapter;
mod answer;
pub mod array;
mod card;
mod connection;
mod control;
pub mod coordinated;
pub mod error;
mod exchange;
pub mod fab;
mod fleet;
pub mod frames;
mod front;
mod incoming;
mod launch;
pub mod legacy;
mod logs;
mod mail;
mod names;
pub mod node_auth;
pub mod object;
mod operators;
pub mod proto;
pub mod push;
pub mod routes;
mod runs;
mod runtime;
mod scan;
mod serve;
pub mod superexec_auth;
pub mod timestamp;
mod traffic;

pub use connection::Connection;
pub use coordinated::FlowerApps;
pub use front::{Flower, FlowerSettings, Served};
pub use launch::ServerApps;
pub use mail::letters_of;
pub use scan::{check_envelope, check_letters};
pub use serve::router;
