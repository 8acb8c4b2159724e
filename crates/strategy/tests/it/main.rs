//! The strategies as the coordinator uses them: folds and server steps over several rounds, and refusals.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod properties;
mod refusals;
mod vectors;
