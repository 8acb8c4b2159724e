//! How a participant's connections are opened in a simulation.

use async_trait::async_trait;
use sheaf_client::transport::{Address, Connect, Stream};

/// The port of the server.
pub(crate) const PORT: u16 = 8443;
/// The name of the server's host, also in its certificate.
pub(crate) const SERVER: &str = "server";

/// Opens connections over the simulated network.
#[derive(Debug)]
pub(crate) struct SimulatedTcp;

#[async_trait]
impl Connect for SimulatedTcp {
    async fn connect(&self, address: &Address) -> std::io::Result<Box<dyn Stream>> {
        let stream = turmoil::net::TcpStream::connect((address.host(), address.port())).await?;
        Ok(Box::new(stream))
    }
}
