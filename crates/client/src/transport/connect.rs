//! What opens the connection below TLS: the machine's TCP, or whatever stands in for it in a simulation.
//!
//! It opens streams and knows nothing of what travels over them.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Address;

/// A connection's two directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Opens connections.
#[async_trait]
pub trait Connect: std::fmt::Debug + Send + Sync + 'static {
    /// Opens a connection to `address`.
    ///
    /// # Errors
    /// When nobody answers there.
    /// # Cancel safety
    /// Dropped, the connection is not opened.
    async fn connect(&self, address: &Address) -> std::io::Result<Box<dyn Stream>>;
}

/// The machine's TCP.
#[derive(Debug)]
pub(super) struct Tcp;

#[async_trait]
impl Connect for Tcp {
    async fn connect(&self, address: &Address) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((address.host(), address.port())).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
