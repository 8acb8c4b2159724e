//! What every call stands on: the coordinator's relayed runs, the clock, and what was verified of nodes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sheaf_coordinator::{KeyFacts, RelayOverview, Relays};
use sheaf_domain::{Digest, ErrorKind, Identity, Role, SiteName};
use sheaf_pki::PublicKey;
use sheaf_runtime::Clock;

use crate::connection::Signed;
use crate::error::{FlowerCode, FlowerError};
use crate::names::{node_id_of, payload};
use crate::node_auth::{NodeVerifier, Window, verify_signature};
use crate::superexec_auth::{SuperExecAuthError, SuperExecVerifier};
use crate::traffic::Traffic;

/// How long a request for messages or work is held: below the thirty seconds after which stock peers give a request up.
pub(crate) const HOLD: Duration = Duration::from_secs(20);
/// How long an application waits for the rest of its answers once some are there.
pub(crate) const HOLD_FOR_MORE: Duration = Duration::from_secs(2);
/// Verified signatures remembered at once.
const REMEMBERED_MAX: usize = 100_000;

/// How Flower's calls are served.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlowerSettings {
    /// Whether nodes' keys must have been registered by an operator.
    pub enable_supernode_auth: bool,
    /// Whether no run may be started.
    pub refuse_runs: bool,
    /// Whether the `flwr` command is served to operators who logged in, or come with their certificate, and to nobody else.
    pub operator_login: bool,
    /// Whether every TLS connection is one node's own: no proxy in front sends calls of several over one.
    pub direct_connections: bool,
}

/// Which of Flower's services a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// What SuperNodes call.
    pub fleet: bool,
    /// What the `flwr` command calls: whoever may call it may run code here.
    pub control: bool,
    /// What applications call, and those who start them: whoever may claim a run gets its token.
    pub runtime: bool,
}

/// The front-end; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Flower {
    pub(crate) relays: Relays,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: FlowerSettings,
    verifier: Arc<Mutex<NodeVerifier>>,
    operator: Arc<Identity>,
    superexec: Option<Arc<Mutex<SuperExecVerifier>>>,
    pub(crate) traffic: Arc<Traffic>,
    /// How many nodes have unregistered; connections forget keys by it.
    unregistered: Arc<AtomicU64>,
}

impl Flower {
    /// A front-end to relayed runs; `operator` is who acts where the `flwr` command is served.
    pub fn new(
        relays: Relays,
        clock: Arc<dyn Clock>,
        settings: FlowerSettings,
        operator: SiteName,
    ) -> Flower {
        let verifier = NodeVerifier::new(Window::default(), REMEMBERED_MAX);
        let operator = Identity {
            trust_domain: "local".to_owned(),
            name: operator,
            role: Role::Operator,
            key_fingerprint: Digest::from_bytes([0; 32]),
        };
        Flower {
            relays,
            clock,
            settings,
            verifier: Arc::new(Mutex::new(verifier)),
            operator: Arc::new(operator),
            superexec: None,
            traffic: Arc::default(),
            unregistered: Arc::default(),
        }
    }

    /// Those who ask for work must prove that they know this secret.
    ///
    /// # Errors
    /// When the secret is none.
    pub fn with_superexec_secret(self, secret: &[u8]) -> Result<Flower, SuperExecAuthError> {
        let verifier = SuperExecVerifier::new(secret)?;
        Ok(Flower { superexec: Some(Arc::new(Mutex::new(verifier))), ..self })
    }

    /// Whether whoever asks for work may have it.
    ///
    /// # Errors
    /// Runtime authentication failed, saying why.
    pub(crate) fn check_superexec(&self, headers: &http::HeaderMap, body: &[u8]) -> Result<(), FlowerError> {
        let Some(verifier) = &self.superexec else { return Ok(()) };
        let now_s = i64::try_from(self.clock.now().as_millis() / 1000).unwrap_or(i64::MAX);
        let verified = verifier.lock().unwrap_or_else(PoisonError::into_inner).verify(headers, body, now_s);
        verified.map_err(|error| FlowerError::new(FlowerCode::RuntimeAuthenticationFailed, error.to_string()))
    }

    /// A run as Flower describes it.
    pub(crate) fn describe(&self, overview: &RelayOverview) -> crate::proto::Run {
        let mut run = crate::runs::run_of(overview);
        self.traffic.describe(overview.run, &mut run);
        run
    }

