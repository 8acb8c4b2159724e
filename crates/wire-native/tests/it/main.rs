//! The native protocol end to end: the real client transports against the real coordinator, over real TLS on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails, in its helpers too"
)]

mod bad_grpc;
mod bad_https;
mod calls;
mod certificates;
mod malformed;
mod openapi;
mod participant;
mod proxies;
mod world;
