//! Who gets through the handshake, as whom, and with which message the others are turned away.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName};
use sheaf_domain::{Role, SiteName, Span, Timestamp};
use sheaf_pki::{
    ALPN_H2, ALPN_HTTP1, CertificateAuthority, ClientTls, Error, Issued, Peer, ServerCertificates, SiteKey,
    TlsFault, client_config, peer_of_chain, server_config,
};
use sheaf_runtime::{Clock, ManualClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const DOMAIN: &str = "study.example";
const DAY: Span = Span::from_secs(86_400);

fn start() -> Timestamp {
    Timestamp::from_millis(1_900_000_000_000)
}

struct Federation {
    ca: CertificateAuthority,
    clock: Arc<ManualClock>,
    certificates: Arc<ServerCertificates>,
}

/// What one exchange came to: the server's view of the client, and what the client got.
struct Exchange {
    server: Result<Option<Peer>, std::io::Error>,
    client: Result<Option<Vec<u8>>, std::io::Error>,
}

impl Federation {
    fn new() -> Federation {
        let ca = CertificateAuthority::create(DOMAIN, Span::from_secs(100 * 86_400), start()).unwrap();
        let credential =
            ca.issue_server(&["localhost".to_owned()], Span::from_secs(50 * 86_400), start()).unwrap();
        let certificates = ServerCertificates::new(&credential).unwrap();
        Federation { ca, clock: ManualClock::starting_at(start()), certificates }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn site(&self, name: &str, validity: Span) -> (Issued, SiteKey) {
        let (key, name) = (SiteKey::generate().unwrap(), SiteName::new(name).unwrap());
        let csr = key.csr_pem(&name).unwrap();
        (self.ca.issue(&csr, &name, Role::Participant, validity, start()).unwrap(), key)
    }

    fn client(&self, identity: Option<(&str, &SiteKey)>) -> ClientConfig {
        client_config(&self.tls(identity)).unwrap()
    }

    fn tls<'a>(&'a self, identity: Option<(&'a str, &'a SiteKey)>) -> ClientTls<'a> {
        ClientTls {
            ca_pem: self.ca.certificate_pem(),
            ca_pin: self.ca.pin(),
            identity,
            extra_roots: None,
            alpn: &[ALPN_H2],
            clock: self.clock(),
        }
    }

    /// Shakes hands and sends one byte each way, since a server's refusal of a client's certificate comes only then.
    async fn exchange(&self, client: ClientConfig, name: &'static str) -> Exchange {
        let server = server_config(&self.ca, Arc::clone(&self.certificates), self.clock()).unwrap();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (server, client) = tokio::join!(serve(server, far), call(client, near, name));
        Exchange { server, client }
    }
}

async fn serve(config: rustls::ServerConfig, pipe: DuplexStream) -> Result<Option<Peer>, std::io::Error> {
    let mut stream = match TlsAcceptor::from(Arc::new(config)).accept(pipe).into_fallible().await {
        Ok(stream) => stream,
        Err((error, mut pipe)) => {
            // The alert is in the pipe; the end of the stream follows it.
            pipe.shutdown().await?;
            return Err(error);
        }
    };
    let peer =
        peer_of_chain(stream.get_ref().1.peer_certificates(), DOMAIN).map_err(std::io::Error::other)?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    stream.write_all(&byte).await?;
    stream.shutdown().await?;
    Ok(peer)
}

/// Gives the protocol that was agreed on.
async fn call(
    config: ClientConfig,
    pipe: DuplexStream,
    name: &'static str,
) -> Result<Option<Vec<u8>>, std::io::Error> {
    let name = ServerName::try_from(name).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, pipe).await?;
    stream.write_all(&[7]).await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

fn fault(result: &Result<Option<Vec<u8>>, std::io::Error>) -> Option<TlsFault> {
    TlsFault::of(result.as_ref().err()?)
}

