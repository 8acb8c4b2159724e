//! A server in this process: coordinator over memory stores, TLS listener on a free port; and ways to call it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sheaf_blob::MemoryBlobs;
use sheaf_client::transport::{
    Address, GrpcTransport, HttpsTransport, ProxySettings, Signing, Timeouts, Transport,
};
use sheaf_coordinator::{Coordinator, CreateRun, Dependencies, Handle, InviteRequest, Settings};
use sheaf_domain::{ByteSize, Digest, Identity, Manifest, Role, RunId, SiteName, Span, Timestamp};
use sheaf_messages::{Order, v1};
use sheaf_pki::{
    CertificateAuthority, ClientTls, EnrolmentLimiter, EnrolmentLimits, JournalSigner, Kit, RequestVerifier,
    ServerCertificates, SiteKey, client_config, peer_of_chain, server_config,
};
use sheaf_runtime::{Clock, Compute, ManualClock, OsEntropy, TaskScope};
use sheaf_store::{MailLimits, MemoryStore};
use sheaf_telemetry::Health;
use sheaf_tensor::{Dtype, TensorSpec};
use sheaf_wire_native::{Handlers, PeerAddr, PeerIdentity};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower::ServiceExt as _;

/// The length of a piece in these tests, in bytes.
pub(crate) const PIECE_LEN: usize = 4 * 1024 * 1024;
/// Elements of the model: a little more than one piece.
pub(crate) const ELEMENTS: u64 = 1_100_000;

/// How a site talks to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Grpc,
    Https,
    Signed,
}

/// Stamps each test out for every way.
macro_rules! on_every_way {
    ($($name:ident),+ $(,)?) => {
        mod grpc { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name(crate::world::Way::Grpc).await })+ }
        mod https { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name(crate::world::Way::Https).await })+ }
        mod signed { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name(crate::world::Way::Signed).await })+ }
    };
}
pub(crate) use on_every_way;

pub(crate) struct World {
    pub(crate) handle: Handle,
    pub(crate) operator: Identity,
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ca: Arc<CertificateAuthority>,
    /// While set, uploads are answered 503 by something that is not the protocol.
    pub(crate) uploads_closed: Arc<AtomicBool>,
    /// While set, everything is.
    pub(crate) closed: Arc<AtomicBool>,
    pub(crate) scope: TaskScope,
}

/// A site with its credential.
pub(crate) struct Site {
    pub(crate) name: SiteName,
    pub(crate) key: Arc<SiteKey>,
    pub(crate) certificate: v1::Certificate,
}

