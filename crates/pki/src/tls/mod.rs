//! TLS settings: version 1.3 only, both ends verified against the federation's CA, time from the injected clock.

mod client;
mod fault;
mod server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, SupportedProtocolVersion};
use sheaf_runtime::Clock;

use crate::Error;

pub(crate) use client::pinned_ca;
pub use client::{ClientTls, ForeignServer, client_config};
pub use fault::TlsFault;
pub use server::{ServerCertificates, client_verifier, server_config};

/// HTTP/2 in the protocol negotiation.
pub const ALPN_H2: &[u8] = b"h2";
/// HTTP/1.1 in the protocol negotiation.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

static VERSIONS: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let now = std::time::Duration::from_millis(self.0.now().as_millis());
        Some(UnixTime::since_unix_epoch(now))
    }
}

fn roots_of(der: impl IntoIterator<Item = Vec<u8>>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in der {
        roots
            .add(CertificateDer::from(certificate))
            .map_err(|error| Error::malformed("the CA certificate", error.to_string()))?;
    }
    Ok(roots)
}

fn failed(action: &'static str) -> impl FnOnce(rustls::Error) -> Error {
    move |error| Error::crypto(action, error)
}
