//! Changes of sites and invitations: one at a time for each site and each key, many at once for different ones, so that the
//! store commits them together; and which invitations are open, in memory, so that making one needs no look at all others.
//!
//! Invariant: an invitation that is open in the store is open here too. After a failure one may be counted here that is not
//! there any more, never the other way round.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Mutex;

use sheaf_domain::{Digest, SiteName, Timestamp};
use sheaf_store::{InviteState, StateStore};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::Error;
use crate::outbox::lock;

/// Whose turn it is to change what, and what is open.
#[derive(Debug)]
pub(crate) struct Membership {
    sites: Lanes,
    keys: Lanes,
    open: Mutex<Open>,
}

/// The turn of one change; others of the same site or key wait until it is dropped.
#[derive(Debug)]
#[must_use = "the turn is over when this is dropped"]
pub(crate) struct Turn<'m> {
    _site: SemaphorePermit<'m>,
    _key: Option<SemaphorePermit<'m>>,
}

impl Membership {
    pub(crate) async fn load(store: &dyn StateStore) -> Result<Membership, Error> {
        let mut open = Open::default();
        for invite in store.invites().await?.into_iter().filter(|invite| invite.state == InviteState::Open) {
            // Made in this order: the newest stands.
            open.put(&invite.site, Some(invite.expires_at));
        }
        Ok(Membership { sites: Lanes::new(), keys: Lanes::new(), open: Mutex::new(open) })
    }

    /// Waits for the turn to change what is known of `site`, and of `key` where a site may come to have it.
    ///
    /// Everybody takes a site's turn before a key's and holds one of each at most, so that nobody waits in a circle.
    ///
    /// # Cancel safety
    /// Safe: a turn that was not taken is not held.
    pub(crate) async fn turn(&self, site: &SiteName, key: Option<&Digest>) -> Result<Turn<'_>, Error> {
        let site = self.sites.turn(site).await?;
        let key = match key {
            Some(key) => Some(self.keys.turn(key).await?),
            None => None,
        };
        Ok(Turn { _site: site, _key: key })
    }

    /// Counts an invitation as open that is about to be made, unless there are `most` sites enrolled and invited; returns when
    /// the site's invitation until now ends, which is replaced.
    ///
    /// # Errors
    /// How many sites there are, when that is too many; nothing is changed.
    pub(crate) fn reserve(
        &self,
        site: &SiteName,
        expires_at: Timestamp,
        now: Timestamp,
        enrolled: impl FnOnce() -> usize,
        most: usize,
    ) -> Result<Option<Timestamp>, usize> {
        let mut open = lock(&self.open);
        // Counted under the lock: one that comes in is among the enrolled before it stops being invited.
        let sites = enrolled().saturating_add(open.count(now));
        if sites >= most { Err(sites) } else { Ok(open.put(site, Some(expires_at))) }
    }

    /// Says when the site's open invitation ends; none when it has none any more.
    pub(crate) fn set_open(&self, site: &SiteName, expires_at: Option<Timestamp>) {
        lock(&self.open).put(site, expires_at);
    }

    /// Forgets invitations that ended before `before`.
    pub(crate) fn forget(&self, before: Timestamp) {
        lock(&self.open).forget(before);
    }
}

/// Turns by hash: what falls into one lane waits for one another, whether it is the same or not.
#[derive(Debug)]
struct Lanes {
    lanes: Vec<Semaphore>,
    /// The same in every process: who waits for whom does not change from one to the next.
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl Lanes {
    fn new() -> Lanes {
        Lanes {
            lanes: (0..LANES).map(|_| Semaphore::new(1)).collect(),
            hasher: BuildHasherDefault::default(),
        }
    }

    async fn turn(&self, of: impl Hash) -> Result<SemaphorePermit<'_>, Error> {
        let place = self.hasher.hash_one(of) % LANES;
        let lane = usize::try_from(place).ok().and_then(|place| self.lanes.get(place));
        let lane = lane.ok_or_else(|| Error::internal("a lane is missing"))?;
        lane.acquire().await.map_err(|_| Error::shutting_down())
    }
}

