//! A state store whose appends fail on demand.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sheaf_domain::{
    Digest, JournalEntry, JournalId, Mail, MailDraft, MailId, Principal, SiteName, Span, Timestamp,
};
use sheaf_store::{
    Append, Appended, Error, Invite, Lease, SignedHead, SiteRecord, SiteState, SpendOutcome, StateStore,
};
use tokio::sync::watch;

/// What goes wrong.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Appends begun so far.
    pub(crate) appends: AtomicU64,
    /// Every append whose number this divides fails; 0 for none.
    pub(crate) every: AtomicU64,
    /// The append fails although it was carried out, as after a lost answer.
    pub(crate) after: AtomicBool,
    /// Nothing is written any more.
    pub(crate) dead: AtomicBool,
    /// Nothing is written any more once a journal is removed.
    pub(crate) dies_with_a_journal: AtomicBool,
    /// Journals cannot be read.
    pub(crate) blind: AtomicBool,
    /// A site that is not forgotten, as when it is otherwise in the store than in memory.
    pub(crate) keeps: Mutex<Option<SiteName>>,
    /// What is wrong with one journal's content.
    pub(crate) damage: Mutex<Option<(JournalId, Damage)>>,
}

/// What is wrong with a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The body of this entry is another.
    Changed(u64),
    /// The row of this entry cannot be read.
    Torn(u64),
    /// Everything from this entry on is gone.
    CutBefore(u64),
}

#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) inner: Arc<dyn StateStore>,
    pub(crate) faults: Arc<Faults>,
}

impl Damage {
    fn apply(self, page: &mut Vec<JournalEntry>) -> Result<(), Error> {
        match self {
            Damage::Changed(seq) => {
                page.iter_mut().filter(|entry| entry.seq == seq).for_each(|entry| entry.body.push(' '));
            }
            Damage::Torn(seq) if page.iter().any(|entry| entry.seq == seq) => {
                return Err(Error::Damaged { what: "entry".to_owned(), reason: "no text".to_owned() });
            }
            Damage::Torn(_) => {}
            Damage::CutBefore(seq) => page.retain(|entry| entry.seq < seq),
        }
        Ok(())
    }
}

impl Faulty {
    fn writable(&self) -> Result<(), Error> {
        if self.faults.dead.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }

    fn readable(&self) -> Result<(), Error> {
        if self.faults.blind.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }
}

