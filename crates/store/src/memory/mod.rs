//! A store in memory, for tests and simulations: the same answers, and nothing outlives the process.
//!
//! Every call is one short synchronous step under one lock, so that it is atomic and its order is the caller's.

mod journals;
mod mails;
mod members;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use sheaf_domain::{
    Digest, JournalEntry, JournalId, Mail, MailDraft, MailId, Principal, SiteName, Span, Timestamp,
};
use tokio::sync::watch;

use crate::heads::Heads;
use crate::{
    Append, Appended, Error, Invite, Lease, MailLimits, SignedHead, SiteRecord, SiteState, SpendOutcome,
    StateStore,
};

/// A [`StateStore`] in memory.
#[derive(Debug)]
pub struct MemoryStore {
    /// Nothing any more once closed.
    kept: Mutex<Option<Kept>>,
    heads: Heads,
}

#[derive(Debug, Default)]
struct Kept {
    journals: journals::Journals,
    members: members::Members,
    mails: mails::Mails,
    settings: BTreeMap<String, String>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: MailLimits) -> MemoryStore {
        let kept = Kept { mails: mails::Mails::new(limits), ..Kept::default() };
        MemoryStore { kept: Mutex::new(Some(kept)), heads: Heads::standing_at([]) }
    }

    fn with<T>(&self, step: impl FnOnce(&mut Kept) -> Result<T, Error>) -> Result<T, Error> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        step(kept.as_mut().ok_or(Error::Closed)?)
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new(MailLimits::default())
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn acquire_lease(
        &self,
        journal: JournalId,
        holder: &str,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        self.with(|kept| kept.journals.acquire_lease(journal, holder, ttl, now))
    }

    async fn renew_lease(
        &self,
        journal: JournalId,
        epoch: u64,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        self.with(|kept| kept.journals.renew_lease(journal, epoch, ttl, now))
    }

    async fn release_lease(&self, journal: JournalId, epoch: u64) -> Result<(), Error> {
        self.with(|kept| kept.journals.release_lease(journal, epoch))
    }

    async fn append(&self, batch: Vec<Append>) -> Result<Vec<Appended>, Error> {
        self.with(|kept| {
            let appended = kept.journals.append(&batch)?;
            // Under the lock, so that numbers reach the listeners in order.
            self.heads.advance(&appended);
            Ok(appended)
        })
    }

    async fn remove_journal(
        &self,
        journal: JournalId,
        lease_epoch: u64,
        note: Append,
    ) -> Result<Appended, Error> {
        self.with(|kept| {
            let appended = kept.journals.remove(journal, lease_epoch, &note)?;
            self.heads.remove(journal);
            self.heads.advance(std::slice::from_ref(&appended));
            Ok(appended)
        })
    }

    async fn entries(
        &self,
        journal: JournalId,
        after_seq: u64,
        limit: u32,
    ) -> Result<Vec<JournalEntry>, Error> {
        self.with(|kept| Ok(kept.journals.entries(journal, after_seq, limit)))
    }

    async fn head(&self, journal: JournalId) -> Result<(u64, Digest), Error> {
        self.with(|kept| Ok(kept.journals.head(journal)))
    }

    fn watch(&self, journal: JournalId) -> watch::Receiver<u64> {
        self.heads.watch(journal)
    }

    async fn journals(&self) -> Result<Vec<JournalId>, Error> {
        self.with(|kept| Ok(kept.journals.ids()))
    }

    async fn put_signed_head(&self, head: SignedHead) -> Result<(), Error> {
        self.with(|kept| kept.journals.put_signed_head(head))
    }

    async fn signed_head(&self, journal: JournalId) -> Result<Option<SignedHead>, Error> {
        self.with(|kept| Ok(kept.journals.signed_head(journal)))
    }

    async fn put_invite(&self, invite: Invite) -> Result<(), Error> {
        self.with(|kept| kept.members.put_invite(invite))
    }

    async fn invite_by_token(&self, token_hash: Digest) -> Result<Option<Invite>, Error> {
        self.with(|kept| Ok(kept.members.invite_by_token(token_hash)))
    }

    async fn invites(&self) -> Result<Vec<Invite>, Error> {
        self.with(|kept| Ok(kept.members.invites()))
    }

    async fn spend_invite(
        &self,
        token_hash: Digest,
        key_fingerprint: Digest,
        now: Timestamp,
    ) -> Result<SpendOutcome, Error> {
        self.with(|kept| kept.members.spend_invite(token_hash, key_fingerprint, now))
    }

    async fn withdraw_invites(&self, site: &SiteName) -> Result<u64, Error> {
        self.with(|kept| Ok(kept.members.withdraw_invites(site)))
    }

    async fn forget_invites(&self, before: Timestamp) -> Result<u64, Error> {
        self.with(|kept| Ok(kept.members.forget_invites(before)))
    }

    async fn put_site(&self, site: SiteRecord) -> Result<(), Error> {
        self.with(|kept| kept.members.put_site(site))
    }

    async fn replace_site(&self, present_key: Digest, site: SiteRecord) -> Result<(), Error> {
        self.with(|kept| kept.members.replace_site(present_key, site))
    }

    async fn site(&self, name: &SiteName) -> Result<Option<SiteRecord>, Error> {
        self.with(|kept| Ok(kept.members.site(name)))
    }

    async fn site_by_key(&self, key_fingerprint: Digest) -> Result<Option<SiteRecord>, Error> {
        self.with(|kept| Ok(kept.members.site_by_key(key_fingerprint)))
    }

    async fn sites(&self) -> Result<Vec<SiteRecord>, Error> {
        self.with(|kept| Ok(kept.members.sites()))
    }

    async fn set_site_state(&self, name: &SiteName, state: SiteState) -> Result<(), Error> {
        self.with(|kept| kept.members.set_site_state(name, state))
    }

    async fn forget_site(&self, name: &SiteName, key_fingerprint: Digest) -> Result<bool, Error> {
        self.with(|kept| Ok(kept.members.forget_site(name, key_fingerprint)))
    }

    async fn touch_sites(&self, seen: Vec<(SiteName, Timestamp)>) -> Result<(), Error> {
        self.with(|kept| kept.members.touch_sites(&seen))
    }

    async fn post_mail(&self, draft: MailDraft, now: Timestamp) -> Result<(Mail, bool), Error> {
        self.with(|kept| kept.mails.post(draft, now))
    }

    async fn mail(
        &self,
        to: &Principal,
        kinds: &[String],
        after: Option<MailId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Mail>, Error> {
        self.with(|kept| kept.mails.waiting(to, kinds, after, limit, now))
    }

    async fn ack_mail(&self, to: &Principal, mails: &[MailId]) -> Result<u64, Error> {
        self.with(|kept| kept.mails.ack(to, mails))
    }

    async fn expire_mail(&self, now: Timestamp) -> Result<u64, Error> {
        self.with(|kept| Ok(kept.mails.expire(now)))
    }

    async fn setting(&self, key: &str) -> Result<Option<String>, Error> {
        self.with(|kept| Ok(kept.settings.get(key).cloned()))
    }

    async fn put_setting(&self, key: &str, value: &str) -> Result<(), Error> {
        crate::setting::check(key, value)?;
        self.with(|kept| {
            kept.settings.insert(key.to_owned(), value.to_owned());
            Ok(())
        })
    }

    async fn backup_to(&self, _path: &Path) -> Result<(), Error> {
        self.with(|_| Err(Error::InvalidArgument("a store in memory has no file to copy".to_owned())))
    }

    async fn close(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.heads.close();
    }
}
