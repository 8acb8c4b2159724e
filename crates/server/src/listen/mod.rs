//! The listeners: TLS, then HTTP/1.1 and HTTP/2 over one port, with who the peer is put into every request; and on request
//! the same without TLS, for measuring on this machine.
//!
//! A connection is bounded in the time its handshake may take, the size of its headers, the streams it may open, how long
//! it may be silent before its first byte, and how long inside a request. Beyond the connection limit, new ones are closed and counted.

mod date;
mod greeting;
mod patience;
mod window;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use http_body_util::StreamBody;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use sheaf_domain::Span;
use sheaf_pki::{Peer, common_name, peer_of_chain};
use sheaf_runtime::{Clock, TaskScope};
use sheaf_telemetry::names;
use sheaf_wire_flower::Connection;
use sheaf_wire_native::{PeerAddr, PeerIdentity};
use sheaf_wire_openfl::Connected;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

pub(crate) use self::greeting::Greeter;
use self::window::Window;
pub(crate) use self::window::Windows;
use crate::descriptors::Bound;

/// Streams one connection may have open.
const STREAMS_MAX: u32 = 64;
/// The largest headers, in bytes.
const HEADERS_LEN_MAX: u32 = 32 * 1024;
/// How long a peer may take over its request's headers.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a TLS handshake may take where no setting says otherwise.
const HANDSHAKE_TIMEOUT: Span = Span::from_secs(10);
/// How often a silent HTTP/2 peer is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Where participants' HTTPS paths begin.
const NATIVE_PATH: &str = "/native";
/// Where participants' gRPC paths begin.
const GRPC_PATH: &str = "/sheaf.native.v1.Participant";
/// Where operators' paths begin.
const ADMIN_PATH: &str = "/admin";
/// Where OpenFL's paths begin, over gRPC and over HTTP.
const OPENFL_PATHS: [&str; 2] = ["/openfl.aggregator.Aggregator", "/experimental/v1"];
/// Where Flower's paths begin, over HTTP and over gRPC.
const FLOWER_PATHS: [&str; 8] = [
    "/v1/fleet",
    "/v1/runtime",
    "/v1/control",
    "/api/v0/fleet",
    "/flwr.proto.Fleet",
    "/flwr.proto.Control",
    "/flwr.proto.GrpcAdapter",
    "/flwr.proto.FlowerService",
];

/// The one call whose body rests for long.
const JOIN_PATH: &str = "/flwr.proto.FlowerService/Join";

/// What every connection shares.
pub struct Listener {
    pub(crate) security: Security,
    pub(crate) router: Router,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) handshake_timeout: Span,
    pub(crate) connections: Arc<Semaphore>,
    /// What bounds `connections`.
    pub(crate) bound: Bound,
    pub(crate) windows: Windows,
}

/// How a connection begins, and what tells who the peer is.
pub(crate) enum Security {
    /// With a TLS handshake and a client certificate.
    Tls { acceptor: TlsAcceptor, trust_domain: String },
    /// With a signed line; for loopback only.
    Plaintext(Greeter),
    /// With a TLS handshake or with none; a front-end asks each call itself who makes it.
    Anonymous(Option<TlsAcceptor>),
    /// With certificates of a workspace that is not ours, if with any: whose they are is told by their common names.
    Workspace {
        /// None for no TLS.
        acceptor: Option<TlsAcceptor>,
        /// Whether a certificate was asked for.
        certified: bool,
    },
}

impl Listener {
    /// What connections over TLS share, outside of a server's own listeners.
    pub fn tls(
        acceptor: TlsAcceptor,
        trust_domain: String,
        router: Router,
        clock: Arc<dyn Clock>,
        connections_max: usize,
    ) -> Listener {
        Listener {
            security: Security::Tls { acceptor, trust_domain },
            router,
            clock,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            connections: Arc::new(Semaphore::new(connections_max)),
            bound: Bound::Configured,
            windows: Windows::new(),
        }
    }
}

/// Accepts connections until `accepting` is cancelled; each is served in `connections` until that is cancelled.
pub(crate) async fn accept(
    socket: TcpListener,
    listener: Arc<Listener>,
    accepting: TaskScope,
    connections: TaskScope,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = accepting.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: what is there goes on, and room may come.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&listener.connections).try_acquire_owned() else {
            tracing::warn!(%addr, "connection refused: {}", listener.bound.reason());
            refused(listener.bound.label());
            continue;
        };
        let listener = Arc::clone(&listener);
        let draining = connections.clone();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%addr, %error, "a socket option could not be set");
        }
        // A task for each kind, so that an idle plaintext connection takes no room for TLS.
        if matches!(listener.security, Security::Plaintext(_)) {
            connections.spawn(async move {
                let open = Open::new();
                serve_plaintext(stream, addr, &listener, &draining).await;
                drop((open, permit));
            });
        } else {
            connections.spawn(async move {
                let open = Open::new();
                serve_connection(stream, addr, &listener, &draining).await;
                drop((open, permit));
            });
        }
    }
}

