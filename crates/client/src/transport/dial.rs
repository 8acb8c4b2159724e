//! Opens TLS connections to the server, directly or through a proxy.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use sheaf_domain::Span;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ProxySettings;
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
    proxy: ProxySettings,
    tls: Arc<rustls::ClientConfig>,
    timeout: Span,
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
        Dialer { address, proxy, tls: Arc::new(tls), timeout }
    }

    /// Opens a connection within the time allowed.
    pub(super) async fn connect(&self) -> Result<TokioIo<Secured>, Error> {
        match tokio::time::timeout(self.timeout.as_duration(), self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::Timeout { call: "connect", after: self.timeout }),
        }
    }

    async fn open(&self) -> Result<TokioIo<Secured>, Error> {
        let stream = self.proxy.connect(&self.address).await?;
        let name = ServerName::try_from(self.address.host.clone())
            .map_err(|_| Error::setting("address", "its host is no name a certificate can carry"))?;
        let secured = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        let secured = secured.map_err(|error| Error::Unreachable {
            address: self.address.to_string(),
            reason: format!("TLS: {error}"),
        })?;
        Ok(TokioIo::new(Secured(secured)))
    }
}

/// A TLS connection, in the form the HTTP client takes.
pub(super) struct Secured(TlsStream<TcpStream>);

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
        Pin::new(&mut self.0).poll_read(context, buf)
    }
}

impl tokio::io::AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
