//! The way to the server as it stands: which transport, which credential, which of the server's addresses.

use std::sync::{Arc, Mutex, PoisonError};

use sheaf_domain::{Digest, SiteName};
use sheaf_pki::{ClientTls, SiteKey, client_config};
use sheaf_runtime::{Clock, Entropy};

use super::home::Enrolled;
use crate::Error;
use crate::transport::{Address, GrpcTransport, HttpsTransport, ProxySettings, Signing, Timeouts, Transport};

/// Which transport a participant uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportKind {
    /// gRPC over HTTP/2.
    #[default]
    Grpc,
    /// JSON and raw bodies over HTTP/1.1.
    Https,
}

/// How a participant proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// By its certificate, in TLS.
    #[default]
    Certificate,
    /// By a signature over every request, for proxies that open TLS; HTTPS only.
    Signed,
}

/// How a participant reaches the server.
#[derive(Debug, Clone, Default)]
pub struct LinkOptions {
    /// Which transport.
    pub transport: TransportKind,
    /// How it proves who it is.
    pub auth: Auth,
    /// The proxy on the way, if any.
    pub proxy: ProxySettings,
    /// Further roots in PEM, of a proxy that opens TLS; with [`Auth::Signed`] only.
    pub extra_roots: Option<String>,
    /// How long calls may take.
    pub timeouts: Timeouts,
}

impl LinkOptions {
    /// Refuses combinations that cannot work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.auth == Auth::Signed && self.transport == TransportKind::Grpc {
            return Err(Error::setting("auth", "signed requests go over the https transport only"));
        }
        if self.extra_roots.is_some() && self.auth != Auth::Signed {
            return Err(Error::setting(
                "extra roots",
                "they are for a proxy that opens TLS, where only signed requests pass",
            ));
        }
        Ok(())
    }
}

/// Makes transports.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    pub(crate) options: LinkOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// The authority to expect at the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Authority<'a> {
    pub(crate) ca_pem: &'a str,
    pub(crate) ca_pin: Digest,
}

impl Maker {
    /// Without an identity, for enrolment.
    pub(crate) fn anonymous(
        &self,
        server: &str,
        authority: Authority<'_>,
    ) -> Result<Arc<dyn Transport>, Error> {
        self.make(self.options.transport, server, authority, None, None)
    }

    /// With the credential of an enrolled site.
    pub(crate) fn enrolled(
        &self,
        server: &str,
        enrolled: &Enrolled,
        key: &Arc<SiteKey>,
    ) -> Result<Arc<dyn Transport>, Error> {
        match self.options.auth {
            Auth::Signed => self.signed(server, enrolled, key),
            Auth::Certificate => {
                let identity = Some((enrolled.certificate_pem.as_str(), key.as_ref()));
                self.make(self.options.transport, server, enrolled.authority(), identity, None)
            }
        }
    }

    /// With signed requests, whichever transport is chosen: also for a certificate that has ended.
    pub(crate) fn signed(
        &self,
        server: &str,
        enrolled: &Enrolled,
        key: &Arc<SiteKey>,
    ) -> Result<Arc<dyn Transport>, Error> {
        let signing = self.signing(&enrolled.site, &enrolled.trust_domain, key);
        self.make(TransportKind::Https, server, enrolled.authority(), None, Some(signing))
    }

    fn signing(&self, site: &SiteName, trust_domain: &str, key: &Arc<SiteKey>) -> Arc<Signing> {
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Arc::new(Signing::new(Arc::clone(key), site.clone(), trust_domain.to_owned(), clock, entropy))
    }

    fn make(
        &self,
        kind: TransportKind,
        server: &str,
        authority: Authority<'_>,
        identity: Option<(&str, &SiteKey)>,
        signing: Option<Arc<Signing>>,
    ) -> Result<Arc<dyn Transport>, Error> {
        let address = Address::parse(server)?;
        let tls = client_config(&ClientTls {
            ca_pem: authority.ca_pem,
            ca_pin: authority.ca_pin,
            identity,
            extra_roots: self.options.extra_roots.as_deref().filter(|_| identity.is_none()),
            alpn: &[],
            clock: Arc::clone(&self.clock),
        })?;
        let (proxy, timeouts) = (self.options.proxy.clone(), self.options.timeouts);
        Ok(match kind {
            TransportKind::Grpc => Arc::new(GrpcTransport::new(address, proxy, &tls, timeouts)?),
            TransportKind::Https => Arc::new(HttpsTransport::new(address, proxy, &tls, signing, timeouts)),
        })
    }
}

/// The transport in use; replaced when the certificate is renewed or an address does not answer.
#[derive(Debug)]
pub(crate) struct Link {
    maker: Maker,
    key: Arc<SiteKey>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    enrolled: Enrolled,
    server_idx: usize,
    transport: Arc<dyn Transport>,
}

impl Link {
    /// The way of an enrolled site.
    pub(crate) fn new(maker: Maker, enrolled: Enrolled, key: Arc<SiteKey>) -> Result<Link, Error> {
        let server = enrolled.servers.first().ok_or_else(|| Error::setting("servers", "there is none"))?;
        let transport = maker.enrolled(server, &enrolled, &key)?;
        let state = Mutex::new(State { enrolled, server_idx: 0, transport });
        Ok(Link { maker, key, state })
    }

    /// The transport to use for the next call.
    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.lock().transport)
    }

    /// Who this site is.
    pub(crate) fn enrolled(&self) -> Enrolled {
        self.lock().enrolled.clone()
    }

    /// The site's key.
    pub(crate) fn key(&self) -> &SiteKey {
        &self.key
    }

    /// A transport for a renewal: signed once the certificate has ended.
    pub(crate) fn for_renewal(&self) -> Result<Arc<dyn Transport>, Error> {
        let state = self.lock();
        if self.maker.clock.now() <= state.enrolled.not_after {
            return Ok(Arc::clone(&state.transport));
        }
        drop(state);
        self.signed()
    }

    /// A transport that proves who this site is by signed requests.
    pub(crate) fn signed(&self) -> Result<Arc<dyn Transport>, Error> {
        let state = self.lock();
        self.maker.signed(server(&state)?, &state.enrolled, &self.key)
    }

    /// Uses a new certificate from the next call on.
    pub(crate) fn renewed(&self, enrolled: Enrolled) -> Result<(), Error> {
        let mut state = self.lock();
        state.enrolled = enrolled;
        state.transport = self.maker.enrolled(server(&state)?, &state.enrolled, &self.key)?;
        Ok(())
    }

    /// Turns to the server's next address, if it has several.
    pub(crate) fn try_next_server(&self) -> Result<(), Error> {
        let mut state = self.lock();
        if state.enrolled.servers.len() > 1 {
            state.server_idx = (state.server_idx + 1) % state.enrolled.servers.len();
            state.transport = self.maker.enrolled(server(&state)?, &state.enrolled, &self.key)?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn server(state: &State) -> Result<&str, Error> {
    let server = state.enrolled.servers.get(state.server_idx).or_else(|| state.enrolled.servers.first());
    server.map(String::as_str).ok_or_else(|| Error::setting("servers", "there is none"))
}

impl Enrolled {
    /// The authority this site trusts.
    pub(crate) fn authority(&self) -> Authority<'_> {
        Authority { ca_pem: &self.ca_pem, ca_pin: self.ca_pin }
    }
}
