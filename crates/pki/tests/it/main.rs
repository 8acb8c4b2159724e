//! Real TLS handshakes over in-memory pipes, and what each end is told when one fails.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails it by panicking")]

mod handshake;