    /// Who acts where the `flwr` command is served to whoever is on this machine.
    pub(crate) fn local_operator(&self) -> &Identity {
        &self.operator
    }

    /// The key that a call was signed with.
    ///
    /// # Errors
    /// Node authentication failed, saying why.
    pub(crate) fn authenticate(&self, signed: &Signed) -> Result<PublicKey, FlowerError> {
        let refused = |reason: String| FlowerError::new(FlowerCode::NodeAuthenticationFailed, reason);
        let now_us =
            i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        let (headers, unregistered) = (&signed.headers, self.unregistered.load(Ordering::SeqCst));
        let direct = self.settings.direct_connections.then_some(&signed.connection);
        let known = direct.is_some_and(|connection| connection.knows(headers, unregistered, now_us));
        let verifier = || self.verifier.lock().unwrap_or_else(PoisonError::into_inner);
        let believed =
            verifier().quick(headers, known, now_us).map_err(|error| refused(error.to_string()))?;
        if believed.is_none() {
            verify_signature(headers).map_err(|error| refused(error.to_string()))?;
            verifier().remember(headers);
            if let (Some(connection), Some(until_us)) = (direct, Window::default().end_us(headers)) {
                connection.verified(headers, unregistered, until_us);
            }
        }
        public_key(&headers.public_key)
    }

    /// A node unregistered: no connection knows its key any more.
    pub(crate) fn forget_keys(&self) {
        self.unregistered.fetch_add(1, Ordering::SeqCst);
    }

    /// The participant behind a call that names `node_id`. A node that a server without registration does not know, because it lost its
    /// memory, is taken in again: its key proves the number.
    ///
    /// # Errors
    /// Node authentication failed when key and number do not belong together, or the key is not registered.
    pub(crate) async fn node(&self, signed: &Signed, node_id: u64) -> Result<SiteName, FlowerError> {
        let site = self.site(signed).await?;
        if node_id_of(&site) != Some(node_id) {
            let detail = "the node id is not that of the key";
            return Err(FlowerError::new(FlowerCode::NodeAuthenticationFailed, detail));
        }
        Ok(site)
    }

    /// The participant behind a call, as its key says.
    ///
    /// # Errors
    /// As [`Flower::node`].
    pub(crate) async fn site(&self, signed: &Signed) -> Result<SiteName, FlowerError> {
        let key = self.authenticate(signed)?;
        let known = self.relays.by_key(&key.fingerprint());
        let site = match known {
            None if !self.settings.enable_supernode_auth => {
                match self.relays.register_self(&key, signed.connection.peer()).await {
                    Ok(site) => site,
                    // It was registered meanwhile, and may be unregistered again.
                    Err(error) if error.kind() == ErrorKind::Conflict => {
                        active(self.relays.by_key(&key.fingerprint()))?
                    }
                    Err(error) => return Err(FlowerError::new(FlowerCode::Unavailable, error.to_string())),
                }
            }
            known => active(known)?,
        };
        self.relays.heard(&site, None);
        Ok(site)
    }
}

/// The participant with a key, if it may come in.
fn active(known: Option<KeyFacts>) -> Result<SiteName, FlowerError> {
    let refused = |reason: &str| FlowerError::new(FlowerCode::NodeAuthenticationFailed, reason);
    match known {
        Some(known) if known.active => Ok(known.site),
        Some(_) => Err(refused("this key was unregistered")),
        None => Err(refused("this key is not registered")),
    }
}

/// A public key as Flower sends it: PEM.
///
/// # Errors
/// A payload error.
pub(crate) fn public_key(pem: &[u8]) -> Result<PublicKey, FlowerError> {
    let text = std::str::from_utf8(pem).map_err(|_| payload("the public key is not PEM"))?;
    PublicKey::from_pem(text).map_err(|error| payload(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_that_may_come_in_stands_for_its_participant() {
        let site = SiteName::new("key-0123456789abcdef").unwrap();
        let facts = |active| Some(KeyFacts { site: site.clone(), active });
        assert_eq!(active(facts(true)).unwrap(), site);
        for (known, reason) in [(facts(false), "unregistered"), (None, "not registered")] {
            let refused = active(known).unwrap_err();
            assert_eq!(refused.code, FlowerCode::NodeAuthenticationFailed);
            assert!(refused.detail.contains(reason), "{refused}");
        }
    }
}