#[tokio::test]
async fn a_site_with_its_certificate_is_known_by_name() {
    let federation = Federation::new();
    let (issued, key) = federation.site("clinic-a", DAY);
    let exchange = federation.exchange(federation.client(Some((&issued.pem, &key))), "localhost").await;
    assert_eq!(exchange.client.unwrap().as_deref(), Some(ALPN_H2));
    let peer = exchange.server.unwrap().unwrap();
    assert_eq!((peer.identity.name.as_str(), peer.identity.role), ("clinic-a", Role::Participant));
    assert_eq!((peer.identity.key_fingerprint, peer.not_after), (key.fingerprint(), issued.not_after));
}

#[tokio::test]
async fn a_client_without_a_certificate_gets_through_as_nobody() {
    let federation = Federation::new();
    let alpn: &[&[u8]] = &[ALPN_HTTP1];
    let client = client_config(&ClientTls { alpn, ..federation.tls(None) }).unwrap();
    let exchange = federation.exchange(client, "localhost").await;
    assert_eq!(exchange.server.unwrap(), None);
    assert_eq!(exchange.client.unwrap().as_deref(), Some(ALPN_HTTP1));
}

#[tokio::test]
async fn a_client_that_trusts_another_ca_says_so() {
    let federation = Federation::new();
    let other = Federation::new();
    let exchange = federation.exchange(other.client(None), "localhost").await;
    assert!(exchange.server.is_err());
    assert_eq!(fault(&exchange.client), Some(TlsFault::ForeignServer));
    let message = exchange.client.unwrap_err().to_string();
    assert!(message.contains("was not issued by this federation's CA"), "{message}");
    assert!(message.contains(&other.ca.pin().to_string()), "{message}");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let federation = Federation::new();
    let (issued, key) = Federation::new().site("clinic-a", DAY);
    let exchange = federation.exchange(federation.client(Some((&issued.pem, &key))), "localhost").await;
    assert!(exchange.server.is_err());
    assert_eq!(fault(&exchange.client), Some(TlsFault::OwnCertificateRefused));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_its_owner_told() {
    let federation = Federation::new();
    let (issued, key) = federation.site("clinic-a", DAY);
    let client = federation.client(Some((&issued.pem, &key)));
    federation.clock.advance(DAY);
    assert!(federation.exchange(client.clone(), "localhost").await.server.is_ok());
    federation.clock.advance(Span::from_secs(1));
    let exchange = federation.exchange(client, "localhost").await;
    assert!(exchange.server.is_err());
    assert_eq!(fault(&exchange.client), Some(TlsFault::OwnCertificateExpired));
}

#[tokio::test]
async fn a_server_certificate_does_not_pass_as_a_clients() {
    let federation = Federation::new();
    let server = federation.ca.issue_server(&["clinic-a".to_owned()], DAY, start()).unwrap();
    let client = federation.client(Some((&server.issued.pem, &server.key)));
    let exchange = federation.exchange(client, "localhost").await;
    assert!(exchange.server.is_err());
    assert_eq!(fault(&exchange.client), Some(TlsFault::OwnCertificateRefused));
}

#[tokio::test]
async fn a_client_certificate_does_not_pass_as_a_servers() {
    let federation = Federation::new();
    let (issued, key) = federation.site("localhost", DAY);
    let credential = sheaf_pki::ServerCredential { issued, key };
    federation.certificates.replace(&credential).unwrap();
    let exchange = federation.exchange(federation.client(None), "localhost").await;
    assert!(exchange.server.is_err() && exchange.client.is_err());
}

#[tokio::test]
async fn a_server_of_another_name_is_refused() {
    let federation = Federation::new();
    let exchange = federation.exchange(federation.client(None), "elsewhere.example").await;
    assert_eq!(fault(&exchange.client), Some(TlsFault::WrongServerName));
}

#[tokio::test]
async fn the_servers_certificate_is_swapped_under_open_doors() {
    let federation = Federation::new();
    let ends = federation.certificates.not_after();
    federation.clock.advance(Span::from_secs(51 * 86_400));
    let exchange = federation.exchange(federation.client(None), "localhost").await;
    assert_eq!(fault(&exchange.client), Some(TlsFault::ServerExpired));

    let now = federation.clock.now();
    let renewed = federation.ca.issue_server(&["localhost".to_owned()], DAY, now).unwrap();
    federation.certificates.replace(&renewed).unwrap();
    assert!(federation.certificates.not_after() > ends);
    assert!(federation.exchange(federation.client(None), "localhost").await.client.is_ok());
}

#[test]
fn a_ca_other_than_the_pinned_one_is_refused_before_anything_is_dialled() {
    let (federation, other) = (Federation::new(), Federation::new());
    let tls = ClientTls { ca_pem: other.ca.certificate_pem(), ..federation.tls(None) };
    let error = client_config(&tls).unwrap_err();
    assert!(matches!(error, Error::PinMismatch { pinned, found }
        if pinned == federation.ca.pin() && found == other.ca.pin()));
}

#[test]
fn a_certificate_of_another_key_and_further_roots_beside_one_are_refused() {
    let federation = Federation::new();
    let (issued, key) = federation.site("clinic-a", DAY);
    let other = SiteKey::generate().unwrap();
    let mixed = client_config(&federation.tls(Some((&issued.pem, &other))));
    assert!(matches!(mixed, Err(Error::KeyMismatch)));
    let proxy = Federation::new();
    let extra_roots = Some(proxy.ca.certificate_pem());
    let both = client_config(&ClientTls { extra_roots, ..federation.tls(Some((&issued.pem, &key))) });
    assert!(matches!(both, Err(Error::InvalidArgument(_))));
}

#[tokio::test]
async fn a_proxy_that_opens_tls_is_accepted_with_its_root_only() {
    let (federation, proxy) = (Federation::new(), Federation::new());
    let through =
        client_config(&ClientTls { extra_roots: Some(proxy.ca.certificate_pem()), ..federation.tls(None) })
            .unwrap();
    assert!(proxy.exchange(through, "localhost").await.client.is_ok());
    assert!(proxy.exchange(federation.client(None), "localhost").await.client.is_err());
}

/// A TLS 1.2 hello is answered with a `protocol_version` alert. The hello is written out here because the library in use
/// is built without TLS 1.2.
#[tokio::test]
async fn tls_1_2_is_not_spoken() {
    let federation = Federation::new();
    let config =
        server_config(&federation.ca, Arc::clone(&federation.certificates), federation.clock()).unwrap();
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let hello = tls12_hello();
    let client = async {
        near.write_all(&hello).await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (server, answer) = tokio::join!(serve(config, far), client);
    assert!(server.is_err());
    let (alert, fatal, protocol_version) = (21, 2, 70);
    assert_eq!(answer.first(), Some(&alert));
    assert_eq!(answer.get(5..7), Some(&[fatal, protocol_version][..]));
    assert_eq!(TLS13.version, rustls::ProtocolVersion::TLSv1_3);
}

fn tls12_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&[0x5a; 32]); // random
    body.push(0); // no session id
    body.extend_from_slice(&[0, 2, 0xc0, 0x2b]); // ECDHE-ECDSA-AES128-GCM-SHA256
    body.extend_from_slice(&[1, 0]); // no compression
    let extensions = [
        0, 10, 0, 4, 0, 2, 0, 23, // groups: secp256r1
        0, 13, 0, 4, 0, 2, 4, 3, // signatures: ecdsa_secp256r1_sha256
        0, 11, 0, 2, 1, 0, // point formats: uncompressed
    ];
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&extensions);
    let mut handshake = vec![1, 0];
    handshake.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    handshake.extend_from_slice(&body);
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&u16::try_from(handshake.len()).unwrap().to_be_bytes());
    record.extend_from_slice(&handshake);
    record
}

#[test]
fn an_empty_chain_is_nobody() {
    let none: [CertificateDer<'_>; 0] = [];
    assert_eq!(peer_of_chain(Some(&none), DOMAIN).unwrap(), None);
}
