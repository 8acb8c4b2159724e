//! A member of a load: a site that really enrols, with a key and a certificate of its own, and calls over the client's transport.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use sheaf_client::participant::TransportKind;
use sheaf_client::transport::{
    Address, GrpcTransport, HttpsTransport, ProxySettings, Signing, Timeouts, Transport,
};
use sheaf_domain::{SiteName, Span};
use sheaf_messages::v1;
use sheaf_pki::{ClientTls, Kit, SiteKey, client_config};
use sheaf_runtime::{Clock, OsEntropy, SystemClock, TaskScope};

use super::{Party, patiently};
use crate::Error;

/// How members reach the server.
#[derive(Debug, Clone)]
pub struct Way {
    kind: TransportKind,
    plaintext: Option<Address>,
    timeouts: Timeouts,
    clock: Arc<dyn Clock>,
}

impl Way {
    /// The way of a party; a submission may take as long as the largest model needs.
    ///
    /// # Errors
    /// [`Error::Client`] for an address without TLS that is none.
    pub fn of(party: &Party) -> Result<Way, Error> {
        let long = Span::from_secs(3_600);
        let timeouts = Timeouts { piece: long, submit: long, ..Timeouts::default() };
        let plaintext = party.plaintext.as_deref().map(Address::parse).transpose()?;
        Ok(Way { kind: party.transport, plaintext, timeouts, clock: SystemClock::shared() })
    }

    fn open(&self, kit: &Kit, identity: Option<(&str, &SiteKey)>) -> Result<Arc<dyn Transport>, Error> {
        let server = kit.servers.first().ok_or_else(|| Error::unexpected("a kit names no server"))?;
        let address = Address::parse(server)?;
        let tls = client_config(&ClientTls {
            ca_pem: &kit.ca_pem,
            ca_pin: kit.ca_pin,
            identity,
            extra_roots: None,
            alpn: &[],
            clock: Arc::clone(&self.clock),
        })?;
        let (proxy, timeouts) = (ProxySettings::default(), self.timeouts);
        Ok(match self.kind {
            TransportKind::Grpc => Arc::new(GrpcTransport::new(address, proxy, &tls, timeouts)?),
            TransportKind::Https => Arc::new(HttpsTransport::new(address, proxy, &tls, None, timeouts)),
        })
    }
}

impl Way {
    /// The way of an enrolled site.
    fn enrolled(&self, kit: &Kit, certificate: &str, key: SiteKey) -> Result<Arc<dyn Transport>, Error> {
        let Some(address) = &self.plaintext else {
            return self.open(kit, Some((certificate, &key)));
        };
        let (clock, entropy) = (Arc::clone(&self.clock), OsEntropy::shared());
        let signing = Signing::new(Arc::new(key), kit.site.clone(), kit.trust_domain.clone(), clock, entropy);
        let (address, signing) = (address.clone(), Some(Arc::new(signing)));
        Ok(match self.kind {
            TransportKind::Grpc => Arc::new(GrpcTransport::plaintext(address, signing, self.timeouts)?),
            TransportKind::Https => Arc::new(HttpsTransport::plaintext(address, signing, self.timeouts)?),
        })
    }
}

/// An enrolled site.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub site: SiteName,
    /// Its way to the server; it connects when it is first used.
    pub transport: Arc<dyn Transport>,
}

impl Member {
    /// Trades a kit for a certificate.
    ///
    /// # Errors
    /// [`Error::Pki`] for a kit that cannot be used, [`Error::Client`] when the server refuses.
    /// # Cancel safety
    /// Safe: the token is spent with the key that is lost then.
    pub async fn enrol(way: &Way, kit: PathBuf) -> Result<Member, Error> {
        let kit = Kit::load(&kit)?;
        let key = SiteKey::generate()?;
        let token = kit.token.to_text();
        let request = v1::EnrolRequest {
            token: token.expose_text().unwrap_or_default().to_owned(),
            csr_pem: key.csr_pem(&kit.site)?,
        };
        let stranger = way.open(&kit, None)?;
        let reply = patiently(&*way.clock, &mut 0, || stranger.enrol(request.clone())).await?;
        let certificate =
            reply.certificate.ok_or_else(|| Error::unexpected(format!("enrolment is {}", reply.state)))?;
        let transport = way.enrolled(&kit, &certificate.certificate_pem, key)?;
        Ok(Member { site: kit.site, transport })
    }
}

/// Enrols every kit, many at once on all cores, in order.
///
/// # Errors
/// As [`Member::enrol`], the first failure.
/// # Cancel safety
/// As [`Member::enrol`]; those under way go on to their end.
pub async fn enrol_all(way: &Way, kits: &[PathBuf]) -> Result<Vec<Member>, Error> {
    let scope = TaskScope::new();
    let enrolments = kits.iter().map(|kit| {
        let (way, kit) = (way.clone(), kit.clone());
        // A task each: making a key and opening TLS are work for all cores.
        let enrolment = scope.spawn(async move { Member::enrol(&way, kit).await });
        async {
            enrolment.await.map_err(|error| Error::unexpected(format!("an enrolment broke off: {error}")))?
        }
    });
    futures_util::stream::iter(enrolments).buffered(AT_ONCE).try_collect().await
}

/// Enrolments under way at once: as many as the server's store commits together.
const AT_ONCE: usize = 64;
