//! The native protocol over gRPC: one HTTP/2 connection, opened when it is first needed and again when it broke.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sheaf_domain::{Digest, ErrorKind, Span, TaskId, VersionRef};
use sheaf_messages::v1::participant_client::ParticipantClient;
use sheaf_messages::{bounds, v1, version_to_wire};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tower::service_fn;

use super::dial::Dialer;
use super::{Address, ProxySettings, Signing, Timeouts, Transport, within};
use crate::Error;

/// The gRPC transport. The client certificate in its TLS settings is its identity.
#[derive(Debug, Clone)]
pub struct GrpcTransport {
    client: ParticipantClient<Channel>,
    address: Address,
    timeouts: Timeouts,
}

impl GrpcTransport {
    /// A transport to `address`; connects when it is first used.
    ///
    /// # Errors
    /// [`Error::Setting`] when the address makes no URI.
    pub fn new(
        address: Address,
        proxy: ProxySettings,
        tls: &rustls::ClientConfig,
        timeouts: Timeouts,
    ) -> Result<GrpcTransport, Error> {
        let dialer = Dialer::new(address.clone(), proxy, tls, b"h2", timeouts.connect);
        GrpcTransport::over(address, dialer, timeouts)
    }

    /// A transport that encrypts nothing, to a server on this machine that listens for it; `signing` says who calls.
    ///
    /// # Errors
    /// [`Error::Setting`] for any but a loopback address.
    pub fn plaintext(
        address: Address,
        signing: Option<Arc<Signing>>,
        timeouts: Timeouts,
    ) -> Result<GrpcTransport, Error> {
        let dialer = Dialer::plaintext(address.clone(), signing, timeouts.connect)?;
        GrpcTransport::over(address, dialer, timeouts)
    }

    fn over(address: Address, dialer: Dialer, timeouts: Timeouts) -> Result<GrpcTransport, Error> {
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .map_err(|error| Error::setting("address", error.to_string()))?
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME_LEN);
        let dialer = Arc::new(dialer);
        let channel = endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let dialer = Arc::clone(&dialer);
            async move { dialer.connect().await }
        }));
        let client = ParticipantClient::new(channel)
            .max_decoding_message_size(bounds::LIST_BODY_LEN_MAX)
            .max_encoding_message_size(bounds::LIST_BODY_LEN_MAX);
        Ok(GrpcTransport { client, address, timeouts })
    }

    async fn call<T>(
        &self,
        name: &'static str,
        after: Span,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        let answer = async { answer.await.map_err(|status| refusal(&self.address, &status)) };
        Ok(within(name, after, answer).await?.into_inner())
    }
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn enrol(&self, request: v1::EnrolRequest) -> Result<v1::EnrolReply, Error> {
        self.call("enrol", self.timeouts.control, self.client.clone().enrol(request)).await
    }

    async fn renew(&self, request: v1::RenewRequest) -> Result<v1::RenewReply, Error> {
        self.call("renew", self.timeouts.control, self.client.clone().renew(request)).await
    }

    async fn beat(&self, request: v1::BeatRequest) -> Result<v1::BeatReply, Error> {
        self.call("beat", self.timeouts.control, self.client.clone().beat(request)).await
    }

    async fn next(&self, request: v1::NextRequest) -> Result<v1::NextReply, Error> {
        let after = Span::from_millis(self.timeouts.control.as_millis().saturating_add(request.hold_ms));
        self.call("next", after, self.client.clone().next(request)).await
    }

    async fn read_version(&self, version: &VersionRef, offset: u64, len: u64) -> Result<Bytes, Error> {
        let version = Some(version_to_wire(version));
        let request = v1::ReadVersionRequest { version, offset, length: len };
        let mut client = self.client.clone();
        let reply = self.call("read_version", self.timeouts.piece, client.read_version(request));
        Ok(reply.await?.content)
    }

    async fn missing(&self, request: v1::MissingRequest) -> Result<v1::MissingReply, Error> {
        self.call("missing", self.timeouts.control, self.client.clone().missing(request)).await
    }

    async fn put_piece(&self, task: TaskId, digest: Digest, piece: Bytes) -> Result<(), Error> {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let header = v1::PieceHeader { task: task.to_string(), digest: digest.to_string(), length };
        let first = v1::PutPieceRequest { header: Some(header), chunk: Bytes::new() };
        let chunks = Chunks { first: Some(first), left: piece };
        let mut client = self.client.clone();
        let sent = client.put_piece(Request::new(chunks));
        self.call("put_piece", self.timeouts.piece, sent).await?;
        Ok(())
    }

    async fn submit(&self, request: v1::SubmitRequest) -> Result<v1::SubmitReply, Error> {
        self.call("submit", self.timeouts.submit, self.client.clone().submit(request)).await
    }

    async fn fail(&self, request: v1::FailRequest) -> Result<v1::FailReply, Error> {
        self.call("fail", self.timeouts.control, self.client.clone().fail(request)).await
    }

    async fn leave(&self) -> Result<v1::LeaveReply, Error> {
        let mut client = self.client.clone();
        self.call("leave", self.timeouts.control, client.leave(v1::LeaveRequest {})).await
    }
}

/// The messages of one upload, cut from the piece without copying it.
struct Chunks {
    first: Option<v1::PutPieceRequest>,
    left: Bytes,
}

impl tokio_stream::Stream for Chunks {
    type Item = v1::PutPieceRequest;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<v1::PutPieceRequest>> {
        if let Some(first) = self.first.take() {
            return std::task::Poll::Ready(Some(first));
        }
        if self.left.is_empty() {
            return std::task::Poll::Ready(None);
        }
        let len = self.left.len().min(bounds::CHUNK_LEN_MAX);
        let chunk = self.left.split_to(len);
        std::task::Poll::Ready(Some(v1::PutPieceRequest { header: None, chunk }))
    }
}

/// What a status means: the server's own word for it if it gave one, else the state of the connection.
fn refusal(address: &Address, status: &Status) -> Error {
    let text = |key: &str| status.metadata().get(key).and_then(|value| value.to_str().ok());
    if let Some(kind) = text("sheaf-error-kind").and_then(ErrorKind::from_name) {
        let retry_after = text("sheaf-retry-after-ms").and_then(|ms| ms.parse().ok());
        return Error::Refused {
            kind,
            message: status.message().chars().take(MESSAGE_LEN_MAX).collect(),
            retry_after: retry_after.map(Span::from_millis),
        };
    }
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal | Code::Aborted => {
            Error::Unreachable { address: address.to_string(), reason: cause(status) }
        }
        code => Error::bad_answer("a call", format!("gRPC status {code:?}: {}", status.message())),
    }
}

/// The innermost reason, which names what happened on the wire.
fn cause(status: &Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        reason = error.to_string();
        source = error.source();
    }
    reason.chars().take(MESSAGE_LEN_MAX).collect()
}

const KEEP_ALIVE: Duration = Duration::from_secs(20);
const WINDOW: u32 = 1 << 20;
/// Frames as large as this are taken: with those of 16 KiB that the protocol starts with, a model costs twice the processor.
const FRAME_LEN: u32 = 256 * 1024;
const MESSAGE_LEN_MAX: usize = 2_000;
