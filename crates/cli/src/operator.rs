//! The operator's connection: HTTPS with the operator's client certificate, JSON in and out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sheaf_admin_api::ErrorBody;
use sheaf_client::transport::Address;
use sheaf_domain::ErrorKind;
use sheaf_pki::{ClientTls, SiteKey};
use sheaf_runtime::{SystemClock, TaskScope};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::exit::Failure;

/// Where these options stand in every help page; commands that ask no server ignore them.
const HEADING: &str = "Operator's connection";

/// How to reach the server as an operator.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OperatorArgs {
    /// The directory with the operator's certificate and key.
    #[arg(
        long,
        global = true,
        env = "SHEAF_OPERATOR",
        hide_env_values = true,
        value_name = "DIR",
        default_value = "sheaf-data/operator",
        help_heading = HEADING
    )]
    pub(crate) operator: PathBuf,
    /// The server's address; by default the one the operator's directory names.
    #[arg(
        long,
        global = true,
        env = "SHEAF_SERVER",
        hide_env_values = true,
        value_name = "HOST:PORT",
        help_heading = HEADING
    )]
    pub(crate) server: Option<String>,
}

/// How long a connection or an answer without a hold may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest JSON answer taken, in bytes.
const ANSWER_LEN_MAX: usize = 256 * 1024 * 1024;

/// An operator's client: one connection, made when first used and made again when it breaks.
pub(crate) struct Operator {
    address: Address,
    tls: Arc<rustls::ClientConfig>,
    connection: Option<SendRequest<Full<Bytes>>>,
    scope: TaskScope,
}

impl Operator {
    /// Reads the operator's credential; connects later.
    pub(crate) fn open(args: &OperatorArgs) -> anyhow::Result<Operator> {
        let dir = &args.operator;
        if !dir.is_dir() {
            return Err(Failure::usage(format!(
                "there is no operator credential in {}; name the directory with --operator (a server makes one in its data directory)",
                dir.display()
            ))
            .into());
        }
        let address = match &args.server {
            Some(address) => address.clone(),
            None => read_text(&dir.join(sheaf_server::OPERATOR_ADDRESS_FILE))?.trim().to_owned(),
        };
        let ca_pem = read_text(&dir.join(sheaf_server::OPERATOR_CA_FILE))?;
        let certificate = read_text(&dir.join(sheaf_server::OPERATOR_CERTIFICATE_FILE))?;
        let key = SiteKey::load(&dir.join(sheaf_server::OPERATOR_KEY_FILE))?;
        let facts = sheaf_pki::certificate_facts(ca_pem.as_bytes())?;
        let tls = ClientTls {
            ca_pem: &ca_pem,
            ca_pin: facts.key_fingerprint,
            identity: Some((&certificate, &key)),
            extra_roots: None,
            alpn: &[sheaf_pki::ALPN_HTTP1],
            clock: SystemClock::shared(),
        };
        Ok(Operator {
            address: Address::parse(&address)?,
            tls: Arc::new(sheaf_pki::client_config(&tls)?),
            connection: None,
            scope: TaskScope::new(),
        })
    }

