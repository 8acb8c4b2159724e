//! How a participant talks to the server: one trait, two transports, the same messages.
//!
//! A transport makes one call and says whether it may be made again; it does not retry and keeps no state of a task. Every call
//! has a bounded time and a bounded answer.

mod connect;
mod dial;
mod grpc;
mod https;
mod proxy;
mod retry;
mod signing;

use async_trait::async_trait;
use bytes::Bytes;
use sheaf_domain::{Digest, Span, TaskId, VersionRef};
use sheaf_messages::v1;

pub use connect::{Connect, Stream};
pub use dial::Address;
pub use grpc::GrpcTransport;
pub use https::HttpsTransport;
pub use proxy::ProxySettings;
pub(crate) use retry::Retry;
pub use retry::RetryPolicy;
pub use signing::Signing;

use crate::Error;

/// The calls of the native protocol. All of them change nothing when repeated.
///
/// # Errors
/// Of every call: [`Error::Refused`] with what the server said, [`Error::Unreachable`], [`Error::Proxy`], [`Error::Timeout`],
/// [`Error::BadAnswer`].
/// # Cancel safety
/// Of every call: dropped, it may still have reached the server; it may be made again.
#[async_trait]
pub trait Transport: std::fmt::Debug + Send + Sync + 'static {
    /// Trades a token and a certificate request for a certificate.
    async fn enrol(&self, request: v1::EnrolRequest) -> Result<v1::EnrolReply, Error>;
    /// Gets a new certificate.
    async fn renew(&self, request: v1::RenewRequest) -> Result<v1::RenewReply, Error>;
    /// Says that the participant is there.
    async fn beat(&self, request: v1::BeatRequest) -> Result<v1::BeatReply, Error>;
    /// Waits for work.
    async fn next(&self, request: v1::NextRequest) -> Result<v1::NextReply, Error>;
    /// Reads `len` bytes of a version from `offset`; `len` is at most 4 MiB and within the stream.
    async fn read_version(&self, version: &VersionRef, offset: u64, len: u64) -> Result<Bytes, Error>;
    /// Asks which pieces have not arrived.
    async fn missing(&self, request: v1::MissingRequest) -> Result<v1::MissingReply, Error>;
    /// Uploads one piece.
    async fn put_piece(&self, task: TaskId, digest: Digest, piece: Bytes) -> Result<(), Error>;
    /// Hands in a result.
    async fn submit(&self, request: v1::SubmitRequest) -> Result<v1::SubmitReply, Error>;
    /// Says that a task came to nothing.
    async fn fail(&self, request: v1::FailRequest) -> Result<v1::FailReply, Error>;
    /// Says goodbye.
    async fn leave(&self) -> Result<v1::LeaveReply, Error>;
}

/// How long calls may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Opening a connection, with TLS and a proxy.
    pub connect: Span,
    /// A control message and its answer; a held one has its hold on top.
    pub control: Span,
    /// A piece up or down.
    pub piece: Span,
    /// A submission: the server reads all of it before it answers.
    pub submit: Span,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Span::from_secs(20),
            control: Span::from_secs(30),
            piece: Span::from_secs(300),
            submit: Span::from_secs(600),
        }
    }
}

/// Bounds a call in time.
pub(crate) async fn within<T>(
    call: &'static str,
    after: Span,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(after.as_duration(), answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Timeout { call, after }),
    }
}
