//! Who is at the other end of a connection: put into a request's extensions by whoever accepted it.

use std::net::SocketAddr;

use sheaf_domain::{Identity, Timestamp, code};
use sheaf_pki::Peer;

use crate::Error;

/// What the peer's client certificate established, if it showed one that was verified.
///
/// Inserted by the TLS acceptor into the extensions of every request of the connection, for HTTP/1.1 and HTTP/2 alike.
/// Nothing in a request can set it.
#[derive(Debug, Clone)]
pub struct PeerIdentity(pub Option<Peer>);

/// The address the peer connects from; inserted beside [`PeerIdentity`].
#[derive(Debug, Clone, Copy)]
pub struct PeerAddr(pub SocketAddr);

/// Whether an ended certificate will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It will not.
    Refused,
    /// For a renewal, whose grace the coordinator judges.
    Allowed,
}

impl PeerIdentity {
    /// The identity, if there is one and its certificate has not ended while the connection lasted.
    pub(crate) fn caller(
        peer: Option<&PeerIdentity>,
        now: Timestamp,
        ended: Ended,
    ) -> Result<Identity, Error> {
        let Some(peer) = peer.and_then(|peer| peer.0.as_ref()) else {
            return Err(Error::Unauthenticated(
                "a client certificate of this federation is needed".to_owned(),
            ));
        };
        check_end(peer.not_after, now, ended)?;
        Ok(peer.identity.clone())
    }
}

/// Refuses a credential that ended.
pub(crate) fn check_end(not_after: Timestamp, now: Timestamp, ended: Ended) -> Result<(), Error> {
    if now > not_after && ended == Ended::Refused {
        return Err(Error::Unauthenticated(format!(
            "the certificate has ended: renew it [{}]",
            code::CERTIFICATE_ENDED
        )));
    }
    Ok(())
}
