//! A server from start to end.
//!
//! Start: lock the data directory, open the stores, load keys, rebuild runs, listen. End: stop accepting, finish what is in
//! flight until the drain's time is up, end the coordinator (everything acknowledged is durable already), close the stores.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sheaf_blob::{BlobStore, DiskBlobs};
use sheaf_coordinator::{BLOBS_DIR, Coordinator, Dependencies, Handle, STATE_FILE, Settings};
use sheaf_domain::{Role, Timestamp};
use sheaf_pki::{EnrolmentLimiter, EnrolmentLimits, Peer, RequestVerifier};
use sheaf_runtime::crash::{self, Point};
use sheaf_runtime::{Clock, Compute, OsEntropy, Shutdown, SystemClock, TaskScope};
use sheaf_store::{SqliteStore, StateStore};
use sheaf_telemetry::{Health, HealthReport, Metrics, names as telemetry_names};
use sheaf_wire_flower::legacy::Join;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::descriptors::Descriptors;
use crate::listen::{Greeter, Listener, Security, Windows, accept, accept_plain};
use crate::{Config, DataDir, Error, OPERATOR_DIR, PKI_DIR, names, tls};

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    pub(crate) config: Config,
    _data_dir: DataDir,
    store: Arc<dyn StateStore>,
    blob: Arc<dyn BlobStore>,
    pub(crate) coordinator: Coordinator,
    pub(crate) accepting: TaskScope,
    pub(crate) connections: TaskScope,
    background: TaskScope,
    pub(crate) join: Option<Join>,
}

/// What a server says once it is ready.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// The addresses kits carry.
    pub advertised: Vec<String>,
}

impl Server {
    /// Starts a server.
    ///
    /// # Errors
    /// [`Error`], saying what stands in the way and what to do.
    /// # Cancel safety
    /// Not safe: run it to its end.
    pub async fn start(config: Config) -> Result<Server, Error> {
        let clock = SystemClock::shared();
        let entropy = OsEntropy::shared();
        let data_dir = DataDir::open(&config.data_dir)?;
        crash::reached(Point::DirectoryMade);
        // Listening comes first of what can fail often: a port in use is told before anything is opened.
        let socket = bind(config.listen.address).await?;
        let address = socket.local_addr().map_err(Error::Process)?;
        let advertised = names::advertised(&config.listen.names, address);
        let background = TaskScope::new();
        let telemetry = Telemetry::start(&background)?;

        let compute = Compute::for_this_machine();
        let ca = Arc::new(tls::authority(&data_dir.join(PKI_DIR), &config.identity.trust_domain, &*clock)?);
        let signer = Arc::new(tls::journal_signer(&data_dir.join(PKI_DIR))?);
        tls::operator(&data_dir.join(OPERATOR_DIR), &ca, &*clock)?;
        crash::reached(Point::KeysMade);
        let store: Arc<dyn StateStore> = Arc::new(
            SqliteStore::open(&data_dir.join(STATE_FILE), sheaf_store::OpenOptions::default()).await?,
        );
        let blob_options = sheaf_blob::OpenOptions {
            max_bytes: config.store.max_bytes,
            direct_io: config.store.direct_io,
            ..sheaf_blob::OpenOptions::default()
        };
        let descriptors = Descriptors::raise(files_max(&blob_options), config.listen.connections_max);
        let blob = open_blobs(&data_dir, blob_options).await?;
        crash::reached(Point::StoresOpened);
        let dependencies = Dependencies {
            store: Arc::clone(&store),
            blob: Arc::clone(&blob),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            compute,
            ca: Arc::clone(&ca),
            signer,
            limiter: limiter(&config),
            health: telemetry.health.clone(),
        };
        let settings = settings(&config, &data_dir, advertised.clone());
        let coordinator = Coordinator::start(dependencies, settings, &background).await?;

        let certificate_names = names::certificate_names(&config.listen.names, address);
        let certificates = tls::server_certificates(&ca, certificate_names, &clock, &background)?;
        let tls_config = sheaf_pki::server_config(&ca, certificates, Arc::clone(&clock))?;
        // In a directory that no server used before there is no earlier signature to replay.
        let started_at = if data_dir.is_new() { Timestamp::default() } else { clock.now() };
        let verifier = RequestVerifier::new(config.identity.signature_window, NONCES_MAX, started_at);
        let router = router(&coordinator.handle(), verifier, &clock, &telemetry);
        let (permits, windows) = (Arc::new(Semaphore::new(descriptors.connections)), Windows::new());
        let listener_of = |security, router| {
            Arc::new(Listener {
                security,
                router,
                clock: Arc::clone(&clock),
                handshake_timeout: config.listen.handshake_timeout,
                connections: Arc::clone(&permits),
                bound: descriptors.bound,
                windows: windows.clone(),
            })
        };
        let listener = |security| listener_of(security, router.clone());
        let (accepting, connections) = (TaskScope::new(), TaskScope::new());
        let acceptor = TlsAcceptor::from(Arc::new(tls_config));
        let secure = listener(Security::Tls { acceptor, trust_domain: ca.trust_domain().to_owned() });
        accepting.spawn(accept(socket, secure, accepting.clone(), connections.clone()));
        let plaintext_file = data_dir.join(OPERATOR_DIR).join(tls::PLAINTEXT_ADDRESS_FILE);
        tls::forget(&plaintext_file)?;
        if let Some(address) = config.listen.plaintext {
            let socket = bind(address.get()).await?;
            let address = socket.local_addr().map_err(Error::Process)?;
            tracing::warn!(%address, "listen.plaintext is set: connections to this address are not encrypted; it is for measuring");
            let verifier = RequestVerifier::new(config.identity.signature_window, NONCES_MAX, started_at);
            let greeter = Greeter { handle: coordinator.handle(), verifier };
            let plaintext = listener(Security::Plaintext(greeter));
            accepting.spawn(accept(socket, plaintext, accepting.clone(), connections.clone()));
            tls::write_plaintext_address(&plaintext_file, address)?;
        }
        if let Some(plain) = config.telemetry.address {
            let socket = bind(plain).await?;
            background.spawn(accept_plain(socket, telemetry_router(&telemetry, None), background.clone()));
        }
        let flower = crate::flower::Parts {
            config: &config,
            data_dir: &data_dir,
            handle: coordinator.handle(),
            relays: coordinator.relays(),
            ca: &ca,
            clock: &clock,
            accepting: &accepting,
            connections: &connections,
            background: &background,
            listener: &listener_of,
        };
        flower.start().await?;
        crash::reached(Point::Listening);
        tls::write_address(&data_dir.join(OPERATOR_DIR), &advertised)?;
        tracing::info!(%address, data_dir = %data_dir.path().display(), "listening");
        Ok(Server {
            address,
            config,
            _data_dir: data_dir,
            store,
            blob,
            coordinator,
            accepting,
            connections,
            background,
            join: None,
        })
    }