async fn serve_plaintext(
    mut stream: TcpStream,
    addr: SocketAddr,
    listener: &Arc<Listener>,
    draining: &TaskScope,
) {
    let Security::Plaintext(greeter) = &listener.security else { return };
    // Boxed: the line's buffer is gone once the greeting is over.
    let greeted = Box::pin(tokio::time::timeout(
        listener.handshake_timeout.as_duration(),
        greeter.greeted(&mut stream, listener.clock.as_ref()),
    ));
    match greeted.await {
        Ok(Ok(peer)) => {
            let connection = Over::of(Connection::new(addr, false));
            serve_peer(TokioIo::new(stream), peer, connection, addr, listener, draining).await;
        }
        Ok(Err(error)) => {
            tracing::warn!(%addr, %error, "plaintext connection refused");
            refused("greeting");
        }
        Err(_) => {
            tracing::warn!(%addr, "plaintext greeting took too long");
            refused("greeting");
        }
    }
}

/// Serves one connection that begins with TLS or with HTTP, over any stream, until it ends or `draining` is cancelled.
///
/// # Cancel safety
/// Dropped, the connection breaks; what was answered stays done.
pub async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    addr: SocketAddr,
    listener: &Listener,
    draining: &TaskScope,
) {
    match &listener.security {
        Security::Tls { acceptor, trust_domain } => {
            let Some(tls) = shake_hands(acceptor, stream, addr, listener).await else { return };
            match peer_of_chain(tls.get_ref().1.peer_certificates(), trust_domain) {
                Ok(peer) => {
                    let connection = Over::of(Connection::new(addr, true));
                    serve_peer(TokioIo::new(tls), peer, connection, addr, listener, draining).await;
                }
                Err(error) => {
                    tracing::warn!(%addr, %error, "client certificate refused");
                    refused("tls");
                }
            }
        }
        Security::Anonymous(Some(acceptor)) => {
            let Some(tls) = shake_hands(acceptor, stream, addr, listener).await else { return };
            let connection = Over::of(Connection::new(addr, true));
            serve_peer(TokioIo::new(tls), None, connection, addr, listener, draining).await;
        }
        Security::Anonymous(None) => {
            let connection = Over::of(Connection::new(addr, false));
            serve_peer(TokioIo::new(stream), None, connection, addr, listener, draining).await;
        }
        Security::Workspace { acceptor: Some(acceptor), certified } => {
            let Some(tls) = shake_hands(acceptor, stream, addr, listener).await else { return };
            let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let connected = match leaf.map(|leaf| common_name(leaf)) {
                _ if !certified => Connected::Uncertified,
                Some(Ok(name)) => Connected::Certified(name),
                _ => {
                    tracing::warn!(%addr, "client certificate refused: it has no common name");
                    return refused("tls");
                }
            };
            let over = Over { connection: Connection::new(addr, true), connected: Some(connected) };
            serve_peer(TokioIo::new(tls), None, over, addr, listener, draining).await;
        }
        Security::Workspace { acceptor: None, .. } => {
            let over = Over { connection: Connection::new(addr, false), connected: Some(Connected::Plain) };
            serve_peer(TokioIo::new(stream), None, over, addr, listener, draining).await;
        }
        // It begins with a line that is read before.
        Security::Plaintext(_) => {}
    }
}

/// The TLS handshake, in the time it has.
async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: &TlsAcceptor,
    stream: S,
    addr: SocketAddr,
    listener: &Listener,
) -> Option<TlsStream<S>> {
    let handshake = tokio::time::timeout(listener.handshake_timeout.as_duration(), acceptor.accept(stream));
    match handshake.await {
        Ok(Ok(tls)) => return Some(tls),
        Ok(Err(error)) => tracing::warn!(%addr, %error, "TLS handshake refused"),
        Err(_) => tracing::warn!(%addr, "TLS handshake took too long"),
    }
    refused("tls");
    None
}

/// What a listener says of a connection to those who serve its calls.
struct Over {
    connection: Connection,
    connected: Option<Connected>,
}

impl Over {
    fn of(connection: Connection) -> Over {
        Over { connection, connected: None }
    }
}

