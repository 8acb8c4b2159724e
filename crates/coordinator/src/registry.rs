//! Who may come in, in memory: every site's key and state, kept in step with the store.
//!
//! Asked on every request, so that a revocation takes hold at once, on live connections too.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sheaf_domain::{Digest, Identity, Role, SiteName, Timestamp, code};
use sheaf_store::{SiteRecord, SiteState, StateStore};
use tokio::sync::watch;

use crate::Error;

/// Every site, by name and by key.
#[derive(Debug)]
pub(crate) struct Registry {
    sites: RwLock<Sites>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Sites {
    by_name: HashMap<SiteName, Arc<SiteRecord>>,
    by_key: HashMap<Digest, SiteName>,
}

impl Sites {
    /// Puts a record in; returns the one it replaces.
    fn insert(&mut self, record: Arc<SiteRecord>) -> Option<Arc<SiteRecord>> {
        let (name, key) = (record.name.clone(), record.key_fingerprint);
        let before = self.by_name.insert(name.clone(), record);
        if let Some(before) = &before {
            self.by_key.remove(&before.key_fingerprint);
        }
        self.by_key.insert(key, name);
        before
    }
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

/// Whether somebody who could act before may be unable to, now that `after` stands in place of `before`.
fn may_shut_out(before: Option<&SiteRecord>, after: &SiteRecord) -> bool {
    match before {
        // Before, only an operator could act under the name.
        None => after.role == Role::Operator,
        Some(before) => {
            let same = before.role == after.role && before.key_fingerprint == after.key_fingerprint;
            !(same && after.state == SiteState::Active)
        }
    }
}

impl Registry {
    pub(crate) async fn load(store: &dyn StateStore) -> Result<Registry, Error> {
        let mut sites = Sites::default();
        for record in store.sites().await? {
            sites.insert(Arc::new(record));
        }
        Ok(Registry { sites: RwLock::new(sites), changes: watch::Sender::new(0) })
    }

    /// Puts a site in place of what was known of it, after the store has it.
    ///
    /// Those who wait for somebody to be shut out look again only when somebody may be: every request for work that is held
    /// is one of them, and sites come in and renew their certificates all the time.
    pub(crate) fn put(&self, record: SiteRecord) {
        let record = Arc::new(record);
        let before = self.sites.write().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&record));
        if may_shut_out(before.as_deref(), &record) {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    /// Forgets a site that could not come in any more, after the store has.
    pub(crate) fn forget(&self, name: &SiteName) {
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(gone) = sites.by_name.remove(name) {
            sites.by_key.remove(&gone.key_fingerprint);
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Sites> {
        self.sites.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn site(&self, name: &SiteName) -> Option<Arc<SiteRecord>> {
        self.read().by_name.get(name).cloned()
    }

    /// How many sites there are.
    pub(crate) fn len(&self) -> usize {
        self.read().by_name.len()
    }

    /// Every site, by name.
    pub(crate) fn all(&self) -> Vec<Arc<SiteRecord>> {
        let mut all: Vec<_> = self.read().by_name.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(crate) fn by_key(&self, fingerprint: &Digest) -> Option<Arc<SiteRecord>> {
        let sites = self.read();
        sites.by_key.get(fingerprint).and_then(|name| sites.by_name.get(name)).cloned()
    }

    pub(crate) fn is_active(&self, name: &SiteName) -> bool {
        self.site(name).is_some_and(|site| site.state == SiteState::Active)
    }

    /// Why a site was revoked, if it was.
    pub(crate) fn revocation(&self, name: &SiteName) -> Option<String> {
        match &self.site(name)?.state {
            SiteState::Revoked { reason, .. } => Some(reason.clone()),
            _ => None,
        }
    }

    /// Checks that `who` may act in `role` now.
    ///
    /// A participant must be enrolled with this key. An operator's certificate stands for itself: a participant that happens
    /// to have the operator's name changes nothing.
    pub(crate) fn authorise(&self, who: &Identity, role: Role) -> Result<(), Error> {
        if who.role != role {
            let (name, has) = (&who.name, who.role.name());
            return Err(Error::denied(format!(
                "{name} is known here as {has}, this call is for: {}",
                role.name()
            )));
        }
        match self.site(&who.name).filter(|site| site.role == role) {
            None if role == Role::Operator => Ok(()),
            None => Err(Error::denied(format!("site {} is not enrolled", who.name))),
            Some(site) => match &site.state {
                SiteState::Revoked { reason, .. } => {
                    let (site, code) = (&who.name, code::SITE_REVOKED);
                    Err(Error::denied(format!("site {site} was revoked: {reason} [{code}]")))
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
        let revoked = || self.site(name).is_some_and(|site| matches!(site.state, SiteState::Revoked { .. }));
        self.until(|| revoked().then_some(())).await;
    }

    /// Resolves when `who` may not act in its role any more, also when another key has taken its place; says why.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub(crate) async fn shut_out(&self, who: &Identity) -> Error {
        self.until(|| self.authorise(who, who.role).err()).await
    }

    /// What grows whenever somebody who could act before may be unable to.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn until<T>(&self, found: impl Fn() -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(found) = found() {
                return found;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sheaf_store::SiteCertificate;

    use super::*;

    fn record(name: &str, key: &[u8], state: SiteState, serial: &str) -> SiteRecord {
        let not_after = Timestamp::from_millis(9);
        SiteRecord {
            name: SiteName::new(name).unwrap(),
            role: Role::Participant,
            key_fingerprint: Digest::of(key),
            public_key_der: Vec::new(),
            certificate: Some(SiteCertificate { pem: String::new(), serial: serial.to_owned(), not_after }),
            state,
            enrolled_at: Timestamp::from_millis(1),
            last_seen: None,
            label: None,
            location: None,
        }
    }

    #[test]
    fn only_what_may_shut_somebody_out_wakes_those_who_wait_for_that() {
        let registry = Registry { sites: RwLock::default(), changes: watch::Sender::new(0) };
        let mut changes = registry.changes.subscribe();
        let mut wakes = |record: SiteRecord| {
            registry.put(record);
            let woken = changes.has_changed().unwrap();
            changes.mark_unchanged();
            woken
        };
        let revoked = SiteState::Revoked { reason: String::new(), at: Timestamp::from_millis(2) };
        assert!(!wakes(record("a", b"1", SiteState::Active, "1")), "it comes in");
        assert!(!wakes(record("a", b"1", SiteState::Active, "2")), "it renews its certificate");
        assert!(!wakes(record("b", b"2", SiteState::PendingApproval, "3")), "it waits for approval");
        assert!(!wakes(record("b", b"2", SiteState::Active, "3")), "it is let in");
        assert!(wakes(record("a", b"3", SiteState::Active, "4")), "another key takes its place");
        assert!(wakes(record("a", b"3", revoked, "4")));
        let operator = SiteRecord { role: Role::Operator, ..record("c", b"4", SiteState::Active, "5") };
        assert!(wakes(operator), "an operator's name is taken");
    }
}