    /// Where it listens, for a caller that asked for port 0.
    pub fn ready(&self) -> Ready {
        Ready {
            address: self.address,
            advertised: names::advertised(&self.config.listen.names, self.address),
        }
    }

    /// Serves until a drain is asked for, then drains and closes.
    ///
    /// # Cancel safety
    /// Not safe: run it to its end. What was acknowledged is durable even if it is not.
    pub async fn run(self, mut shutdown: Shutdown) {
        shutdown.requested().await;
        self.drain().await;
    }

    async fn drain(self) {
        tracing::info!("draining");
        self.accepting.cancel();
        self.accepting.finished().await;
        self.connections.cancel();
        // Held requests end with the coordinator; uploads in flight get the drain's time.
        self.coordinator.stop().await;
        let drained =
            tokio::time::timeout(self.config.listen.drain_timeout.as_duration(), self.connections.finished());
        if drained.await.is_err() {
            tracing::warn!("the drain's time is up; what is still in flight is cut off");
        }
        self.background.cancel();
        self.background.finished().await;
        self.blob.close().await;
        self.store.close().await;
        tracing::info!("stopped");
    }
}

/// How many descriptors the blob store may come to use: two for every spool file.
fn files_max(options: &sheaf_blob::OpenOptions) -> u64 {
    2 * options.max_bytes.as_bytes().div_ceil(options.segment_len.as_bytes().max(1))
}

/// Opens the blob store and says how its bytes reach the disk.
async fn open_blobs(
    data_dir: &DataDir,
    options: sheaf_blob::OpenOptions,
) -> Result<Arc<dyn BlobStore>, Error> {
    let wanted = options.direct_io;
    let blob = DiskBlobs::open(&data_dir.join(BLOBS_DIR), options).await?;
    metrics::gauge!(telemetry_names::BLOB_DIRECT_IO).set(if blob.is_direct() { 1.0 } else { 0.0 });
    if wanted && !blob.is_direct() {
        tracing::warn!(
            "the filesystem of the data directory allows no direct I/O; models and updates go through the page cache, which costs more of the processor"
        );
    }
    Ok(Arc::new(blob))
}