#[async_trait]
impl StateStore for Faulty {
    async fn acquire_lease(
        &self,
        journal: JournalId,
        holder: &str,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        self.writable()?;
        self.inner.acquire_lease(journal, holder, ttl, now).await
    }
    async fn renew_lease(
        &self,
        journal: JournalId,
        epoch: u64,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        self.inner.renew_lease(journal, epoch, ttl, now).await
    }
    async fn release_lease(&self, journal: JournalId, epoch: u64) -> Result<(), Error> {
        self.inner.release_lease(journal, epoch).await
    }
    async fn append(&self, batch: Vec<Append>) -> Result<Vec<Appended>, Error> {
        self.writable()?;
        let number = self.faults.appends.fetch_add(1, Ordering::SeqCst) + 1;
        let every = self.faults.every.load(Ordering::SeqCst);
        if every == 0 || !number.is_multiple_of(every) {
            return self.inner.append(batch).await;
        }
        if self.faults.after.load(Ordering::SeqCst) {
            self.inner.append(batch).await?;
        }
        Err(Error::Closed)
    }
    async fn remove_journal(
        &self,
        journal: JournalId,
        lease_epoch: u64,
        note: Append,
    ) -> Result<Appended, Error> {
        self.writable()?;
        let removed = self.inner.remove_journal(journal, lease_epoch, note).await?;
        if self.faults.dies_with_a_journal.swap(false, Ordering::SeqCst) {
            self.faults.dead.store(true, Ordering::SeqCst);
        }
        if self.faults.after.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(removed) }
    }
    async fn entries(
        &self,
        journal: JournalId,
        after_seq: u64,
        limit: u32,
    ) -> Result<Vec<JournalEntry>, Error> {
        self.readable()?;
        let mut page = self.inner.entries(journal, after_seq, limit).await?;
        match *self.faults.damage.lock().unwrap() {
            Some((of, damage)) if of == journal => damage.apply(&mut page)?,
            _ => {}
        }
        Ok(page)
    }
    async fn head(&self, journal: JournalId) -> Result<(u64, Digest), Error> {
        self.readable()?;
        self.inner.head(journal).await
    }
    fn watch(&self, journal: JournalId) -> watch::Receiver<u64> {
        self.inner.watch(journal)
    }
    async fn journals(&self) -> Result<Vec<JournalId>, Error> {
        self.inner.journals().await
    }
    async fn put_signed_head(&self, head: SignedHead) -> Result<(), Error> {
        self.inner.put_signed_head(head).await
    }
    async fn signed_head(&self, journal: JournalId) -> Result<Option<SignedHead>, Error> {
        self.inner.signed_head(journal).await
    }
    async fn put_invite(&self, invite: Invite) -> Result<(), Error> {
        self.inner.put_invite(invite).await
    }
    async fn invite_by_token(&self, token_hash: Digest) -> Result<Option<Invite>, Error> {
        self.inner.invite_by_token(token_hash).await
    }
    async fn invites(&self) -> Result<Vec<Invite>, Error> {
        self.inner.invites().await
    }
    async fn spend_invite(&self, hash: Digest, key: Digest, now: Timestamp) -> Result<SpendOutcome, Error> {
        self.inner.spend_invite(hash, key, now).await
    }
    async fn withdraw_invites(&self, site: &SiteName) -> Result<u64, Error> {
        self.inner.withdraw_invites(site).await
    }
    async fn forget_invites(&self, before: Timestamp) -> Result<u64, Error> {
        self.inner.forget_invites(before).await
    }
    async fn put_site(&self, site: SiteRecord) -> Result<(), Error> {
        self.writable()?;
        self.inner.put_site(site).await
    }
    async fn replace_site(&self, present_key: Digest, site: SiteRecord) -> Result<(), Error> {
        self.inner.replace_site(present_key, site).await
    }
    async fn site(&self, name: &SiteName) -> Result<Option<SiteRecord>, Error> {
        self.inner.site(name).await
    }
    async fn site_by_key(&self, key_fingerprint: Digest) -> Result<Option<SiteRecord>, Error> {
        self.inner.site_by_key(key_fingerprint).await
    }
    async fn sites(&self) -> Result<Vec<SiteRecord>, Error> {
        self.inner.sites().await
    }
    async fn set_site_state(&self, name: &SiteName, state: SiteState) -> Result<(), Error> {
        self.inner.set_site_state(name, state).await
    }
    async fn forget_site(&self, name: &SiteName, key: Digest) -> Result<bool, Error> {
        self.writable()?;
        if self.faults.keeps.lock().unwrap().as_ref() == Some(name) {
            return Ok(false);
        }
        self.inner.forget_site(name, key).await
    }
    async fn touch_sites(&self, seen: Vec<(SiteName, Timestamp)>) -> Result<(), Error> {
        self.inner.touch_sites(seen).await
    }
    async fn post_mail(&self, draft: MailDraft, now: Timestamp) -> Result<(Mail, bool), Error> {
        self.inner.post_mail(draft, now).await
    }
    async fn mail(
        &self,
        to: &Principal,
        kinds: &[String],
        after: Option<MailId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Mail>, Error> {
        self.inner.mail(to, kinds, after, limit, now).await
    }
    async fn ack_mail(&self, to: &Principal, mails: &[MailId]) -> Result<u64, Error> {
        self.inner.ack_mail(to, mails).await
    }
    async fn expire_mail(&self, now: Timestamp) -> Result<u64, Error> {
        self.inner.expire_mail(now).await
    }
    async fn setting(&self, key: &str) -> Result<Option<String>, Error> {
        self.inner.setting(key).await
    }
    async fn put_setting(&self, key: &str, value: &str) -> Result<(), Error> {
        self.inner.put_setting(key, value).await
    }
    async fn backup_to(&self, path: &Path) -> Result<(), Error> {
        self.inner.backup_to(path).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
