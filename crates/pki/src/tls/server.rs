//! The server's side of TLS. A client certificate is asked for and, when presented, must come from the CA, be for client
//! use and be valid now; a client without one is let in unauthenticated, since enrolment and signed requests need it.
//!
//! Sessions are not resumed: a resumed session would skip the check of the client's certificate.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use sheaf_domain::Timestamp;
use sheaf_runtime::Clock;

use super::{ALPN_H2, ALPN_HTTP1, ClockTime, VERSIONS, failed, provider, roots_of};
use crate::{CertificateAuthority, Error, ServerCredential};

/// The server's certificate, which may be replaced while connections are open: new handshakes get the new one.
#[derive(Debug)]
pub struct ServerCertificates(RwLock<Current>);

#[derive(Debug, Clone)]
struct Current {
    certified: Arc<CertifiedKey>,
    not_after: Timestamp,
}

impl ServerCertificates {
    /// Starts with `credential`.
    ///
    /// # Errors
    /// [`Error::KeyMismatch`], [`Error::Crypto`].
    pub fn new(credential: &ServerCredential) -> Result<Arc<ServerCertificates>, Error> {
        Ok(Arc::new(ServerCertificates(RwLock::new(Current::of(credential)?))))
    }

    /// Uses `credential` from the next handshake on.
    ///
    /// # Errors
    /// As [`ServerCertificates::new`]; the certificate in use stays.
    pub fn replace(&self, credential: &ServerCredential) -> Result<(), Error> {
        let next = Current::of(credential)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// When the certificate in use ends.
    pub fn not_after(&self) -> Timestamp {
        self.0.read().unwrap_or_else(PoisonError::into_inner).not_after
    }
}

impl Current {
    fn of(credential: &ServerCredential) -> Result<Current, Error> {
        let chain = vec![CertificateDer::from(credential.issued.der.clone())];
        Ok(Current {
            certified: Arc::new(super::client::certified(chain, &credential.key)?),
            not_after: credential.issued.not_after,
        })
    }
}

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).certified))
    }
}

/// Settings for the server's listener: TLS 1.3 only, client certificate asked for and not required, ALPN `h2` and
/// `http/1.1`. Who presented a certificate is read with [`peer_of_chain`](crate::peer_of_chain).
///
/// # Errors
/// [`Error::Crypto`] when the library refuses the settings.
pub fn server_config(
    ca: &CertificateAuthority,
    certificates: Arc<ServerCertificates>,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, Error> {
    let verifier = client_verifier(ca)?;
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(&VERSIONS)
        .map_err(failed("set up TLS 1.3"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What checks client certificates: one is asked for and not required, and must come from the CA.
///
/// # Errors
/// [`Error::Crypto`] when the library refuses the settings.
pub fn client_verifier(ca: &CertificateAuthority) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let roots = Arc::new(roots_of([ca.certificate_der().to_vec()])?);
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::crypto("set up the check of client certificates", error))
}

pub(super) fn private_key(pkcs8: &[u8]) -> PrivateKeyDer<'_> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8))
}