/// Nonces of signed requests remembered at once.
const NONCES_MAX: usize = 1_000_000;

pub(crate) async fn bind(addr: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::PortInUse { addr },
        _ => Error::Listen { addr, source },
    })
}

fn limiter(config: &Config) -> EnrolmentLimiter {
    let identity = &config.identity;
    EnrolmentLimiter::new(EnrolmentLimits {
        per_minute: identity.enrolments_per_minute,
        peer_per_minute: identity.enrolments_per_minute_and_address,
        ..EnrolmentLimits::default()
    })
}

fn settings(config: &Config, data_dir: &DataDir, advertised: Vec<String>) -> Settings {
    Settings {
        liveness: config.limits.liveness,
        beat_every: config.limits.beat_every,
        hold_max: config.limits.hold_max,
        inflight: config.limits.inflight,
        handing_out: config.limits.handing_out,
        fold_budget: config.limits.fold,
        running_max: config.limits.running_max,
        sites_max: config.limits.sites_max,
        certificate_validity: config.identity.certificate_validity,
        renewal_grace: config.identity.renewal_grace,
        advertised,
        relay: sheaf_coordinator::RelaySettings {
            log_dir: Some(data_dir.join(crate::flower::LOGS_DIR)),
            ..sheaf_coordinator::RelaySettings::default()
        },
        backup_files: [PKI_DIR, OPERATOR_DIR, "FORMAT"]
            .map(|name| (data_dir.join(name), name.to_owned()))
            .to_vec(),
        ..Settings::default()
    }
}

/// Every front-end on one router.
fn router(
    handle: &Handle,
    verifier: RequestVerifier,
    clock: &Arc<dyn Clock>,
    telemetry: &Telemetry,
) -> Router {
    let native = sheaf_wire_native::Handlers::new(handle.clone(), Arc::clone(clock));
    sheaf_wire_native::router(native.clone(), Arc::new(verifier))
        .merge(sheaf_wire_native::grpc(native))
        .merge(sheaf_admin_api::router(handle.clone()))
        .merge(telemetry_router(telemetry, Some(handle.clone())))
}

/// `/health` for everyone; `/metrics` for operators, or for everyone on the plain listener.
fn telemetry_router(telemetry: &Telemetry, operators_only: Option<Handle>) -> Router {
    let (recorded, health) = (telemetry.metrics.clone(), telemetry.health.clone());
    let metrics = move |peer: Option<axum::Extension<Peer>>| {
        let allowed = match &operators_only {
            None => true,
            Some(handle) => peer.is_some_and(|peer| handle.authorise(&peer.identity, Role::Operator).is_ok()),
        };
        let page = allowed.then(|| recorded.render());
        async move { metrics_page(page) }
    };
    let over_grpc = health.clone();
    let health = move || {
        let report = health.report();
        async move { health_page(&report) }
    };
    let check = move |request: axum::extract::Request| {
        crate::health::check(over_grpc.report().is_serving(), request.into_body())
    };
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route(crate::health::CHECK_PATH, axum::routing::post(check))
}

fn metrics_page(page: Option<String>) -> Response {
    match page {
        Some(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page).into_response(),
        None => {
            let message = "metrics are for operators; set telemetry.address to serve them plainly\n";
            (StatusCode::FORBIDDEN, message).into_response()
        }
    }
}

fn health_page(report: &HealthReport) -> Response {
    let status = if report.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], report.to_json()).into_response()
}

/// What the process records of itself.
#[derive(Debug, Clone)]
struct Telemetry {
    metrics: Metrics,
    health: Health,
}

impl Telemetry {
    fn start(scope: &TaskScope) -> Result<Telemetry, Error> {
        let telemetry = Telemetry { metrics: Metrics::install()?, health: Health::new() };
        let metrics = telemetry.metrics.clone();
        scope.spawn_until_cancelled(async move {
            let mut ticks = tokio::time::interval(UPKEEP_EVERY);
            loop {
                ticks.tick().await;
                metrics.upkeep();
            }
        });
        Ok(telemetry)
    }
}

/// How often waiting samples are folded into their buckets.
const UPKEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(10);