    /// Asks for something.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        let answer = self.call(Method::GET, path, Bytes::new(), TIMEOUT).await?;
        parse(&answer)
    }

    /// Asks for something that may be held for `hold`.
    pub(crate) async fn poll<T: DeserializeOwned>(
        &mut self,
        path: &str,
        hold: Duration,
    ) -> anyhow::Result<T> {
        let answer = self.call(Method::GET, path, Bytes::new(), TIMEOUT + hold).await?;
        parse(&answer)
    }

    /// Tells something and takes the answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let answer = self.post_raw(path, body, TIMEOUT).await?;
        parse(&answer)
    }

    /// Tells something whose answer may take long.
    pub(crate) async fn post_long<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let answer = self.post_raw(path, body, Duration::from_secs(24 * 3600)).await?;
        parse(&answer)
    }

    /// Tells something whose answer is empty.
    pub(crate) async fn tell(&mut self, path: &str, body: &impl Serialize) -> anyhow::Result<()> {
        self.post_raw(path, body, TIMEOUT).await.map(drop)
    }

    /// Uploads raw bytes.
    pub(crate) async fn put(&mut self, path: &str, body: Bytes) -> anyhow::Result<()> {
        self.call(Method::PUT, path, body, Duration::from_secs(300)).await.map(drop)
    }

    async fn post_raw(
        &mut self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> anyhow::Result<Bytes> {
        let body = serde_json::to_vec(body)?;
        self.call(Method::POST, path, Bytes::from(body), timeout).await
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> anyhow::Result<Bytes> {
        let response =
            tokio::time::timeout(timeout, self.send(method, path, body)).await.map_err(|_| {
                Failure::new(ErrorKind::Timeout, format!("{} did not answer in time", self.address))
            })??;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LEN_MAX).collect();
        let body = tokio::time::timeout(timeout, body)
            .await
            .map_err(|_| anyhow!("the answer did not end in time"))?;
        let body = body.map_err(|error| {
            Failure::new(ErrorKind::Unavailable, format!("the answer broke off: {error}"))
        })?;
        let body = body.to_bytes();
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body).into()) }
    }

    /// Streams a raw answer into `sink`, part by part; returns how many bytes came before it ended or broke.
    pub(crate) async fn stream(
        &mut self,
        path: &str,
        mut sink: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let body =
                Limited::new(body, ANSWER_LEN_MAX).collect().await.map_err(|error| anyhow!("{error}"))?;
            return Err(refusal(status, &body.to_bytes()).into());
        }
        let mut taken = 0;
        while let Some(frame) = tokio::time::timeout(TIMEOUT, body.frame()).await.ok().flatten() {
            let Ok(frame) = frame else { break };
            if let Ok(part) = frame.into_data() {
                taken += part.len() as u64;
                sink(&part)?;
            }
        }
        Ok(taken)
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let request = |body: Bytes| {
            Request::builder()
                .method(method.clone())
                .uri(format!("/admin/v1{path}"))
                .header(http::header::HOST, self.address.to_string())
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(Full::new(body))
        };
        if let Some(connection) = self.connection.as_mut().filter(|connection| !connection.is_closed())
            && connection.ready().await.is_ok()
        {
            match connection.send_request(request(body.clone())?).await {
                Ok(response) => return Ok(response),
                // What may have reached the server is sent again only where twice is as good as once.
                Err(error) if method == Method::POST && !error.is_canceled() => {
                    return Err(self.broke_off(&error).into());
                }
                Err(_) => {}
            }
        }
        let ready = request(body)?;
        let mut connection = self.connect().await?;
        let response = connection.send_request(ready).await.map_err(|error| self.broke_off(&error))?;
        self.connection = Some(connection);
        Ok(response)
    }

    fn broke_off(&self, error: &hyper::Error) -> Failure {
        let message = format!("the connection to the server at {} broke off: {error}", self.address);
        Failure::new(ErrorKind::Unavailable, message)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let unreachable = |error: std::io::Error| {
            let message = format!("cannot reach the server at {}: {error}; is it running?", self.address);
            Failure::new(ErrorKind::Unavailable, message)
        };
        let host = self.address.host().to_owned();
        let stream = TcpStream::connect((host.as_str(), self.address.port())).await.map_err(unreachable)?;
        let name = ServerName::try_from(host).context("the server's name")?;
        let stream =
            TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.map_err(unreachable)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        self.scope.spawn(async move {
            // A connection that breaks is made again by the next call.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(answer)
        .context("the server's answer is not understood; do client and server have the same version?")
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => {
            let kind = ErrorKind::from_name(&body.error.kind).unwrap_or(ErrorKind::Internal);
            Failure::new(kind, body.error.message)
        }
        Err(_) => Failure::new(ErrorKind::Internal, format!("the server answered {status}")),
    }
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
