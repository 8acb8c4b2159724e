//! Signals, ports and directories: how the long-running commands end, and what keeps a server from starting.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use sheaf_pki::{ClientTls, SiteKey};

use crate::process::{children_of, eventually, is_alive, signal};
use crate::world::World;

#[test]
fn the_server_and_a_site_drain_on_sigterm() {
    let world = World::new();
    let server = world.serve("");
    let sites = world.three_sites("softmax");
    for mut site in sites {
        site.signal(Signal::TERM);
        assert_eq!(site.ended(), 0, "{}", site.log());
    }
    assert!(
        world.json("nodes").as_array().unwrap().iter().all(|site| site["present"] == false),
        "they have said goodbye"
    );
    assert_eq!(server.drain(), 0);
    assert!(world.read("server.log").contains("stopped"));
}

#[test]
fn a_site_that_waits_for_a_server_drains_too() {
    let world = World::new();
    let server = world.serve("");
    let site = {
        world.digits("ada.csv", 20, 0);
        world.site("ada", "--data ada.csv --trainer softmax")
    };
    server.crash();
    let mut site = site;
    site.says("disconnected");
    assert_eq!(site.drain(), 0);
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let world = World::new();
    let mut server = world.serve("");
    // Half a request keeps the drain waiting.
    let _connection = half_a_request(&world);
    server.signal(Signal::TERM);
    server.says("draining");
    server.signal(Signal::TERM);
    assert_eq!(server.ended(), 130, "{}", server.log());
}

/// Sends the head of a request and the beginning of its body, as the operator.
fn half_a_request(world: &World) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let ca_pem = world.read("sheaf-data/operator/ca.pem");
    let certificate = world.read("sheaf-data/operator/operator.pem");
    let key = SiteKey::load(&world.path("sheaf-data/operator/operator.key")).unwrap();
    let config = sheaf_pki::client_config(&ClientTls {
        ca_pem: &ca_pem,
        ca_pin: sheaf_pki::certificate_facts(ca_pem.as_bytes()).unwrap().key_fingerprint,
        identity: Some((&certificate, &key)),
        extra_roots: None,
        alpn: &[sheaf_pki::ALPN_HTTP1],
        clock: sheaf_runtime::SystemClock::shared(),
    })
    .unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(world.read("sheaf-data/operator/address").trim()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    let head = "POST /admin/v1/plans/check HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 100\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    // The server asks for the body once it has begun with the request.
    let mut answer = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 100"));
    stream
}

#[test]
fn a_second_signal_ends_the_demo_at_once_and_its_children_follow() {
    let world = World::new();
    let mut demo = world.start("demo", "demo --rounds 5000 --data-dir d");
    demo.says("round  1/5000");
    let children = children_of(demo.pid());
    // A child that cannot answer keeps the drain waiting.
    let server: u32 = world.read("d/server.pid").trim().parse().unwrap();
    signal(server, Signal::STOP);
    demo.signal(Signal::INT);
    for site in children.iter().filter(|pid| **pid != server) {
        signal(*site, Signal::KILL);
    }
    demo.says("ended with");
    demo.signal(Signal::INT);
    assert_eq!(demo.ended(), 130, "{}", demo.log());
    signal(server, Signal::CONT);
    for child in children {
        eventually("a child of a dead supervisor ends", || (!is_alive(child)).then_some(()));
    }
}

#[test]
fn what_keeps_a_server_from_starting_is_named_with_the_remedy() {
    let world = World::new();
    let server = world.serve("");
    let address = world.read("sheaf-data/operator/address");
    let error = world.refused(6, &format!("serve --data-dir other --listen {}", address.trim()));
    assert!(
        error.contains(&format!("{} is in use", address.trim())) && error.contains("--listen"),
        "{error}"
    );
    assert!(error.contains("[SHEAF-001]"), "{error}");
    let error = world.refused(6, "serve --listen 127.0.0.1:0");
    assert!(error.contains("in use by another sheaf server") && error.contains("--data-dir"), "{error}");
    assert!(error.contains("[SHEAF-002]"), "{error}");
    assert_eq!(server.drain(), 0);

    world.write("sheaf-data/FORMAT", "sheaf data 99\n");
    let error = world.refused(6, "serve --listen 127.0.0.1:0");
    assert!(error.contains("sheaf data 99") && error.contains("sheaf data 1"), "{error}");
    assert!(error.contains("[SHEAF-003]"), "{error}");

    world.write("file", "no directory");
    let error = world.refused(5, "serve --data-dir file --listen 127.0.0.1:0");
    assert!(error.contains("file"), "{error}");
    world.write("sheaf.toml", "[limits]\ninflite = \"64MiB\"\n");
    let error = world.refused(2, "serve --config sheaf.toml");
    assert!(error.contains("sheaf.toml:2") && error.contains("inflite"), "{error}");
    let error = world.refused(2, "serve --max-bytes plenty");
    assert!(error.contains("plenty"), "{error}");
}
