//! The one trait of the crate: everything a coordinator keeps that is not bytes of models.

use std::path::Path;

use async_trait::async_trait;
use sheaf_domain::{
    Digest, JournalEntry, JournalId, Mail, MailDraft, MailId, Principal, SiteName, Span, Timestamp,
};
use tokio::sync::watch;

use crate::{Append, Appended, Error, Invite, Lease, SignedHead, SiteRecord, SiteState, SpendOutcome};

/// A state store.
///
/// Every write is one transaction: when it returns, it is durable; when it fails, nothing of it was applied. One
/// exception is honest: after [`Error::Full`] or [`Error::Database`] from the very last step, a crash may still bring
/// the write to light. Every write is therefore guarded or idempotent: asking again is safe.
///
/// # Errors
/// Besides what each method says: [`Error::Full`], [`Error::Database`] and [`Error::Io`] when the store fails,
/// [`Error::Closed`] after [`StateStore::close`], [`Error::Damaged`] when what is read cannot have been written,
/// [`Error::InvalidArgument`] for anything beyond its bound.
///
/// # Cancel safety
/// All methods: a dropped read has no effect. A dropped write is carried out wholly or not at all; it runs in a task
/// of the store's own that the caller cannot drop, and the caller no longer learns which.
#[async_trait]
pub trait StateStore: Send + Sync + std::fmt::Debug + 'static {
    // --- journals ---

    /// Gives `holder` the right to append to `journal` until `now + ttl`, fencing off every lease before.
    ///
    /// # Errors
    /// [`Error::LeaseHeld`] while another holder's lease is live; the same holder gets a new, higher epoch.
    async fn acquire_lease(
        &self,
        journal: JournalId,
        holder: &str,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error>;

    /// Extends the lease `epoch` until `now + ttl`, also one that ran out and that nobody took.
    ///
    /// # Errors
    /// [`Error::Fenced`] when it is not the newest, or was released.
    async fn renew_lease(
        &self,
        journal: JournalId,
        epoch: u64,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error>;

    /// Gives the lease `epoch` back; nobody appends under it any more.
    ///
    /// # Errors
    /// [`Error::Fenced`] when it is not the newest, or was released.
    async fn release_lease(&self, journal: JournalId, epoch: u64) -> Result<(), Error>;

    /// Appends to several journals, all or none, in one durable transaction.
    ///
    /// # Errors
    /// [`Error::Fenced`] or [`Error::WrongSeq`], naming the journal; nothing of the batch is applied.
    /// [`Error::InvalidArgument`] when a journal occurs twice, or an entry or the batch is too large.
    async fn append(&self, batch: Vec<Append>) -> Result<Vec<Appended>, Error>;

    /// Removes a journal for good, with its lease and its signed head, and appends `note` to another: both or neither, in one
    /// durable transaction. A journal of that id may be begun anew.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a journal that is not there. [`Error::Fenced`] when `lease_epoch` is not the newest lease of the
    /// journal or `note`'s is not that of its own; [`Error::WrongSeq`] when `note`'s journal stands elsewhere.
    /// [`Error::InvalidArgument`] when `note` is for the journal itself, or too large.
    async fn remove_journal(
        &self,
        journal: JournalId,
        lease_epoch: u64,
        note: Append,
    ) -> Result<Appended, Error>;

    /// The entries after number `after_seq`, oldest first, at most `limit`.
    ///
    /// A page ends early at [`crate::ENTRIES_LIMIT_MAX`] entries or [`crate::PAGE_BYTES_MAX`] body bytes; it is empty only
    /// when there is nothing after `after_seq`, or `limit` is 0.
    async fn entries(
        &self,
        journal: JournalId,
        after_seq: u64,
        limit: u32,
    ) -> Result<Vec<JournalEntry>, Error>;

    /// The number and hash of the journal's last entry; `(0, GENESIS)` for an empty or unknown one.
    async fn head(&self, journal: JournalId) -> Result<(u64, Digest), Error>;

    /// The newest durable number of a journal, as it grows through this store in this process.
    ///
    /// It ends (`changed()` fails) when the store is closed.
    fn watch(&self, journal: JournalId) -> watch::Receiver<u64>;

    /// Every journal that was leased or has an entry, in order.
    async fn journals(&self) -> Result<Vec<JournalId>, Error>;

    /// Keeps a signed head in place of an older one of its journal; an older one than is kept is dropped.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the journal has no such entry.
    async fn put_signed_head(&self, head: SignedHead) -> Result<(), Error>;

    /// The newest signed head of a journal.
    async fn signed_head(&self, journal: JournalId) -> Result<Option<SignedHead>, Error>;

    // --- invitations ---

    /// Keeps a new invitation.
    ///
    /// # Errors
    /// [`Error::Conflict`] when its token is in use.
    async fn put_invite(&self, invite: Invite) -> Result<(), Error>;

    /// The invitation with this token.
    async fn invite_by_token(&self, token_hash: Digest) -> Result<Option<Invite>, Error>;

    /// Every invitation, oldest first.
    async fn invites(&self) -> Result<Vec<Invite>, Error>;

    /// Spends a token with a key, atomically: of two keys that come at once, one is first.
    ///
    /// The key that spent a token in time gets [`SpendOutcome::SameKey`] ever after, also once it has expired.
    async fn spend_invite(
        &self,
        token_hash: Digest,
        key_fingerprint: Digest,
        now: Timestamp,
    ) -> Result<SpendOutcome, Error>;

    /// Takes back the open invitations of a site; tells how many there were.
    async fn withdraw_invites(&self, site: &SiteName) -> Result<u64, Error>;

    /// Forgets invitations that ended before `before` without having been spent; tells how many there were.
    async fn forget_invites(&self, before: Timestamp) -> Result<u64, Error>;

    // --- sites ---

    /// Keeps a site in place of whatever was kept under its name.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another site has its key.
    async fn put_site(&self, site: SiteRecord) -> Result<(), Error>;

    /// Keeps a site's new record only while the kept one is [`SiteState::Active`] and has the key `present_key`.
    ///
    /// This is how a certificate is renewed: a revocation that came first is not undone.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the site is not active with that key, or another site has the new one.
    /// [`Error::NotFound`] when there is no such site.
    async fn replace_site(&self, present_key: Digest, site: SiteRecord) -> Result<(), Error>;

    /// The site of this name.
    async fn site(&self, name: &SiteName) -> Result<Option<SiteRecord>, Error>;

    /// The site with this key.
    async fn site_by_key(&self, key_fingerprint: Digest) -> Result<Option<SiteRecord>, Error>;

    /// Every site, by name.
    async fn sites(&self) -> Result<Vec<SiteRecord>, Error>;

    /// Changes whether a site may come in; nothing else of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such site.
    async fn set_site_state(&self, name: &SiteName, state: SiteState) -> Result<(), Error>;

    /// Forgets a site that has this key and is [`SiteState::Revoked`]; tells whether there was one. Name and key are free again.
    async fn forget_site(&self, name: &SiteName, key_fingerprint: Digest) -> Result<bool, Error>;

    /// Writes down when sites were last heard of, all at once; unknown names are passed over, and no time goes back.
    async fn touch_sites(&self, seen: Vec<(SiteName, Timestamp)>) -> Result<(), Error>;

    // --- mail ---

    /// Posts a mail. The same (run, from, to, kind, correlation) again is the same mail, as long as it has not expired:
    /// the first one comes back, with `false`.
    ///
    /// # Errors
    /// [`Error::MailboxFull`] when as much waits for the recipient as may. [`Error::InvalidArgument`] when it is over a
    /// bound or has expired already.
    async fn post_mail(&self, draft: MailDraft, now: Timestamp) -> Result<(Mail, bool), Error>;

    /// Mail that waits for `to`, oldest first, at most `limit`: of these kinds (all, if none is named), after the
    /// mail `after`. It keeps waiting until it is acknowledged or expires.
    async fn mail(
        &self,
        to: &Principal,
        kinds: &[String],
        after: Option<MailId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Mail>, Error>;

    /// Ends the waiting of these mails of `to`; those of others, or unknown, are passed over. Tells how many ended.
    async fn ack_mail(&self, to: &Principal, mails: &[MailId]) -> Result<u64, Error>;

    /// Forgets mail that has expired; tells how many there were.
    async fn expire_mail(&self, now: Timestamp) -> Result<u64, Error>;

    // --- the rest ---

    /// A setting.
    async fn setting(&self, key: &str) -> Result<Option<String>, Error>;

    /// Keeps a setting in place of what was kept under its key.
    async fn put_setting(&self, key: &str, value: &str) -> Result<(), Error>;

    /// Writes a consistent copy of the live store to a new file, durable on return.
    ///
    /// # Errors
    /// [`Error::Io`] when the file exists or cannot be written. [`Error::InvalidArgument`] from a backend without files.
    async fn backup_to(&self, path: &Path) -> Result<(), Error>;

    /// Finishes what was begun and lets go of everything; what comes later gets [`Error::Closed`]. It may be repeated.
    async fn close(&self);
}
