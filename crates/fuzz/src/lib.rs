//! Attacks on every decoder that sees bytes of a peer or of a file somebody hands in. Never shipped.
//!
//! A [`Target`] is one decoder, its ceiling of memory and the invariants its body checks; the [`Driver`] changes well-formed
//! and once-interesting inputs and tries them, on the stable toolchain and from a seed. A fault is minimised and kept as a file
//! that the suite replays for good. Run as `cargo xtask fuzz TARGET --minutes N`.

pub mod corpus;
mod driver;
mod form;
mod heap;
mod mutate;
mod processor;
mod shrink;
mod target;
pub mod targets;
mod trace;
mod trial;

pub use driver::{Crash, Driver, Tally};
pub use form::Form;
pub use heap::{CountingAllocator, LIVE_BYTES_MAX, Taken, watch};
pub use mutate::Mutator;
pub use target::{Ceiling, Probe, Target, Verdict};
pub use trace::Trace;
pub use trial::{Finding, SLOW_PIECES, Trial, attempt};
