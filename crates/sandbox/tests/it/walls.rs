//! What a program can reach: its directory, and nothing of ours.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use sheaf_sandbox::{Exit, Network, PlacedFile, Process, Program, Protection, Secret};

use crate::place::{KEY, Place, landlock, launcher};

/// Tries all ways to the key, and says of each how it went: `open` or the error's number.
const BURGLAR: &str = r#"
import ctypes, json, os, sys
server, data, log = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PR_SET_PTRACER = 16, 0x59616d61
def attach():
    if libc.ptrace(PTRACE_ATTACH, int(server), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'ptrace')
    libc.ptrace(17, int(server), 0, 0)
def follow_link():
    os.symlink(data + '/key', 'link')
    open('link').read()
def through_descriptor():
    held = os.listdir(f'/proc/{server}/fd')
    for fd in held:
        try:
            if open(f'/proc/{server}/fd/{fd}').read() != '': return
        except OSError as error: last = error
    raise last
def truncate():
    os.truncate(data + '/other', 0)
ways = {
    'read': lambda: open(data + '/key').read(),
    'list': lambda: os.listdir(data),
    'link': follow_link,
    'hard link': lambda: os.link(data + '/key', 'hard'),
    'write': lambda: open(data + '/new', 'w'),
    'truncate': truncate,
    'remove': lambda: os.remove(data + '/removable'),
    'log': lambda: open(log, 'a'),
    'proc root': lambda: open(f'/proc/{server}/root{data}/key').read(),
    'proc cwd': lambda: os.listdir(f'/proc/{server}/cwd/'),
    'proc environ': lambda: open(f'/proc/{server}/environ').read(),
    'proc mem': lambda: open(f'/proc/{server}/mem', 'rb'),
    'proc fd': through_descriptor,
    'ptrace': attach,
    'shadow': lambda: open('/etc/shadow').read(),
    'signal': lambda: os.kill(int(server), 0),
}
found = {}
for name, way in ways.items():
    try:
        way()
        found[name] = 'open'
    except OSError as error:
        found[name] = str(error.errno)
json.dump(found, open('found', 'w'))
"#;

async fn run(program: &Program, protection: Protection) -> Exit {
    let held = launcher(protection).hold(program).await.unwrap();
    let mut process: Process = held.start().await.unwrap();
    process.gone().await.unwrap()
}

async fn burgle(place: &Place, protection: Protection) -> BTreeMap<String, String> {
    for name in ["other", "removable"] {
        std::fs::write(place.path("data").join(name), KEY).unwrap();
    }
    // A descriptor of the server's through which the key could be read.
    let _held = std::fs::File::open(place.path("data/key")).unwrap();
    let exit = run(&place.python(BURGLAR), protection).await;
    assert_eq!(exit, Exit::Code(0), "{}", place.read("log"));
    serde_json::from_str(&place.read("run/found")).unwrap()
}

#[tokio::test]
async fn a_walled_program_finds_no_way_to_a_key() {
    if landlock().landlock_abi().is_none() {
        return; // What stands in its place is tried below, with an account.
    }
    let place = Place::new();
    let mut found = burgle(&place, landlock()).await;
    if landlock().landlock_abi() < Some(6) {
        found.remove("signal");
    }
    let open: Vec<_> = found.iter().filter(|(_, how)| !["1", "13", "18"].contains(&how.as_str())).collect();
    assert!(open.is_empty(), "these ways are open (or failed for another reason): {open:?}");
    assert!(found.len() >= 15);
    assert_eq!(place.read("data/other"), KEY);
}

#[tokio::test]
async fn without_walls_the_same_program_does_find_it() {
    let place = Place::new();
    let found = burgle(&place, landlock().without_landlock()).await;
    for way in ["read", "list", "link", "write", "truncate", "remove", "log", "signal"] {
        assert_eq!(
            found.get(way).map(String::as_str),
            Some("open"),
            "{way}: the test above would prove nothing"
        );
    }
}

