//! What tests of several crates share: files that fail and forget, processes that are killed, and the crash soak.
//!
//! Nobody ships it: it is a dependency of tests only, and fails by panicking, as tests do. It builds nothing that a test
//! could say in a few lines of its own.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking, and so does what tests share"
)]

pub mod files;
pub mod process;
pub mod soak;
pub mod victim;
