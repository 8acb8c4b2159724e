//! The messages of the native protocol, and their translation to and from the domain.
//!
//! [`v1`] is generated from `proto/native/v1/participant.proto`: the same types are the protobuf of the gRPC transport and the
//! JSON of the HTTPS transport. Everything else here turns them into domain values and back. Nothing that a peer wrote passes
//! unchecked: every count, length and name has a bound in [`bounds`] and is compared with it before it is used.

pub mod bounds;
mod config;
mod decode;
mod error;
mod lists;
mod manifest;
mod number;
mod order;
mod scan;
mod scan_json;
mod submit;
mod text;

pub use config::{config_from_wire, config_to_wire};
pub use decode::{BoundedCodec, BoundedDecoder, decode, decode_json};
pub use error::Error;
pub use lists::{Listed, Lists};
pub use manifest::{manifest_from_wire, manifest_to_wire, specs_from_wire, specs_to_wire};
pub use order::{Filled, Order, Wanted, Withdrawal};
pub use submit::{outcome_from_wire, outcome_to_wire, submission_from_wire, submission_to_wire};
pub use text::{bounded, digest, digests, run, site, task, tasks, version_from_wire, version_to_wire};

/// The generated messages and service stubs of version 1.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::or_fun_call,
    clippy::missing_errors_doc,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("sheaf.native.v1");
}