/// Serves a connection whose peer is known.
async fn serve_peer<I>(
    io: TokioIo<I>,
    peer: Option<Peer>,
    over: Over,
    addr: SocketAddr,
    listener: &Listener,
    draining: &TaskScope,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let window = listener.windows.take();
    let router = listener.router.clone();
    let clock = Arc::clone(&listener.clock);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = introduce(with_patience(request), peer.as_ref(), addr, clock.as_ref());
        request.extensions_mut().insert(over.connection.clone());
        if let Some(connected) = &over.connected {
            request.extensions_mut().insert(connected.clone());
        }
        let (front_end, method) =
            (front_end(request.uri().path()), names::method_label(request.method().as_str()));
        let (answer, clock) = (router.clone().oneshot(request), Arc::clone(&clock));
        async move {
            let mut answer = answer.await?;
            date::put(answer.headers_mut(), clock.now());
            let status = names::status_label(answer.status().as_u16());
            metrics::counter!(
                names::HTTP_REQUESTS_TOTAL, "front_end" => front_end, "method" => method, "status" => status
            )
            .increment(1);
            Ok(answer)
        }
    });
    serve_http(io, service, &window, draining, addr).await;
}

/// Counts a connection while it is open, also when the task that serves it is dropped.
struct Open;

impl Open {
    fn new() -> Open {
        metrics::gauge!(names::CONNECTIONS).increment(1.0);
        Open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(names::CONNECTIONS).decrement(1.0);
    }
}

fn refused(reason: &'static str) {
    metrics::counter!(names::CONNECTIONS_REFUSED_TOTAL, "reason" => reason).increment(1);
}

/// Which front-end a path belongs to: a closed set, whatever a peer asks for.
fn front_end(path: &str) -> &'static str {
    let begins = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if begins(NATIVE_PATH) {
        "native"
    } else if begins(GRPC_PATH) {
        "grpc"
    } else if begins(ADMIN_PATH) {
        "admin"
    } else if OPENFL_PATHS.iter().any(|path| begins(path)) {
        "openfl"
    } else if FLOWER_PATHS.iter().any(|path| begins(path)) {
        "flower"
    } else {
        "other"
    }
}

/// A request whose body may not stand still; but the oldest clients of Flower's say nothing on their stream until they are asked, and
/// that front-end has bounds of its own.
fn with_patience(request: hyper::Request<Incoming>) -> Request {
    if request.uri().path() == JOIN_PATH || request.body().is_end_stream() {
        return request.map(axum::body::Body::new);
    }
    request.map(|body| axum::body::Body::new(StreamBody::new(patience::parts(body))))
}

/// Puts who the peer is into a request; a certificate that ended since the handshake counts for nothing.
fn introduce(mut request: Request, peer: Option<&Peer>, addr: SocketAddr, clock: &dyn Clock) -> Request {
    let peer = peer.filter(|peer| clock.now() <= peer.not_after);
    let extensions = request.extensions_mut();
    if let Some(peer) = peer {
        extensions.insert(peer.clone());
    }
    extensions.insert(PeerIdentity(peer.cloned()));
    extensions.insert(PeerAddr(addr));
    request
}

async fn serve_http<I, S>(io: TokioIo<I>, service: S, window: &Window, draining: &TaskScope, addr: SocketAddr)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: hyper::service::Service<
            hyper::Request<Incoming>,
            Response = axum::response::Response,
            Error = std::convert::Infallible,
        > + Send
        + 'static,
    S::Future: Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_frame_size(window.frame())
        .initial_stream_window_size(window.stream())
        .initial_connection_window_size(window.connection())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_LEN_MAX)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        biased;
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        outcome = connection.as_mut() => outcome,
    };
    if let Err(error) = outcome {
        tracing::debug!(%addr, %error, "connection ended");
    }
}

/// Connections of the listener for metrics and health; they are within the descriptors kept for other things.
const PLAIN_CONNECTIONS_MAX: usize = 64;

/// A plain HTTP listener for metrics and health.
pub(crate) async fn accept_plain(socket: TcpListener, router: Router, scope: TaskScope) {
    let connections = Arc::new(Semaphore::new(PLAIN_CONNECTIONS_MAX));
    let windows = Windows::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = scope.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let Ok((stream, addr)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            refused("limit");
            continue;
        };
        let (router, draining, window) = (router.clone(), scope.clone(), windows.take());
        scope.spawn(async move {
            let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                router.clone().oneshot(with_patience(request))
            });
            serve_http(TokioIo::new(stream), service, &window, &draining, addr).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_one_front_end_whatever_a_peer_asks_for() {
        assert_eq!(front_end("/native/v1/beat"), "native");
        assert_eq!(front_end("/sheaf.native.v1.Participant/Beat"), "grpc");
        assert_eq!(front_end("/admin/v1/runs"), "admin");
        assert_eq!(front_end("/v1/fleet/pull-messages"), "flower");
        assert_eq!(front_end("/flwr.proto.Fleet/PullMessages"), "flower");
        assert_eq!(front_end("/openfl.aggregator.Aggregator/Ping"), "openfl");
        for other in ["/", "", "/health", "/natives", "/admin", "/v1/fleets/x", "/../native/"] {
            assert_eq!(front_end(other), "other", "{other:?}");
        }
    }
}