impl World {
    pub(crate) async fn start() -> World {
        let clock = ManualClock::starting_at(Timestamp::from_millis(1_800_000_000_000));
        let now = clock.now();
        let ca = Arc::new(CertificateAuthority::create("study", days(365), now).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scope = TaskScope::new();
        let dependencies = Dependencies {
            store: Arc::new(MemoryStore::new(MailLimits::default())),
            blob: Arc::new(MemoryBlobs::new(ByteSize::from_mib(512))),
            clock: Arc::<ManualClock>::clone(&clock),
            entropy: OsEntropy::shared(),
            compute: Compute::new(2),
            ca: Arc::clone(&ca),
            signer: Arc::new(JournalSigner::generate().unwrap()),
            limiter: EnrolmentLimiter::new(EnrolmentLimits::default()),
            health: Health::new(),
        };
        let settings = Settings {
            advertised: vec![format!("localhost:{}", address.port())],
            beat_every: Span::from_millis(200),
            ..Settings::default()
        };
        let coordinator = Coordinator::start(dependencies, settings, &scope).await.unwrap();
        let handle = coordinator.handle();
        let uploads_closed = Arc::new(AtomicBool::new(false));
        let closed = Arc::new(AtomicBool::new(false));
        let doors = Doors { uploads_closed: Arc::clone(&uploads_closed), closed: Arc::clone(&closed) };
        let server = Server::new(&handle, &ca, &clock, doors);
        scope.spawn_until_cancelled(server.accept(listener, scope.clone()));
        let operator = Identity {
            trust_domain: "study".to_owned(),
            name: SiteName::new("op").unwrap(),
            role: Role::Operator,
            key_fingerprint: Digest::of(b"operator"),
        };
        World { handle, operator, address, clock, ca, uploads_closed, closed, scope }
    }

    pub(crate) async fn kit(&self, site: &str) -> Kit {
        self.kit_with(site, false).await
    }

    pub(crate) async fn kit_with(&self, site: &str, approve: bool) -> Kit {
        let site = SiteName::new(site).unwrap();
        let request = InviteRequest { site, ttl: days(1), approve };
        self.handle.invite(&self.operator, request).await.unwrap()
    }

    /// Invites and enrols a site, over the transport it will use.
    pub(crate) async fn site(&self, name: &str, way: Way) -> Site {
        let kit = self.kit(name).await;
        let key = Arc::new(SiteKey::generate().unwrap());
        let reply = self.anonymous(way).enrol(enrol_request(&kit, &key)).await.unwrap();
        assert_eq!(reply.state, "issued");
        Site { name: kit.site, key, certificate: reply.certificate.unwrap() }
    }

    /// A transport without any credential.
    pub(crate) fn anonymous(&self, way: Way) -> Arc<dyn Transport> {
        self.transport(way, None, None)
    }

    /// A transport with the site's credential; each has connections of its own.
    pub(crate) fn connect(&self, site: &Site, way: Way) -> Arc<dyn Transport> {
        match way {
            Way::Signed => self.transport(way, None, Some(self.signing(site))),
            _ => self.transport(way, Some((&site.certificate.certificate_pem, &site.key)), None),
        }
    }

    pub(crate) fn signing(&self, site: &Site) -> Arc<Signing> {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        let (key, name) = (Arc::clone(&site.key), site.name.clone());
        Arc::new(Signing::new(key, name, "study".to_owned(), clock, OsEntropy::shared()))
    }

    fn transport(
        &self,
        way: Way,
        identity: Option<(&str, &SiteKey)>,
        signing: Option<Arc<Signing>>,
    ) -> Arc<dyn Transport> {
        let tls = self.client_tls(identity);
        self.transport_over(way, &tls, ProxySettings::none(), signing)
    }

    /// A transport whose every part is given.
    pub(crate) fn transport_over(
        &self,
        way: Way,
        tls: &rustls::ClientConfig,
        proxy: ProxySettings,
        signing: Option<Arc<Signing>>,
    ) -> Arc<dyn Transport> {
        let address = Address::parse(&format!("localhost:{}", self.address.port())).unwrap();
        let timeouts = Timeouts::default();
        match way {
            Way::Grpc => Arc::new(GrpcTransport::new(address, proxy, tls, timeouts).unwrap()),
            _ => Arc::new(HttpsTransport::new(address, proxy, tls, signing, timeouts)),
        }
    }

    pub(crate) fn client_tls(&self, identity: Option<(&str, &SiteKey)>) -> rustls::ClientConfig {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        client_config(&ClientTls {
            ca_pem: self.ca.certificate_pem(),
            ca_pin: self.ca.pin(),
            identity,
            extra_roots: None,
            alpn: &[],
            clock,
        })
        .unwrap()
    }

    /// A bare TLS connection with the site's certificate, if one is given.
    pub(crate) async fn raw(
        &self,
        site: Option<&Site>,
        alpn: &[u8],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let identity = site.map(|site| (site.certificate.certificate_pem.as_str(), site.key.as_ref()));
        let mut tls = self.client_tls(identity);
        tls.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap()
    }

    /// Starts a run of `rounds` over at least `min` sites; its model is zeros.
    pub(crate) async fn run(&self, rounds: u32, min: u32) -> RunId {
        self.run_with(rounds, min, "").await
    }

    /// The same, with more lines in the plan's `[cohort]`.
    pub(crate) async fn run_with(&self, rounds: u32, min: u32, cohort: &str) -> RunId {
        let bytes = vec![0u8; model_spec().byte_len().try_into().unwrap()];
        let mut pieces = Vec::new();
        for piece in bytes.chunks(PIECE_LEN) {
            let len = piece.len() as u64;
            let mut upload = self.handle.operator_upload(&self.operator, "first", len).await.unwrap();
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
            let digest = Digest::of(piece);
            upload.finish(digest).await.unwrap();
            pieces.push(digest);
        }
        let init = Manifest::over_pieces(vec![model_spec()], PIECE_LEN as u64, &pieces).unwrap();
        let plan = format!(
            "[run]\nname = \"test\"\nrounds = {rounds}\n[model]\ninit = \"first.safetensors\"\n[cohort]\nmin = {min}\n{cohort}"
        );
        let request =
            CreateRun { plan, init: Some(init), upload: Some("first".to_owned()), app: None, from: None };
        self.handle.create_run(&self.operator, request).await.unwrap()
    }

    pub(crate) async fn revoke(&self, site: &SiteName) {
        self.handle.revoke(&self.operator, site, "left the study".to_owned()).await.unwrap();
    }

    /// Waits until the server has heard of the site.
    pub(crate) async fn until_present(&self, site: &SiteName) {
        eventually(async || {
            let sites = self.handle.sites(&self.operator).await.unwrap();
            sites.iter().any(|found| found.name == *site && found.present)
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

/// Waits for a condition, for a time only a hang exceeds.
pub(crate) async fn eventually(condition: impl AsyncFn() -> bool) {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), waited)
        .await
        .expect("the condition never came true");
}

/// Waits for the one order there must be.
pub(crate) async fn order(transport: &dyn Transport) -> Order {
    loop {
        let reply = transport.next(v1::NextRequest { have: Vec::new(), hold_ms: 20_000 }).await.unwrap();
        if let Some(order) = reply.work.first() {
            return Order::from_wire(order).unwrap();
        }
    }
}

pub(crate) fn enrol_request(kit: &Kit, key: &SiteKey) -> v1::EnrolRequest {
    let token = kit.token.to_text();
    v1::EnrolRequest {
        token: token.expose_text().unwrap().to_owned(),
        csr_pem: key.csr_pem(&kit.site).unwrap(),
    }
}

pub(crate) fn model_spec() -> TensorSpec {
    TensorSpec::new("w", Dtype::F32, [ELEMENTS]).unwrap()
}

pub(crate) fn days(days: u64) -> Span {
    Span::from_secs(days * 24 * 3600)
}

/// What crate `server` does, in small: accepts TLS and says who is there.
#[derive(Clone)]
struct Server {
    tls: TlsAcceptor,
    router: axum::Router,
    doors: Doors,
}

/// What is let through.
#[derive(Clone)]
struct Doors {
    uploads_closed: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

impl Doors {
    fn refuse(&self, path: &str) -> bool {
        let upload = path.ends_with("/PutPiece") || path.contains("/pieces/");
        self.closed.load(Ordering::SeqCst) || (upload && self.uploads_closed.load(Ordering::SeqCst))
    }
}

impl Server {
    fn new(handle: &Handle, ca: &CertificateAuthority, clock: &Arc<ManualClock>, doors: Doors) -> Server {
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
        let credential = ca.issue_server(&["localhost".to_owned()], days(90), clock.now()).unwrap();
        let certificates = ServerCertificates::new(&credential).unwrap();
        let tls = server_config(ca, certificates, Arc::clone(&shared)).unwrap();
        let verifier = Arc::new(RequestVerifier::new(Span::from_secs(300), 10_000, Timestamp::default()));
        let handlers = Handlers::new(handle.clone(), shared);
        let router =
            sheaf_wire_native::router(handlers.clone(), verifier).merge(sheaf_wire_native::grpc(handlers));
        Server { tls: TlsAcceptor::from(Arc::new(tls)), router, doors }
    }

    async fn accept(self, listener: TcpListener, scope: TaskScope) {
        while let Ok((stream, peer)) = listener.accept().await {
            scope.spawn_until_cancelled(self.clone().serve(stream, peer));
        }
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        let Ok(stream) = self.tls.accept(stream).await else { return };
        let who = PeerIdentity(peer_of_chain(stream.get_ref().1.peer_certificates(), "study").unwrap());
        let (router, doors) = (self.router, self.doors);
        let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(who.clone());
            request.extensions_mut().insert(PeerAddr(peer));
            let (router, refused) = (router.clone(), doors.refuse(request.uri().path()));
            async move {
                if refused {
                    let mut response = http::Response::new(Body::from("closed"));
                    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                    return Ok(response);
                }
                router.oneshot(request.map(Body::new)).await
            }
        });
        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        // A connection that breaks is the client's affair.
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    }
}
