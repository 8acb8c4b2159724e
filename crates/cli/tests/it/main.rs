//! The program as its users meet it: real processes, real TLS, real storage, on loopback.
//!
//! Every test has a directory of its own, ports bound as 0 and children that go when the test does. Nothing here waits for a
//! time: a condition is looked at until it holds, within a generous bound.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do the functions its cases share")]

mod arrivals;
mod bad_input;
mod bench;
mod confine;
mod crashes;
mod demo;
mod exec;
mod federation;
mod help;
mod identity;
mod quarantine;
mod removal;
mod shutdown;
mod storage;
mod world;

use sheaf_testkit::process;
