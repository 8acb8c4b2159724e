//! Proxies between a site and the server: one that only connects, and one that opens TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sheaf_client::Error;
use sheaf_client::transport::ProxySettings;
use sheaf_messages::v1;
use sheaf_pki::{
    ALPN_HTTP1, CertificateAuthority, ClientTls, ServerCertificates, client_config, server_config,
};
use sheaf_runtime::{Clock, ManualClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::world::{Way, World, days, on_every_way};

on_every_way! {
    every_transport_goes_through_a_proxy_that_knows_it,
}

/// What stands at the far side of a proxy.
#[derive(Clone)]
enum Beyond {
    /// The server, as it is.
    Server,
    /// A TLS of the proxy's own; the plain requests are sent on in another.
    Opened(TlsAcceptor, TlsConnector),
}

struct Proxy {
    port: u16,
    tunnels: Arc<AtomicUsize>,
}

/// A proxy for `user:secret` on a free port.
async fn proxy(world: &World, beyond: Beyond) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tunnels = Arc::new(AtomicUsize::new(0));
    let (counted, scope, target) = (Arc::clone(&tunnels), world.scope.clone(), world.address);
    world.scope.spawn_until_cancelled(async move {
        while let Ok((stream, _)) = listener.accept().await {
            scope.spawn_until_cancelled(tunnel(stream, target, beyond.clone(), Arc::clone(&counted)));
        }
    });
    Proxy { port, tunnels }
}

async fn tunnel(
    mut near: TcpStream,
    target: std::net::SocketAddr,
    beyond: Beyond,
    tunnels: Arc<AtomicUsize>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = near.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", target.port())), "{head}");
    // base64 of user:secret
    if !head.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n") {
        near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
        return;
    }
    tunnels.fetch_add(1, Ordering::SeqCst);
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    let mut far = TcpStream::connect(target).await.unwrap();
    match beyond {
        Beyond::Server => drop(copy_bidirectional(&mut near, &mut far).await),
        Beyond::Opened(acceptor, connector) => {
            let Ok(mut near) = acceptor.accept(near).await else { return };
            let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
            let mut far = connector.connect(name, far).await.unwrap();
            drop(copy_bidirectional(&mut near, &mut far).await);
        }
    }
}

fn settings(proxy: &Proxy, user: &str) -> ProxySettings {
    ProxySettings::new(Some(&format!("http://{user}127.0.0.1:{}", proxy.port)), Some("elsewhere.example"))
        .unwrap()
}

async fn every_transport_goes_through_a_proxy_that_knows_it(way: Way) {
    let world = World::start().await;
    let site = world.site("a", way).await;
    let proxy = proxy(&world, Beyond::Server).await;
    let (tls, signing) = match way {
        Way::Signed => (world.client_tls(None), Some(world.signing(&site))),
        _ => (world.client_tls(Some((&site.certificate.certificate_pem, &site.key))), None),
    };
    let through = world.transport_over(way, &tls, settings(&proxy, "user:secret@"), signing.clone());
    through.beat(v1::BeatRequest::default()).await.unwrap();
    assert_eq!(proxy.tunnels.load(Ordering::SeqCst), 1);
    let unknown = world.transport_over(way, &tls, settings(&proxy, "user:wrong@"), signing);
    let refused = unknown.beat(v1::BeatRequest::default()).await.unwrap_err().to_string();
    assert!(refused.contains("user and a password"), "{refused}");
    assert!(!refused.contains("wrong"), "{refused}");
    assert_eq!(proxy.tunnels.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn signed_requests_pass_a_proxy_that_opens_tls_and_certificates_do_not() {
    let world = World::start().await;
    let site = world.site("a", Way::Https).await;
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&world.clock);
    let company = CertificateAuthority::create("company", days(365), world.clock.now()).unwrap();
    let credential = company.issue_server(&["localhost".to_owned()], days(30), world.clock.now()).unwrap();
    let certificates = ServerCertificates::new(&credential).unwrap();
    let mut near = server_config(&company, certificates, Arc::clone(&clock)).unwrap();
    near.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    let mut far = world.client_tls(None);
    far.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    let beyond = Beyond::Opened(TlsAcceptor::from(Arc::new(near)), TlsConnector::from(Arc::new(far)));
    let proxy = proxy(&world, beyond).await;

    let certified = world.client_tls(Some((&site.certificate.certificate_pem, &site.key)));
    let certified = world.transport_over(Way::Https, &certified, settings(&proxy, "user:secret@"), None);
    let refused = certified.beat(v1::BeatRequest::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Unreachable { .. }), "{refused}");
    assert!(refused.to_string().contains("a proxy opens TLS on the way"), "{refused}");

    let roots = client_config(&ClientTls {
        ca_pem: world.ca.certificate_pem(),
        ca_pin: world.ca.pin(),
        identity: None,
        extra_roots: Some(company.certificate_pem()),
        alpn: &[],
        clock,
    })
    .unwrap();
    let signing = Some(world.signing(&site));
    let signed = world.transport_over(Way::Signed, &roots, settings(&proxy, "user:secret@"), signing);
    signed.beat(v1::BeatRequest::default()).await.unwrap();
}
