//! What moving bytes over a loopback connection costs each end: a bare sink and a bare source, with TLS 1.3 where it is asked for.
//!
//! One connection, two threads, 256 KiB at a time; nothing is looked at. The CPU time is each thread's own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rustls::{ClientConnection, ServerConnection, StreamOwned};
use rustls_pki_types::ServerName;
use sheaf_domain::Span;
use sheaf_pki::{CertificateAuthority, ClientTls, ServerCertificates, client_config, server_config};
use sheaf_runtime::SystemClock;

use super::gb;
use crate::Error;
use crate::process::thread_cpu;

/// How much is read and written at a time, in bytes.
const STRIDE: usize = 256 * 1024;
const HOST: &str = "localhost";
const VALIDITY: Span = Span::from_secs(24 * 3600);

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sealing {
    /// Bytes as they are.
    Plain,
    /// TLS 1.3.
    Tls,
}

/// What one GB costs each end, in CPU seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Transfer {
    /// Receiving it.
    pub receive_cpu_s_per_gb: f64,
    /// Sending it.
    pub send_cpu_s_per_gb: f64,
}

/// Moves `bytes` over one connection. Blocks.
///
/// # Errors
/// [`Error::Io`], [`Error::Pki`] when there can be no connection.
pub fn transfer(bytes: u64, sealing: Sealing) -> Result<Transfer, Error> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("listen"))?;
    let address = listener.local_addr().map_err(Error::io("listen"))?;
    let seals = match sealing {
        Sealing::Plain => None,
        Sealing::Tls => Some(Seals::new()?),
    };
    let (server, client) = seals.map_or((None, None), |seals| (Some(seals.server), Some(seals.client)));
    let (sent, received) = std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let stream = TcpStream::connect(address).map_err(Error::io("connect"))?;
            match client {
                None => timed(|| send(stream, bytes)),
                Some(session) => timed(|| send(StreamOwned::new(*session, stream), bytes)),
            }
        });
        let receive = || {
            let (stream, _) = listener.accept().map_err(Error::io("accept"))?;
            match server {
                None => timed(|| receive(stream, bytes)),
                Some(session) => timed(|| receive(StreamOwned::new(*session, stream), bytes)),
            }
        };
        let received: Result<f64, Error> = receive();
        let sent = sender.join().unwrap_or_else(|_| Err(Error::unexpected("a probe was cut off")));
        (sent, received)
    });
    let gb = gb(bytes);
    Ok(Transfer { receive_cpu_s_per_gb: received? / gb, send_cpu_s_per_gb: sent? / gb })
}

/// The CPU seconds this thread spends on `work`.
fn timed(work: impl FnOnce() -> std::io::Result<()>) -> Result<f64, Error> {
    let before = thread_cpu();
    work().map_err(Error::io("move bytes over loopback"))?;
    Ok(thread_cpu().saturating_sub(before).as_secs_f64())
}

fn send(mut stream: impl Write, bytes: u64) -> std::io::Result<()> {
    let stride = vec![7; STRIDE];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(STRIDE);
        stream.write_all(stride.get(..len).unwrap_or_default())?;
        left -= len as u64;
    }
    stream.flush()
}

fn receive(mut stream: impl Read, bytes: u64) -> std::io::Result<()> {
    let mut stride = vec![0; STRIDE];
    let mut left = bytes;
    while left > 0 {
        let taken = stream.read(&mut stride)?;
        if taken == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(taken as u64);
    }
    Ok(())
}

/// The two ends of a TLS connection, set up as the server and its participants set them up.
struct Seals {
    server: Box<ServerConnection>,
    client: Box<ClientConnection>,
}

impl Seals {
    fn new() -> Result<Seals, Error> {
        let clock = SystemClock::shared();
        let ca = CertificateAuthority::create("bench", VALIDITY, clock.now())?;
        let credential = ca.issue_server(&[HOST.to_owned()], VALIDITY, clock.now())?;
        let server = server_config(&ca, ServerCertificates::new(&credential)?, Arc::clone(&clock))?;
        let client = client_config(&ClientTls {
            ca_pem: ca.certificate_pem(),
            ca_pin: ca.pin(),
            identity: None,
            extra_roots: None,
            alpn: &[],
            clock,
        })?;
        let name = ServerName::try_from(HOST).map_err(Error::unexpected)?;
        let server = ServerConnection::new(Arc::new(server)).map_err(Error::unexpected)?;
        let client = ClientConnection::new(Arc::new(client), name).map_err(Error::unexpected)?;
        Ok(Seals { server: Box::new(server), client: Box::new(client) })
    }
}
