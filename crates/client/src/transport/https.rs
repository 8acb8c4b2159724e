//! The native protocol over HTTPS: HTTP/1.1 with kept-alive connections, JSON control messages, raw pieces.
//!
//! The identity is the client certificate in the TLS settings, or with [`Signing`] a signature over every request, which passes
//! proxies that open TLS.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sheaf_domain::{Digest, ErrorKind, Span, TaskId, VersionRef};
use sheaf_messages::{Listed, bounds, v1};
use tower::service_fn;

use super::dial::Dialer;
use super::{Address, ProxySettings, Signing, Timeouts, Transport, within};
use crate::Error;

type Opened = std::pin::Pin<
    Box<dyn Future<Output = Result<hyper_util::rt::TokioIo<super::dial::Secured>, Error>> + Send>,
>;
type Connector =
    tower::util::BoxCloneSyncService<http::Uri, hyper_util::rt::TokioIo<super::dial::Secured>, Error>;

/// The HTTPS transport.
#[derive(Clone)]
pub struct HttpsTransport {
    client: Client<Connector, Full<Bytes>>,
    address: Address,
    signing: Option<Arc<Signing>>,
    timeouts: Timeouts,
}

impl std::fmt::Debug for HttpsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpsTransport({}, signed: {})", self.address, self.signing.is_some())
    }
}

/// One request: what to ask for, and what comes with it.
struct Ask {
    call: &'static str,
    method: Method,
    path: String,
    range: Option<String>,
    body: Bytes,
    body_digest: Digest,
    after: Span,
}

impl HttpsTransport {
    /// A transport to `address`; connects when it is first used. With `signing`, every request is signed.
    pub fn new(
        address: Address,
        proxy: ProxySettings,
        tls: &rustls::ClientConfig,
        signing: Option<Arc<Signing>>,
        timeouts: Timeouts,
    ) -> HttpsTransport {
        let dialer = Dialer::new(address.clone(), proxy, tls, b"http/1.1", timeouts.connect);
        HttpsTransport::over(address, dialer, signing, timeouts)
    }

    /// A transport that encrypts nothing, to a server on this machine that listens for it; `signing` says who calls.
    ///
    /// # Errors
    /// [`Error::Setting`] for any but a loopback address.
    pub fn plaintext(
        address: Address,
        signing: Option<Arc<Signing>>,
        timeouts: Timeouts,
    ) -> Result<HttpsTransport, Error> {
        let dialer = Dialer::plaintext(address.clone(), signing, timeouts.connect)?;
        Ok(HttpsTransport::over(address, dialer, None, timeouts))
    }

    fn over(
        address: Address,
        dialer: Dialer,
        signing: Option<Arc<Signing>>,
        timeouts: Timeouts,
    ) -> HttpsTransport {
        let dialer = Arc::new(dialer);
        let connector = service_fn(move |_: http::Uri| -> Opened {
            let dialer = Arc::clone(&dialer);
            Box::pin(async move { dialer.connect().await })
        });
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .build(tower::util::BoxCloneSyncService::new(connector));
        HttpsTransport { client, address, signing, timeouts }
    }

    async fn control<Q: Serialize, A: DeserializeOwned + Listed>(
        &self,
        call: &'static str,
        message: &Q,
        after: Span,
    ) -> Result<A, Error> {
        let body = serde_json::to_vec(message).map_err(|error| Error::bad_answer(call, error))?;
        let ask = Ask {
            call,
            method: Method::POST,
            path: format!("/native/v1/{call}"),
            range: None,
            body_digest: Digest::of(&body),
            body: Bytes::from(body),
            after,
        };
        let (_, answer) = self.exchange(ask).await?;
        sheaf_messages::decode_json(&answer).map_err(|error| Error::bad_answer(call, error))
    }

    async fn exchange(&self, ask: Ask) -> Result<(StatusCode, Bytes), Error> {
        let (call, after) = (ask.call, ask.after);
        within(call, after, async {
            let response = self.send(&ask).await?;
            let response = if self.clock_was_off(&response) { self.send(&ask).await? } else { response };
            self.answer(call, response).await
        })
        .await
    }

    async fn send(&self, ask: &Ask) -> Result<Response<Incoming>, Error> {
        let request = self.request(ask)?;
        self.client.request(request).await.map_err(|error| self.broken(&error))
    }

    /// Whether the server refused a signature for its time and told its own, by which it is worth signing again.
    fn clock_was_off(&self, response: &Response<Incoming>) -> bool {
        let server_time = response
            .headers()
            .get(sheaf_pki::HEADER_SERVER_TIME)
            .filter(|_| response.status() == StatusCode::UNAUTHORIZED)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        match (&self.signing, server_time) {
            (Some(signing), Some(server_time)) => signing.set_clock_by(server_time),
            _ => false,
        }
    }

