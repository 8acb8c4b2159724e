//! The listener of Flower's oldest clients (`start_client`), which a server opens only when it is asked to.
//!
//! Its clients prove nothing about themselves: whoever reaches the address takes part.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use sheaf_domain::{ByteSize, SiteName};
use sheaf_runtime::SystemClock;
use sheaf_wire_flower::legacy::{CLIENTS_MAX, Join, JoinSettings, join_router};
use tokio::sync::Semaphore;

use crate::Error;
use crate::descriptors::Bound;
use crate::flower::acceptor_with;
use crate::listen::{Listener, Security, Windows, accept};
use crate::serve::{Server, bind};

/// Where the oldest clients are served, and how.
#[derive(Debug, Clone)]
pub struct JoinListener {
    /// The address.
    pub address: SocketAddr,
    /// Certificate chain and key (PEM); none for no TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The longest message either way.
    pub message_max: ByteSize,
    /// The property by which clients are named, instead of by a place.
    pub name_property: Option<String>,
}

impl Server {
    /// Opens the listener; its clients take part in the runs of this server. Returns where it listens.
    ///
    /// # Errors
    /// [`Error`], saying what stands in the way.
    /// # Cancel safety
    /// Not safe: run it to its end.
    pub async fn listen_join(&mut self, listener: JoinListener) -> Result<SocketAddr, Error> {
        let tls = listener
            .tls
            .as_ref()
            .map(|(certificate, key)| acceptor_with(certificate, key, None))
            .transpose()?;
        let socket = match bind(listener.address).await {
            // A machine without IPv6 has all of its addresses nevertheless.
            Err(Error::Listen { .. })
                if listener.address.is_ipv6() && listener.address.ip().is_unspecified() =>
            {
                bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, listener.address.port()))).await?
            }
            bound => bound?,
        };
        let address = socket.local_addr().map_err(Error::Process)?;
        let operator = SiteName::new("local")
            .map_err(|error| Error::Config { place: "operator".to_owned(), message: error.to_string() })?;
        let settings = JoinSettings {
            message_len_max: listener.message_max.as_bytes(),
            name_property: listener.name_property,
        };
        let join = Join::new(self.coordinator.handle(), operator, settings);
        let encrypted = tls.is_some();
        let listener = Arc::new(Listener {
            security: Security::Anonymous(tls),
            router: join_router(join.clone()),
            clock: SystemClock::shared(),
            handshake_timeout: self.config.listen.handshake_timeout,
            connections: Arc::new(Semaphore::new(CLIENTS_MAX)),
            bound: Bound::Configured,
            windows: Windows::new(),
        });
        self.accepting.spawn(accept(socket, listener, self.accepting.clone(), self.connections.clone()));
        self.join = Some(join);
        tracing::info!(%address, tls = encrypted, "serving start_client");
        if !encrypted {
            tracing::warn!(%address, "connections of start_client are not encrypted, as upstream without certificates");
        }
        Ok(address)
    }

    /// Sends the oldest clients away, to come back after so many seconds or (0) never. Those at work have the drain's time to finish.
    ///
    /// # Cancel safety
    /// Clients that were told stay told.
    pub async fn dismiss_clients(&self, back_in_s: i64) {
        if let Some(join) = &self.join {
            join.dismiss(back_in_s, self.config.listen.drain_timeout.as_duration()).await;
        }
    }
}
