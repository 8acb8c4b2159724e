//! Opens connections to the server: TLS, directly or through a proxy; plaintext on this machine, for measuring.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use sheaf_domain::Span;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ProxySettings, Signing, Stream};
use crate::Error;

/// Where a server listens: a host name or IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Reads `host:port`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// [`Error::Setting`] when it is neither.
    pub fn parse(text: &str) -> Result<Address, Error> {
        let bad = || Error::setting(format!("address {text:?}"), "it must be like host:port");
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(bad)?,
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        if ServerName::try_from(host).is_err() {
            return Err(bad());
        }
        Ok(Address { host: host.to_owned(), port })
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is this machine, whatever a resolver says.
    fn is_loopback(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Opens connections that speak one application protocol.
#[derive(Clone)]
pub(super) struct Dialer {
    address: Address,
    security: Security,
    timeout: Span,
}

#[derive(Clone)]
enum Security {
    Tls {
        config: Arc<rustls::ClientConfig>,
        proxy: ProxySettings,
    },
    /// Greets as a site, or as nobody.
    Plaintext(Option<Arc<Signing>>),
}

impl Dialer {
    /// A dialler to `address` that offers the application protocol `alpn`.
    pub(super) fn new(
        address: Address,
        proxy: ProxySettings,
        tls: &rustls::ClientConfig,
        alpn: &[u8],
        timeout: Span,
    ) -> Dialer {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![alpn.to_vec()];
        Dialer { address, security: Security::Tls { config: Arc::new(tls), proxy }, timeout }
    }

    /// A dialler to `address`, which must be this machine's, that greets with `signing` and encrypts nothing.
    pub(super) fn plaintext(
        address: Address,
        signing: Option<Arc<Signing>>,
        timeout: Span,
    ) -> Result<Dialer, Error> {
        if !address.is_loopback() {
            let reason = "plaintext goes to a loopback address only, such as 127.0.0.1";
            return Err(Error::setting(format!("address {address}"), reason));
        }
        Ok(Dialer { address, security: Security::Plaintext(signing), timeout })
    }

    /// Opens a connection within the time allowed.
    pub(super) async fn connect(&self) -> Result<TokioIo<Secured>, Error> {
        match tokio::time::timeout(self.timeout.as_duration(), self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::Timeout { call: "connect", after: self.timeout }),
        }
    }

    async fn open(&self) -> Result<TokioIo<Secured>, Error> {
        match &self.security {
            Security::Tls { config, proxy } => self.open_tls(config, proxy).await,
            Security::Plaintext(signing) => self.open_plaintext(signing.as_deref()).await,
        }
    }

    async fn open_plaintext(&self, signing: Option<&Signing>) -> Result<TokioIo<Secured>, Error> {
        let greeting = match signing {
            Some(signing) => signing.greeting()?,
            None => sheaf_pki::greeting(&[]),
        };
        let mut stream = ProxySettings::none().connect(&self.address).await?;
        stream.write_all(greeting.as_bytes()).await.map_err(|error| Error::Unreachable {
            address: self.address.to_string(),
            reason: error.to_string(),
        })?;
        Ok(TokioIo::new(Secured::Plaintext(stream)))
    }

    async fn open_tls(
        &self,
        config: &Arc<rustls::ClientConfig>,
        proxy: &ProxySettings,
    ) -> Result<TokioIo<Secured>, Error> {
        let stream = proxy.connect(&self.address).await?;
        let name = ServerName::try_from(self.address.host.clone())
            .map_err(|_| Error::setting("address", "its host is no name a certificate can carry"))?;
        let secured = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
        let secured = secured.map_err(|error| Error::Unreachable {
            address: self.address.to_string(),
            reason: format!("TLS: {error}"),
        })?;
        Ok(TokioIo::new(Secured::Tls(Box::new(secured))))
    }
}

/// A connection, in the form the HTTP client takes.
pub(super) enum Secured {
    /// With TLS.
    Tls(Box<TlsStream<Box<dyn Stream>>>),
    /// Without, on this machine.
    Plaintext(Box<dyn Stream>),
}

impl Connection for Secured {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl tokio::io::AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut *self {
            Secured::Tls(stream) => Pin::new(stream).poll_read(context, buf),
            Secured::Plaintext(stream) => Pin::new(stream).poll_read(context, buf),
        }
    }
}

impl tokio::io::AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut *self {
            Secured::Tls(stream) => Pin::new(stream).poll_write(context, buf),
            Secured::Plaintext(stream) => Pin::new(stream).poll_write(context, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut *self {
            Secured::Tls(stream) => Pin::new(stream).poll_flush(context),
            Secured::Plaintext(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut *self {
            Secured::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Secured::Plaintext(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match &mut *self {
            Secured::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bufs),
            Secured::Plaintext(stream) => Pin::new(stream).poll_write_vectored(context, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Secured::Tls(stream) => stream.is_write_vectored(),
            Secured::Plaintext(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_stays_on_this_machine() {
        let dial = |text: &str| Dialer::plaintext(Address::parse(text).unwrap(), None, Span::from_secs(1));
        for here in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80"] {
            assert!(dial(here).is_ok(), "{here}");
        }
        // A name may mean another machine.
        for elsewhere in ["localhost:80", "10.0.0.1:80", "0.0.0.0:80", "sheaf.example:80"] {
            assert!(dial(elsewhere).is_err(), "{elsewhere}");
        }
    }

    #[test]
    fn addresses_read_back() {
        for text in ["localhost:8443", "127.0.0.1:1", "[::1]:65535", "sheaf.example:443"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "localhost", "host:0", "host:65536", "::1:80", "[::1:80", "a b:1", ":1"] {
            assert!(Address::parse(text).is_err(), "{text:?} was taken");
        }
    }
}