    fn request(&self, ask: &Ask) -> Result<Request<Full<Bytes>>, Error> {
        let bad = |error: http::Error| Error::bad_answer(ask.call, error);
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(format!("https://{}{}", self.address, ask.path));
        if let Some(range) = &ask.range {
            request = request.header(header::RANGE, range);
        }
        if let Some(signing) = &self.signing {
            for (name, value) in signing.headers(ask.method.as_str(), &ask.path, ask.body_digest)? {
                request = request.header(name, value);
            }
        }
        let mut request = request.body(Full::new(ask.body.clone())).map_err(bad)?;
        if ask.method == Method::POST {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        Ok(request)
    }

    async fn answer(
        &self,
        call: &'static str,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let status = response.status();
        let body = Limited::new(response.into_body(), bounds::LIST_BODY_LEN_MAX).collect().await;
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(Error::bad_answer(call, "it is too large"));
            }
            Err(error) => {
                let reason = format!("the answer broke off: {error}");
                return Err(Error::Unreachable { address: self.address.to_string(), reason });
            }
        };
        if status.is_success() {
            return Ok((status, body));
        }
        Err(refusal(call, &self.address, status, &body))
    }

    fn broken(&self, error: &hyper_util::client::legacy::Error) -> Error {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut reason = error.to_string();
        while let Some(error) = source {
            // Our own dialler's errors say more than the client that carries them.
            match error.downcast_ref::<Error>() {
                Some(Error::Proxy { proxy, reason }) => {
                    return Error::Proxy { proxy: proxy.clone(), reason: reason.clone() };
                }
                Some(own) => reason = own.to_string(),
                None => reason = error.to_string(),
            }
            source = error.source();
        }
        Error::Unreachable { address: self.address.to_string(), reason }
    }
}

#[async_trait]
impl Transport for HttpsTransport {
    async fn enrol(&self, request: v1::EnrolRequest) -> Result<v1::EnrolReply, Error> {
        self.control("enrol", &request, self.timeouts.control).await
    }

    async fn renew(&self, request: v1::RenewRequest) -> Result<v1::RenewReply, Error> {
        self.control("renew", &request, self.timeouts.control).await
    }

    async fn beat(&self, request: v1::BeatRequest) -> Result<v1::BeatReply, Error> {
        self.control("beat", &request, self.timeouts.control).await
    }

    async fn next(&self, request: v1::NextRequest) -> Result<v1::NextReply, Error> {
        let after = Span::from_millis(self.timeouts.control.as_millis().saturating_add(request.hold_ms));
        self.control("next", &request, after).await
    }

    async fn read_version(&self, version: &VersionRef, offset: u64, len: u64) -> Result<Bytes, Error> {
        let VersionRef { run, lineage, version } = version;
        let last = offset.saturating_add(len).saturating_sub(1);
        let ask = Ask {
            call: "read_version",
            method: Method::GET,
            path: format!("/native/v1/versions/{run}/{lineage}/{version}/bytes"),
            range: Some(format!("bytes={offset}-{last}")),
            body: Bytes::new(),
            body_digest: Digest::of(b""),
            after: self.timeouts.piece,
        };
        let (status, body) = self.exchange(ask).await?;
        if status != StatusCode::PARTIAL_CONTENT {
            return Err(Error::bad_answer("read_version", format!("status {status} instead of 206")));
        }
        Ok(body)
    }

    async fn missing(&self, request: v1::MissingRequest) -> Result<v1::MissingReply, Error> {
        self.control("missing", &request, self.timeouts.control).await
    }

    async fn put_piece(&self, task: TaskId, digest: Digest, piece: Bytes) -> Result<(), Error> {
        let ask = Ask {
            call: "put_piece",
            method: Method::PUT,
            path: format!("/native/v1/tasks/{task}/pieces/{digest}"),
            range: None,
            body: piece,
            body_digest: digest,
            after: self.timeouts.piece,
        };
        self.exchange(ask).await?;
        Ok(())
    }

    async fn submit(&self, request: v1::SubmitRequest) -> Result<v1::SubmitReply, Error> {
        self.control("submit", &request, self.timeouts.submit).await
    }

    async fn fail(&self, request: v1::FailRequest) -> Result<v1::FailReply, Error> {
        self.control("fail", &request, self.timeouts.control).await
    }

    async fn leave(&self) -> Result<v1::LeaveReply, Error> {
        self.control("leave", &v1::LeaveRequest {}, self.timeouts.control).await
    }
}

/// What an answer other than success means: the server's own word for it, or that something else answered.
fn refusal(call: &'static str, address: &Address, status: StatusCode, body: &[u8]) -> Error {
    let said: Option<Said> = serde_json::from_slice(body).ok();
    if let Some((said, kind)) =
        said.and_then(|said| ErrorKind::from_name(&said.error.kind).map(|kind| (said, kind)))
    {
        return Error::Refused {
            kind,
            message: said.error.message.chars().take(MESSAGE_LEN_MAX).collect(),
            retry_after: said.error.retry_after_ms.map(Span::from_millis),
        };
    }
    if status.is_server_error() {
        return Error::Unreachable { address: address.to_string(), reason: format!("it answered {status}") };
    }
    Error::bad_answer(call, format!("it answered {status}"))
}

#[derive(serde::Deserialize)]
struct Said {
    error: SaidError,
}

#[derive(serde::Deserialize)]
struct SaidError {
    kind: String,
    message: String,
    retry_after_ms: Option<u64>,
}

const IDLE_MAX: usize = 8;
const MESSAGE_LEN_MAX: usize = 2_000;
