//! What a listener says of the connection that a call came over, and what was verified on it.
//!
//! A key may be remembered here only where the connection is one node's own: the listener ends its TLS itself, and the operator has said
//! that nothing in front of it sends calls of several nodes over one connection. A call that says it was passed on ends that for the rest
//! of the connection. Invariants: a connection is bound to the first key verified on it, other keys are verified in full; a key is believed
//! for as long as the signature that was verified would be, and no longer; it is forgotten when any node unregisters.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;

use crate::node_auth::{KnownKey, NodeHeaders};

/// By which a call says that it was passed on.
const PASSED_ON: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// A connection, shared by the calls that come over it.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: IpAddr,
    memory: Option<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    known: KnownKey,
    /// How many nodes had unregistered when the key was verified.
    unregistered: u64,
    /// When the signature that was verified falls out of its window, in microseconds since the epoch.
    until_us: i64,
    passed_on: bool,
}

impl Connection {
    /// A connection whose TLS ends here, if `own_tls` says so.
    pub fn new(peer: SocketAddr, own_tls: bool) -> Connection {
        let memory = own_tls.then(Mutex::default);
        Connection(Arc::new(Inner { peer: peer.ip(), memory }))
    }

    /// Where calls come from of which no listener said so.
    pub(crate) fn unknown() -> Connection {
        Connection::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), false)
    }

    /// The address at its other end.
    pub(crate) fn peer(&self) -> IpAddr {
        self.0.peer
    }

    /// Looks at a call's headers before anything is believed of it.
    pub(crate) fn look_at(&self, headers: &HeaderMap) {
        if PASSED_ON.iter().any(|name| headers.contains_key(*name)) {
            self.with(|memory| {
                memory.known.forget();
                memory.passed_on = true;
            });
        }
    }

    /// Whether the key of a call was verified here by a signature that still holds, and no node has unregistered since.
    pub(crate) fn knows(&self, headers: &NodeHeaders, unregistered: u64, now_us: i64) -> bool {
        let known = self.with(|memory| {
            if memory.unregistered != unregistered || now_us >= memory.until_us {
                memory.known.forget();
            }
            memory.known.is(&headers.public_key)
        });
        known.unwrap_or(false)
    }

    /// The signature of a call was verified; it holds until `until_us`.
    pub(crate) fn verified(&self, headers: &NodeHeaders, unregistered: u64, until_us: i64) {
        self.with(|memory| {
            if !memory.passed_on && memory.known.bind(&headers.public_key) {
                (memory.unregistered, memory.until_us) = (unregistered, until_us);
            }
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> Option<T> {
        let memory = self.0.memory.as_ref()?;
        Some(change(&mut memory.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A call of a node: who says to have signed it, and over which connection.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) headers: NodeHeaders,
    pub(crate) connection: Connection,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn signed_by(key: &'static [u8]) -> NodeHeaders {
        let (timestamp, signature) = (String::new(), Bytes::new());
        NodeHeaders { public_key: Bytes::from_static(key), timestamp, signature }
    }

    fn own() -> Connection {
        Connection::new(SocketAddr::from(([127, 0, 0, 1], 9)), true)
    }

    #[test]
    fn a_connection_is_bound_to_the_first_key_verified_on_it() {
        let connection = own();
        assert!(!connection.knows(&signed_by(b"a"), 0, 1));
        connection.verified(&signed_by(b"a"), 0, 9);
        connection.verified(&signed_by(b"b"), 0, 9);
        assert!(connection.knows(&signed_by(b"a"), 0, 1));
        assert!(!connection.knows(&signed_by(b"b"), 0, 1));
        assert!(!own().knows(&signed_by(b"a"), 0, 1), "another connection knows nothing of it");
    }

    #[test]
    fn a_key_is_believed_for_as_long_as_its_signature() {
        let connection = own();
        connection.verified(&signed_by(b"a"), 0, 9);
        assert!(connection.knows(&signed_by(b"a"), 0, 8));
        assert!(!connection.knows(&signed_by(b"a"), 0, 9));
        assert!(!connection.knows(&signed_by(b"a"), 0, 8), "and does not come back");
        connection.verified(&signed_by(b"a"), 0, 20);
        assert!(connection.knows(&signed_by(b"a"), 0, 19));
    }

    #[test]
    fn a_key_is_forgotten_when_a_node_unregisters() {
        let connection = own();
        connection.verified(&signed_by(b"a"), 3, 9);
        assert!(connection.knows(&signed_by(b"a"), 3, 1));
        assert!(!connection.knows(&signed_by(b"a"), 4, 1));
        assert!(!connection.knows(&signed_by(b"a"), 3, 1), "and does not come back");
        connection.verified(&signed_by(b"b"), 4, 9);
        assert!(connection.knows(&signed_by(b"b"), 4, 1));
    }

    #[test]
    fn nothing_is_remembered_where_calls_are_passed_on_or_tls_ends_elsewhere() {
        let plain = Connection::new(SocketAddr::from(([127, 0, 0, 1], 9)), false);
        plain.verified(&signed_by(b"a"), 0, 9);
        assert!(!plain.knows(&signed_by(b"a"), 0, 1));
        for name in PASSED_ON {
            let connection = own();
            connection.verified(&signed_by(b"a"), 0, 9);
            let mut headers = HeaderMap::new();
            connection.look_at(&headers);
            assert!(connection.knows(&signed_by(b"a"), 0, 1));
            headers.insert(name, "x".parse().unwrap());
            connection.look_at(&headers);
            connection.verified(&signed_by(b"a"), 0, 9);
            assert!(!connection.knows(&signed_by(b"a"), 0, 1), "{name}");
        }
    }
}
