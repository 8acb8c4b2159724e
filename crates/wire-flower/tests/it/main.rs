//! The front-end against a whole coordinator over memory stores, without sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails, in its helpers too"
)]

mod legacy;
mod logs;
mod world;
