//! The messages of the Flower protocol, as compiled from `proto/flower/v1`.
//!
//! `PushObjectRequest` and `PullObjectResponse` exist for tests and small peers only: the server reads the one with
//! [`crate::push::PushReader`] and writes the other with [`crate::push::pull_prefix`].
#![allow(missing_docs, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/flwr.proto.rs"));