/// When open invitations end: at most one a site.
#[derive(Debug, Default)]
struct Open {
    ends: HashMap<SiteName, Timestamp>,
    by_end: BTreeSet<(Timestamp, SiteName)>,
}

impl Open {
    fn put(&mut self, site: &SiteName, expires_at: Option<Timestamp>) -> Option<Timestamp> {
        let before = match expires_at {
            Some(expires_at) => self.ends.insert(site.clone(), expires_at),
            None => self.ends.remove(site),
        };
        if let Some(before) = before {
            self.by_end.remove(&(before, site.clone()));
        }
        if let Some(expires_at) = expires_at {
            self.by_end.insert((expires_at, site.clone()));
        }
        before
    }

    /// Those that end after `now`; the ended ones, which are counted out, are few.
    fn count(&self, now: Timestamp) -> usize {
        self.by_end.len() - self.by_end.iter().take_while(|(end, _)| *end <= now).count()
    }

    fn forget(&mut self, before: Timestamp) {
        while let Some((end, site)) = self.by_end.first().filter(|(end, _)| *end < before).cloned() {
            self.by_end.remove(&(end, site.clone()));
            self.ends.remove(&site);
        }
    }
}

/// Changes that go on at once at most, of sites and of keys: as many as the store commits together.
const LANES: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> SiteName {
        SiteName::new(name).unwrap()
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn membership() -> Membership {
        Membership { sites: Lanes::new(), keys: Lanes::new(), open: Mutex::default() }
    }

    #[test]
    fn what_is_open_and_what_has_ended_is_told_apart_by_the_time() {
        let mut open = Open::default();
        assert_eq!(open.put(&name("a"), Some(at(10))), None);
        assert_eq!(open.put(&name("b"), Some(at(20))), None);
        assert_eq!(open.put(&name("a"), Some(at(30))), Some(at(10)), "one a site");
        assert_eq!([at(5), at(20), at(30)].map(|now| open.count(now)), [2, 1, 0]);
        open.forget(at(20));
        assert_eq!(open.count(at(5)), 2, "one that ends then is kept");
        open.forget(at(21));
        assert_eq!(open.count(at(5)), 1);
        assert_eq!(open.put(&name("a"), None), Some(at(30)));
        assert_eq!((open.ends.len(), open.by_end.len()), (0, 0));
    }

    #[test]
    fn no_more_are_reserved_than_there_is_room_for() {
        let membership = membership();
        let reserve = |site: &str, enrolled| membership.reserve(&name(site), at(10), at(1), || enrolled, 3);
        assert_eq!(reserve("a", 1), Ok(None));
        assert_eq!(reserve("b", 1), Ok(None));
        assert_eq!(reserve("c", 1), Err(3));
        membership.set_open(&name("a"), None);
        assert_eq!(reserve("c", 1), Ok(None));
    }

    #[tokio::test]
    async fn a_site_and_a_key_have_one_turn_at_a_time() {
        let membership = membership();
        let (site, key) = (name("a"), Digest::of(b"key"));
        let held = membership.turn(&site, Some(&key)).await.unwrap();
        let mut same_site = Box::pin(membership.turn(&site, None));
        // Of a site in another lane, so that it is the key that is waited for.
        let lane_of = |site: &SiteName| membership.sites.hasher.hash_one(site) % LANES;
        let others = (0..).map(|idx| name(&format!("other-{idx}")));
        let other = others.into_iter().find(|other| lane_of(other) != lane_of(&site)).unwrap();
        let mut same_key = Box::pin(membership.turn(&other, Some(&key)));
        assert!(futures_util::poll!(&mut same_site).is_pending());
        assert!(futures_util::poll!(&mut same_key).is_pending());
        drop(held);
        drop(same_site.await.unwrap());
        drop(same_key.await.unwrap());
    }
}
