//! The native client: a participant that works for a federation from within its own site.
//!
//! It speaks the native protocol over gRPC or HTTPS, links no server crate, and opens no port. What it runs, with which
//! data and within which limits is the site's own configuration; a server can name a trainer, never a command.

pub mod data;
mod error;
pub mod nn;
pub mod participant;
pub mod site;
pub mod trainer;
pub mod transport;

pub use error::Error;
pub use participant::{JoinOptions, Participant, join};
