//! Who may come in, in memory: every site's key and state, kept in step with the store.
//!
//! Asked on every request, so that a revocation takes hold at once, on live connections too.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sheaf_domain::{Digest, Identity, Role, SiteName, Timestamp};
use sheaf_store::{SiteRecord, SiteState, StateStore};
use tokio::sync::watch;

use crate::Error;

/// Every site, by name and by key.
#[derive(Debug)]
pub(crate) struct Registry {
    sites: RwLock<HashMap<SiteName, Arc<SiteRecord>>>,
    changes: watch::Sender<u64>,
}

/// What a signed request is checked against.
#[derive(Debug, Clone)]
pub struct SiteKeyFacts {
    /// Whose key it is.
    pub site: SiteName,
    /// What the site may do.
    pub role: Role,
    /// The public key (SubjectPublicKeyInfo, DER).
    pub public_key_der: Arc<[u8]>,
    /// When the site's certificate ends.
    pub not_after: Timestamp,
}

impl Registry {
    pub(crate) async fn load(store: &dyn StateStore) -> Result<Registry, Error> {
        let sites = store.sites().await?.into_iter().map(|site| (site.name.clone(), Arc::new(site))).collect();
        Ok(Registry { sites: RwLock::new(sites), changes: watch::Sender::new(0) })
    }

    /// Puts a site in place of what was known of it, after the store has it.
    pub(crate) fn put(&self, record: SiteRecord) {
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        sites.insert(record.name.clone(), Arc::new(record));
        drop(sites);
        self.changes.send_modify(|version| *version += 1);
    }

    pub(crate) fn site(&self, name: &SiteName) -> Option<Arc<SiteRecord>> {
        self.sites.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<SiteRecord>> {
        let sites = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = sites.values().cloned().collect();
        drop(sites);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(crate) fn by_key(&self, fingerprint: &Digest) -> Option<Arc<SiteRecord>> {
        let sites = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        sites.values().find(|site| site.key_fingerprint == *fingerprint).cloned()
    }

    pub(crate) fn is_active(&self, name: &SiteName) -> bool {
        self.site(name).is_some_and(|site| site.state == SiteState::Active)
    }

    /// Checks that `who` may act in `role` now.
    ///
    /// An operator's certificate stands for itself unless its name was revoked; a participant must be enrolled with this key.
    pub(crate) fn authorise(&self, who: &Identity, role: Role) -> Result<(), Error> {
        if who.role != role {
            return Err(Error::denied(format!("{} is a {}, not an {}", who.name, who.role.name(), role.name())));
        }
        match self.site(&who.name) {
            None if role == Role::Operator => Ok(()),
            None => Err(Error::denied(format!("site {} is not enrolled", who.name))),
            Some(site) => match &site.state {
                SiteState::Revoked { reason, .. } => {
                    Err(Error::denied(format!("site {} was revoked: {reason}", who.name)))
                }
                SiteState::PendingApproval => {
                    Err(Error::denied(format!("site {} waits for an operator's approval", who.name)))
                }
                SiteState::Active if site.key_fingerprint == who.key_fingerprint => Ok(()),
                SiteState::Active => {
                    Err(Error::denied(format!("site {} is enrolled with another key", who.name)))
                }
            },
        }
    }

    /// Resolves when `name` is revoked.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub(crate) async fn revoked(&self, name: &SiteName) {
        let mut changes = self.changes.subscribe();
        loop {
            let revoked = self.site(name).is_some_and(|site| matches!(site.state, SiteState::Revoked { .. }));
            if revoked {
                return;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
