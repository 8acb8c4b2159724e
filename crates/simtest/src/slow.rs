//! Stores that take their time before and after what they do, so that processes die in between.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sheaf_blob::{BlobStore, Hold, ObjectWriter, Stored, Usage};
use sheaf_domain::rng::SeededRng;
use sheaf_domain::{
    Digest, JournalEntry, JournalId, Mail, MailDraft, MailId, Principal, Segment, SiteName, Span, Timestamp,
};
use sheaf_store::{
    Append, Appended, Error, Invite, Lease, SignedHead, SiteRecord, SiteState, SpendOutcome, StateStore,
};
use tokio::sync::watch;

/// Pauses of random length.
#[derive(Debug, Clone)]
pub(crate) struct Pauses {
    rng: Arc<Mutex<SeededRng>>,
    ms_max: u64,
}

impl Pauses {
    /// Pauses of up to `ms_max` milliseconds; half of them are none.
    pub(crate) fn new(seed: u64, ms_max: u64) -> Pauses {
        Pauses { rng: Arc::new(Mutex::new(SeededRng::new(seed, "pauses"))), ms_max }
    }

    async fn pause(&self) {
        let ms = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            if rng.below(2) == 0 { 0 } else { rng.below(self.ms_max + 1) }
        };
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }
}

/// A slow store.
#[derive(Debug)]
pub(crate) struct Slow<S> {
    pub(crate) inner: Arc<S>,
    pub(crate) pauses: Pauses,
}

/// Implements the methods of a store, each with a pause before and after.
macro_rules! slowly {
    ($trait:ident { $(fn $name:ident(&self $(, $arg:ident: $of:ty)*) -> $out:ty;)+ } $($rest:item)*) => {
        #[async_trait]
        impl<S: $trait> $trait for Slow<S> {
            $(async fn $name(&self $(, $arg: $of)*) -> $out {
                self.pauses.pause().await;
                let done = self.inner.$name($($arg),*).await;
                self.pauses.pause().await;
                done
            })+
            $($rest)*
        }
    };
}

slowly! {
    StateStore {
        fn acquire_lease(&self, journal: JournalId, holder: &str, ttl: Span, now: Timestamp) -> Result<Lease, Error>;
        fn renew_lease(&self, journal: JournalId, epoch: u64, ttl: Span, now: Timestamp) -> Result<Lease, Error>;
        fn release_lease(&self, journal: JournalId, epoch: u64) -> Result<(), Error>;
        fn append(&self, batch: Vec<Append>) -> Result<Vec<Appended>, Error>;
        fn remove_journal(&self, journal: JournalId, lease_epoch: u64, note: Append) -> Result<Appended, Error>;
        fn entries(&self, journal: JournalId, after_seq: u64, limit: u32) -> Result<Vec<JournalEntry>, Error>;
        fn head(&self, journal: JournalId) -> Result<(u64, Digest), Error>;
        fn journals(&self) -> Result<Vec<JournalId>, Error>;
        fn put_signed_head(&self, head: SignedHead) -> Result<(), Error>;
        fn signed_head(&self, journal: JournalId) -> Result<Option<SignedHead>, Error>;
        fn put_invite(&self, invite: Invite) -> Result<(), Error>;
        fn invite_by_token(&self, token_hash: Digest) -> Result<Option<Invite>, Error>;
        fn invites(&self) -> Result<Vec<Invite>, Error>;
        fn spend_invite(&self, hash: Digest, key: Digest, now: Timestamp) -> Result<SpendOutcome, Error>;
        fn withdraw_invites(&self, site: &SiteName) -> Result<u64, Error>;
        fn forget_invites(&self, before: Timestamp) -> Result<u64, Error>;
        fn put_site(&self, site: SiteRecord) -> Result<(), Error>;
        fn replace_site(&self, present_key: Digest, site: SiteRecord) -> Result<(), Error>;
        fn site(&self, name: &SiteName) -> Result<Option<SiteRecord>, Error>;
        fn site_by_key(&self, key_fingerprint: Digest) -> Result<Option<SiteRecord>, Error>;
        fn sites(&self) -> Result<Vec<SiteRecord>, Error>;
        fn set_site_state(&self, name: &SiteName, state: SiteState) -> Result<(), Error>;
        fn forget_site(&self, name: &SiteName, key_fingerprint: Digest) -> Result<bool, Error>;
        fn touch_sites(&self, seen: Vec<(SiteName, Timestamp)>) -> Result<(), Error>;
        fn post_mail(&self, draft: MailDraft, now: Timestamp) -> Result<(Mail, bool), Error>;
        fn mail(&self, to: &Principal, kinds: &[String], after: Option<MailId>, limit: u32, now: Timestamp) -> Result<Vec<Mail>, Error>;
        fn ack_mail(&self, to: &Principal, mails: &[MailId]) -> Result<u64, Error>;
        fn expire_mail(&self, now: Timestamp) -> Result<u64, Error>;
        fn setting(&self, key: &str) -> Result<Option<String>, Error>;
        fn put_setting(&self, key: &str, value: &str) -> Result<(), Error>;
        fn backup_to(&self, path: &Path) -> Result<(), Error>;
        fn close(&self) -> ();
    }

    fn watch(&self, journal: JournalId) -> watch::Receiver<u64> {
        self.inner.watch(journal)
    }
}

slowly! {
    BlobStore {
        fn read(&self, object: &Digest, offset: u64, len: u64) -> Result<Bytes, sheaf_blob::Error>;
        fn read_many(&self, segments: &[Segment]) -> Result<Vec<Bytes>, sheaf_blob::Error>;
        fn len(&self, object: &Digest) -> Result<Option<u64>, sheaf_blob::Error>;
        fn hold(&self, object: &Digest, hold: &Hold) -> Result<bool, sheaf_blob::Error>;
        fn held(&self, hold: &Hold) -> Result<Vec<(Digest, u64)>, sheaf_blob::Error>;
        fn holds(&self) -> Result<Vec<Hold>, sheaf_blob::Error>;
        fn release(&self, hold: &Hold) -> Result<u64, sheaf_blob::Error>;
        fn close(&self) -> ();
    }

    async fn writer(&self, hold: &Hold, len: u64) -> Result<Box<dyn ObjectWriter>, sheaf_blob::Error> {
        self.pauses.pause().await;
        let inner = self.inner.writer(hold, len).await?;
        Ok(Box::new(SlowWriter { inner, pauses: self.pauses.clone() }))
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

#[derive(Debug)]
struct SlowWriter {
    inner: Box<dyn ObjectWriter>,
    pauses: Pauses,
}

#[async_trait]
impl ObjectWriter for SlowWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), sheaf_blob::Error> {
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>, expected: Option<Digest>) -> Result<Stored, sheaf_blob::Error> {
        self.pauses.pause().await;
        let done = self.inner.finish(expected).await;
        self.pauses.pause().await;
        done
    }
}
