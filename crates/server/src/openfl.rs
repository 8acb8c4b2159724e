//! The listener of a federation whose collaborators are stock OpenFL's, with the certificates of its own workspace.
//!
//! TLS 1.3 alone, as upstream's. Where the plan asks for client certificates, each is asked for in the handshake, over either transport, and
//! its common name is whose the calls are; turning TLS or certificates off is the plan's to say, and is said again at every start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sheaf_runtime::SystemClock;
use sheaf_wire_openfl::{Federation, Opening, plan, router};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::Error;
use crate::descriptors::Bound;
use crate::listen::{Listener, Security, Windows, accept};
use crate::serve::{Server, bind};

/// The certificates that collaborators are verified by and verify with, in the plan's folder.
const CHAIN_FILE: &str = "cert_chain.crt";

impl Server {
    /// Opens a federation and the listener its plan asks for. Returns where it listens.
    ///
    /// # Errors
    /// [`Error`], saying what stands in the way.
    /// # Cancel safety
    /// Not safe: run it to its end.
    pub async fn listen_openfl(&mut self, opening: Opening) -> Result<(SocketAddr, Federation), Error> {
        let network = opening.plan.network.clone();
        let tls = network
            .use_tls
            .then(|| acceptor(&opening.workspace.join(&network.cert_folder), &network))
            .transpose()?;
        let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), network.agg_port);
        let socket = match bind(address).await {
            // A machine without IPv6 has all of its addresses nevertheless.
            Err(Error::Listen { .. }) => {
                bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, network.agg_port))).await?
            }
            bound => bound?,
        };
        let address = socket.local_addr().map_err(Error::Process)?;
        let refused = |error: &dyn std::fmt::Display| Error::Config {
            place: "the federation".to_owned(),
            message: error.to_string(),
        };
        let federation = Federation::open(self.coordinator.handle(), opening).await;
        let federation = federation.map_err(|error| refused(&error))?;
        self.accepting.spawn_until_cancelled(federation.clone().follow());
        let given_up = match (network.use_tls, network.require_client_auth) {
            (true, true) => None,
            (true, false) => {
                Some("require_client_auth is false: collaborators are who they say, and nobody checks it")
            }
            _ => Some(
                "use_tls is false: nothing is encrypted, and collaborators are who they say, and nobody checks it",
            ),
        };
        if let Some(given_up) = given_up {
            tracing::warn!("{given_up}");
        }
        let notices = given_up.map(str::to_owned).into_iter().collect();
        self.coordinator.handle().set_notices(federation.run(), notices);
        let listener = Arc::new(Listener {
            security: Security::Workspace { acceptor: tls, certified: network.require_client_auth },
            router: router(federation.clone()),
            clock: SystemClock::shared(),
            handshake_timeout: self.config.listen.handshake_timeout,
            connections: Arc::new(Semaphore::new(self.config.listen.connections_max)),
            bound: Bound::Configured,
            windows: Windows::new(),
        });
        self.accepting.spawn(accept(socket, listener, self.accepting.clone(), self.connections.clone()));
        tracing::info!(%address, tls = network.use_tls, "serving OpenFL");
        Ok((address, federation))
    }
}

fn acceptor(folder: &Path, network: &plan::Network) -> Result<TlsAcceptor, Error> {
    let broken = |path: &Path, error: &dyn std::fmt::Display| Error::Config {
        place: path.display().to_string(),
        message: error.to_string(),
    };
    let chain = |path: &Path| {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        read.map_err(|error| broken(path, &error))
    };
    let name = network.agg_addr.to_lowercase();
    let certificate = folder.join(format!("server/agg_{name}.crt"));
    let key = folder.join(format!("server/agg_{name}.key"));
    let own = chain(&certificate)?;
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| broken(&key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| broken(&certificate, &error))?;
    let builder = if network.require_client_auth {
        let path = folder.join(CHAIN_FILE);
        let mut roots = RootCertStore::empty();
        // Collaborators present their certificate alone: the signing authority counts as much as the root above it.
        for authority in chain(&path)? {
            roots.add(authority).map_err(|error| broken(&path, &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.map_err(|error| broken(&path, &error))?)
    } else {
        builder.with_no_client_auth()
    };
    let built = builder.with_single_cert(own, private);
    let mut built = built.map_err(|error| broken(&certificate, &error))?;
    // A resumed session would skip the check of the client's certificate.
    built.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    built.send_tls13_tickets = 0;
    built.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(built)))
}
