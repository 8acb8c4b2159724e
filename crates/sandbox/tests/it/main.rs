//! Real programs behind real walls: what they can reach, how long they live, what they leave.
//!
//! The confiner is this test binary started again; the server that is killed is one of its tests. Nothing waits for a time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do the functions its cases share")]

mod life;
mod limits;
mod log;
mod place;
mod refusals;
mod walls;
