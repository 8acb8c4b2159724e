//! The server's host: the real coordinator, front-end and connection code over what outlives the process.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sheaf_coordinator::{Coordinator, CreateRun, Dependencies, Handle, InviteRequest, Settings, Which};
use sheaf_domain::{ByteSize, Digest, JournalId, Manifest, RunId, SiteName, Span, Timestamp};
use sheaf_pki::{EnrolmentLimiter, EnrolmentLimits, RequestVerifier, ServerCertificates, server_config};
use sheaf_runtime::{Clock, Compute, SeededEntropy, TaskScope};
use sheaf_server::{Listener, serve_connection};
use sheaf_store::StateStore as _;
use sheaf_telemetry::Health;
use tokio_rustls::TlsAcceptor;

use crate::clock::SimClock;
use crate::model::{MODEL_LEN, specs};
use crate::net::{PORT, SERVER};
use crate::slow::{Pauses, Slow};
use crate::world::{Ended, World};

type Failure = Box<dyn std::error::Error>;

/// How often the operator looks at the run.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What the operator's upload is called.
const UPLOAD: &str = "first";

/// Serves until the simulation ends.
pub(crate) async fn serve(world: Arc<World>) {
    let start = world.starts(SERVER);
    match serving(&world, start).await {
        Ok(()) => world.complain("the server ended unasked".to_owned()),
        Err(error) => world.complain(format!("the server ended: {error}")),
    }
}

async fn serving(world: &Arc<World>, start: u64) -> Result<(), Failure> {
    let scope = TaskScope::new();
    let clock = SimClock::skewed(0);
    let coordinator = Coordinator::start(dependencies(world, &clock, start), settings(world), &scope).await?;
    let handle = coordinator.handle();
    let socket = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let listener = Arc::new(listener(world, &handle, &clock)?);
    let connections = scope.clone();
    scope.spawn(async move {
        while let Ok((stream, addr)) = socket.accept().await {
            let (listener, draining) = (Arc::clone(&listener), connections.clone());
            connections.spawn(async move { serve_connection(stream, addr, &listener, &draining).await });
        }
    });
    operate(world, &handle).await
}

fn dependencies(world: &World, clock: &Arc<dyn Clock>, start: u64) -> Dependencies {
    let pauses = Pauses::new(world.scenario.seed ^ (start << 32), world.scenario.store_ms_max);
    Dependencies {
        store: Arc::new(Slow { inner: Arc::clone(&world.store), pauses: pauses.clone() }),
        blob: Arc::new(Slow { inner: Arc::clone(&world.blob), pauses }),
        clock: Arc::clone(clock),
        entropy: SeededEntropy::shared(world.scenario.seed ^ (start << 32)),
        compute: Compute::on_the_spot(),
        ca: Arc::clone(&world.ca),
        signer: Arc::clone(&world.signer),
        limiter: EnrolmentLimiter::new(EnrolmentLimits::default()),
        health: Health::new(),
    }
}

fn settings(world: &World) -> Settings {
    Settings {
        liveness: Span::from_secs(20),
        beat_every: Span::from_secs(2),
        hold_max: Span::from_secs(10),
        inflight_wait: Span::from_secs(5),
        // Small, so that models are folded in several tiles.
        fold_budget: ByteSize::from_bytes(4096),
        fold_retry: Span::from_millis(200),
        certificate_validity: Span::from_secs(world.scenario.certificate_s),
        advertised: vec![format!("{SERVER}:{PORT}")],
        ..Settings::default()
    }
}

fn listener(world: &World, handle: &Handle, clock: &Arc<dyn Clock>) -> Result<Listener, Failure> {
    let year = Span::from_secs(365 * 24 * 3600);
    let credential = world.ca.issue_server(&[SERVER.to_owned()], year, clock.now())?;
    let tls = server_config(&world.ca, ServerCertificates::new(&credential)?, Arc::clone(clock))?;
    let verifier = Arc::new(RequestVerifier::new(Span::from_secs(300), 10_000, Timestamp::default()));
    let handlers = sheaf_wire_native::Handlers::new(handle.clone(), Arc::clone(clock));
    let router =
        sheaf_wire_native::router(handlers.clone(), verifier).merge(sheaf_wire_native::grpc(handlers));
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    Ok(Listener::tls(acceptor, "study".to_owned(), router, Arc::clone(clock), 1024))
}

/// What the operator does: invites the sites, begins the run, watches it to its end, and has it replayed.
async fn operate(world: &World, handle: &Handle) -> Result<(), Failure> {
    let operator = world.operator();
    for site in &world.scenario.sites {
        if !world.notes().kits.contains_key(&site.name) {
            let request = InviteRequest {
                site: SiteName::new(site.name.clone())?,
                ttl: Span::from_secs(24 * 3600),
                approve: false,
            };
            let kit = handle.invite(&operator, request).await?;
            world.notes().kits.insert(site.name.clone(), kit);
        }
    }
    let run = run(world, handle).await?;
    world.notes().run = Some(run);
    loop {
        let status = handle.status(&operator, run).await?;
        if status.phase.is_over() && world.notes().ended.is_none() {
            world.trace(SERVER, &format!("the run is {}", status.phase.name()));
            let replay = handle.replay(&operator, run).await?;
            let digest = handle.model(&operator, run, Which::Last).await?.digest;
            world.notes().ended = Some(Ended { status, digest, replay });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The run there is, or a new one.
async fn run(world: &World, handle: &Handle) -> Result<RunId, Failure> {
    for journal in world.store.journals().await? {
        if let JournalId::Run(run) = journal
            && world.store.head(journal).await?.0 > 0
        {
            return Ok(run);
        }
    }
    let (plan, operator) = (world.scenario.plan(), world.operator());
    let mut request = CreateRun { plan, init: None, upload: None, app: None, from: None };
    if !world.scenario.init_by_trainer {
        let bytes = Bytes::from(vec![0; MODEL_LEN]);
        let digest = Digest::of(&bytes);
        let len = bytes.len() as u64;
        let mut upload = handle.operator_upload(&operator, UPLOAD, len).await?;
        upload.write(bytes).await?;
        upload.finish(digest).await?;
        request.init = Some(Manifest::over_pieces(specs(), len, &[digest])?);
        request.upload = Some(UPLOAD.to_owned());
    }
    Ok(handle.create_run(&operator, request).await?)
}
