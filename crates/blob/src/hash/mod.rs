//! SHA-256 of what comes in: one message alone, or two interleaved in one pass where the processor has instructions for it.
//!
//! A lane is one message on its way; the stage takes pieces of lanes off the I/O threads and hashes two at a time. The digests
//! are those of the `sha2` crate, which also does the work where those instructions are missing.

mod lane;
#[cfg(target_arch = "x86_64")]
mod pair;
mod stage;

pub(crate) use lane::Lane;
pub use lane::digests_of_pair;
pub(crate) use stage::{Left, Stage};