#[tokio::test]
async fn a_walled_program_works_in_its_directory() {
    let place = Place::new();
    let script = "import os, json, tempfile
os.mkdir('sub'); open('sub/a', 'w').write('x'); os.rename('sub/a', 'b'); os.remove('b')
with tempfile.NamedTemporaryFile() as file: assert file.name.startswith(os.getcwd())
open('/dev/null', 'w').write('x'); os.urandom(4)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
said = dict(
    token=open('token').read(), modes=[os.stat('.').st_mode & 0o777, os.stat('token').st_mode & 0o777],
    names=sorted(os.environ), home=os.environ['HOME'] == os.getcwd(), set=os.environ['ASKED'],
    fds=sorted(os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd)),
    leader=[os.getpid() == os.getsid(0), os.getpid() == os.getpgrp()],
    privileges=[status['NoNewPrivs'].strip(), int(status['CapEff'], 16), int(status['CapBnd'], 16) if os.getuid() == 0 else 0],
)
json.dump(said, open('said', 'w'))
print('done', flush=True)";
    // A descriptor that every child would inherit.
    let inherited = std::fs::File::open(place.path("data/key")).unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let mut program = place.python(script);
    program.environment.insert("ASKED".to_owned(), "yes".to_owned());
    program.files = vec![PlacedFile { name: "token".to_owned(), content: Secret::new("abc") }];
    assert_eq!(run(&program, landlock()).await, Exit::Code(0), "{}", place.read("log"));
    assert_eq!(place.read("log"), "done\n");
    let said: serde_json::Value = serde_json::from_str(&place.read("run/said")).unwrap();
    assert_eq!(said["token"], "abc");
    assert_eq!(said["modes"], serde_json::json!([0o700, 0o600]));
    let names: Vec<&str> =
        said["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let foreign: Vec<_> =
        names.iter().filter(|name| !["ASKED", "HOME", "LANG", "PATH", "TMPDIR"].contains(*name)).collect();
    // Python adds this one itself where the locale would not be UTF-8.
    assert!(foreign.iter().all(|name| **name == "LC_CTYPE"), "{names:?}");
    assert_eq!((&said["home"], &said["set"]), (&true.into(), &"yes".into()));
    assert_eq!(said["leader"], serde_json::json!([true, true]));
    assert_eq!(said["privileges"], serde_json::json!(["1", 0, 0]));
    let (log, nowhere) = (place.path("log"), "/dev/null");
    assert_eq!(said["fds"], serde_json::json!([nowhere, log, log]));
}

#[tokio::test]
async fn a_walled_program_connects_to_its_ports_only() {
    if !landlock().holds_tcp() {
        return;
    }
    let place = Place::new();
    let (ours, other) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let [ours_port, other_port] = [&ours, &other].map(|listener| listener.local_addr().unwrap().port());
    let mut program = place.python(&format!(
        "import socket
socket.create_connection(('127.0.0.1', {ours_port})).close()
for way in (lambda: socket.create_connection(('127.0.0.1', {other_port})), lambda: socket.create_server(('127.0.0.1', 0))):
    try: way()
    except PermissionError: print('refused', flush=True)"
    ));
    program.network = Network::Connect(vec![ours_port]);
    assert_eq!(run(&program, landlock()).await, Exit::Code(0), "{}", place.read("log"));
    assert_eq!(place.read("log"), "refused\nrefused\n");
}

#[tokio::test]
async fn an_account_alone_keeps_a_program_from_a_key() {
    // Nobody's number on every system; only root can become it.
    let Ok(protection) = Protection::probe(Some("65534:65534")) else {
        assert!(!rustix::process::geteuid().is_root());
        return;
    };
    let protection = protection.without_landlock();
    let place = Place::new();
    for (path, mode) in [(".", 0o711), ("data", 0o700)] {
        std::fs::set_permissions(place.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let data = place.path("data");
    let key = data.join("key");
    let mut program = place.shell(&format!(
        "id -u; id -G; cat token; echo x >own
for path in {key} /proc/{server}/environ /proc/{server}/root{key} {log}; do
  if cat $path >/dev/null 2>&1; then echo open $path; fi
done
if kill -0 {server} 2>/dev/null; then echo open signal; fi",
        key = key.display(),
        server = std::process::id(),
        log = place.path("log").display(),
    ));
    program.files = vec![PlacedFile { name: "token".to_owned(), content: Secret::new("abc\n") }];
    assert_eq!(run(&program, protection.clone()).await, Exit::Code(0), "{}", place.read("log"));
    assert_eq!(place.read("log"), "65534\n65534\nabc\n");

    // A data directory that lets others pass is found out before anything starts.
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o711)).unwrap();
    program.directory = place.path("again");
    let refused = launcher(protection).hold(&program).await.unwrap_err().to_string();
    assert!(refused.contains("SHEAF-014") && refused.contains("data"), "{refused}");
}
