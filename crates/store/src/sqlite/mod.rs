//! A store in one SQLite file: write-ahead log, every commit synchronised, one connection that writes.
//!
//! Writes go through one task of the store's own, which commits those that wait together; reads come from a small
//! pool and see what is durable. The SQL is the part that PostgreSQL shares; pragmas and `VACUUM INTO` stand apart.
//!
//! SQLite lets several processes open one file, and their transactions do not mix; but [`StateStore::watch`] sees only
//! this process. That one server owns a data directory is for the server to ensure, by its lock on the directory.

mod backup;
mod column;
mod format;
mod invites;
mod journals;
mod mails;
mod settings;
mod sites;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use sheaf_domain::{
    Digest, JournalEntry, JournalId, Mail, MailDraft, MailId, Principal, SiteName, Span, Timestamp,
};
use sheaf_runtime::TaskScope;
use sqlx::ConnectOptions as _;
use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::watch;

use self::writer::Writer;
use crate::heads::Heads;
use crate::{
    Append, Appended, Error, Invite, Lease, MailLimits, SignedHead, SiteRecord, SiteState, SpendOutcome,
    StateStore,
};

pub use self::format::{APPLICATION_ID, FORMAT_VERSION};

/// How to open a [`SqliteStore`].
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// How much mail one recipient may have.
    pub mail: MailLimits,
    /// The most pages (of 4,096 bytes in a file of ours) that the file may have; beyond it, writes get
    /// [`Error::Full`]. None: as many as the disk holds.
    pub pages_max: Option<u32>,
}

/// A [`StateStore`] in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    mail_limits: MailLimits,
    heads: Arc<Heads>,
    writer: Writer,
    reads: SqlitePool,
    scope: TaskScope,
}

impl SqliteStore {
    /// Opens the store at `path`; makes it if there is no file, or an empty one. An older format is brought up to
    /// [`FORMAT_VERSION`] first.
    ///
    /// # Errors
    /// [`Error::Foreign`] when the file is something else, [`Error::Newer`] when its format is newer; neither file is
    /// changed. [`Error::Database`] when it cannot be opened.
    /// # Cancel safety
    /// A dropped call leaves a store of the old format or of the new one, nothing between.
    pub async fn open(path: &Path, options: OpenOptions) -> Result<SqliteStore, Error> {
        let plain =
            SqliteConnectOptions::new().filename(path).create_if_missing(true).disable_statement_logging();
        let found = format::inspect(&plain, path).await?;
        let writing = writing_options(&plain, options);
        let mut connection = writing.connect().await?;
        format::migrate(&mut connection, found, &format::MIGRATIONS).await?;
        backup::sync_directory_of(path).await?;
        let heads = Arc::new(Heads::standing_at(journals::heads(&mut connection).await?));
        let reads = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .connect_with(plain.create_if_missing(false).read_only(true))
            .await?;
        let scope = TaskScope::new();
        let writer = Writer::start(&scope, writing, connection, Arc::clone(&heads));
        tracing::debug!(path = %path.display(), format = FORMAT_VERSION, "state store opened");
        Ok(SqliteStore { path: path.to_owned(), mail_limits: options.mail, heads, writer, reads, scope })
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, Error> {
        Ok(self.reads.acquire().await?)
    }
}

/// Connections that read at once; a further read waits its turn.
const READERS_MAX: u32 = 4;

/// The write-ahead log is cut back to this many bytes once it has been copied into the file.
const LOG_BYTES_KEPT: &str = "67108864";

fn writing_options(plain: &SqliteConnectOptions, options: OpenOptions) -> SqliteConnectOptions {
    let writing = plain
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", LOG_BYTES_KEPT);
    match options.pages_max {
        Some(pages_max) => writing.pragma("max_page_count", pages_max.to_string()),
        None => writing,
    }
}

#[async_trait]
impl StateStore for SqliteStore {
    async fn acquire_lease(
        &self,
        journal: JournalId,
        holder: &str,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        let input = (journal, holder.to_owned(), ttl, now);
        self.writer.write(input, |c, input| Box::pin(journals::acquire_lease(c, input))).await
    }

    async fn renew_lease(
        &self,
        journal: JournalId,
        epoch: u64,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        let input = (journal, epoch, ttl, now);
        self.writer.write(input, |c, input| Box::pin(journals::renew_lease(c, input))).await
    }

    async fn release_lease(&self, journal: JournalId, epoch: u64) -> Result<(), Error> {
        self.writer.write((journal, epoch), |c, input| Box::pin(journals::release_lease(c, input))).await
    }

    async fn append(&self, batch: Vec<Append>) -> Result<Vec<Appended>, Error> {
        crate::journal::check_batch(&batch)?;
        let advance = |appended: &Vec<Appended>, heads: &Heads| heads.advance(appended);
        self.writer.write_then(batch, |c, batch| Box::pin(journals::append(c, batch)), advance).await
    }

    async fn remove_journal(
        &self,
        journal: JournalId,
        lease_epoch: u64,
        note: Append,
    ) -> Result<Appended, Error> {
        crate::journal::check_removal(journal, &note)?;
        let durable = |(journal, appended): &(JournalId, Appended), heads: &Heads| {
            heads.remove(*journal);
            heads.advance(std::slice::from_ref(appended));
        };
        let input = (journal, lease_epoch, note);
        let removed =
            self.writer.write_then(input, |c, input| Box::pin(journals::remove(c, input)), durable).await?;
        Ok(removed.1)
    }

    async fn entries(
        &self,
        journal: JournalId,
        after_seq: u64,
        limit: u32,
    ) -> Result<Vec<JournalEntry>, Error> {
        journals::entries(&mut *self.reader().await?, journal, after_seq, limit).await
    }

    async fn head(&self, journal: JournalId) -> Result<(u64, Digest), Error> {
        journals::head(&mut *self.reader().await?, journal).await
    }

    fn watch(&self, journal: JournalId) -> watch::Receiver<u64> {
        self.heads.watch(journal)
    }

    async fn journals(&self) -> Result<Vec<JournalId>, Error> {
        let heads = journals::heads(&mut *self.reader().await?).await?;
        let mut ids: Vec<JournalId> = heads.into_iter().map(|(journal, _)| journal).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn put_signed_head(&self, head: SignedHead) -> Result<(), Error> {
        head.check()?;
        self.writer.write(head, |c, head| Box::pin(journals::put_signed_head(c, head))).await
    }

    async fn signed_head(&self, journal: JournalId) -> Result<Option<SignedHead>, Error> {
        journals::signed_head(&mut *self.reader().await?, journal).await
    }

    async fn put_invite(&self, invite: Invite) -> Result<(), Error> {
        invite.check()?;
        self.writer.write(invite, |c, invite| Box::pin(invites::put(c, invite))).await
    }

    async fn invite_by_token(&self, token_hash: Digest) -> Result<Option<Invite>, Error> {
        invites::by_token(&mut *self.reader().await?, token_hash).await
    }

    async fn invites(&self) -> Result<Vec<Invite>, Error> {
        invites::all(&mut *self.reader().await?).await
    }

    async fn spend_invite(
        &self,
        token_hash: Digest,
        key_fingerprint: Digest,
        now: Timestamp,
    ) -> Result<SpendOutcome, Error> {
        crate::journal::check_time("spending", now)?;
        let input = (token_hash, key_fingerprint, now);
        self.writer.write(input, |c, input| Box::pin(invites::spend(c, input))).await
    }

    async fn withdraw_invites(&self, site: &SiteName) -> Result<u64, Error> {
        self.writer.write(site.clone(), |c, site| Box::pin(invites::withdraw(c, site))).await
    }

    async fn forget_invites(&self, before: Timestamp) -> Result<u64, Error> {
        self.writer.write(before, |c, before| Box::pin(invites::forget(c, before))).await
    }

    async fn put_site(&self, site: SiteRecord) -> Result<(), Error> {
        site.check()?;
        self.writer.write(site, |c, site| Box::pin(sites::put(c, site))).await
    }

    async fn replace_site(&self, present_key: Digest, site: SiteRecord) -> Result<(), Error> {
        site.check()?;
        self.writer.write((present_key, site), |c, input| Box::pin(sites::replace(c, input))).await
    }

    async fn site(&self, name: &SiteName) -> Result<Option<SiteRecord>, Error> {
        sites::by_name(&mut *self.reader().await?, name).await
    }

    async fn site_by_key(&self, key_fingerprint: Digest) -> Result<Option<SiteRecord>, Error> {
        sites::by_key(&mut *self.reader().await?, key_fingerprint).await
    }

    async fn sites(&self) -> Result<Vec<SiteRecord>, Error> {
        sites::all(&mut *self.reader().await?).await
    }

    async fn set_site_state(&self, name: &SiteName, state: SiteState) -> Result<(), Error> {
        state.check()?;
        self.writer.write((name.clone(), state), |c, input| Box::pin(sites::set_state(c, input))).await
    }

    async fn forget_site(&self, name: &SiteName, key_fingerprint: Digest) -> Result<bool, Error> {
        self.writer.write((name.clone(), key_fingerprint), |c, input| Box::pin(sites::forget(c, input))).await
    }

    async fn touch_sites(&self, seen: Vec<(SiteName, Timestamp)>) -> Result<(), Error> {
        crate::site::check_seen(&seen)?;
        self.writer.write(seen, |c, seen| Box::pin(sites::touch(c, seen))).await
    }

    async fn post_mail(&self, draft: MailDraft, now: Timestamp) -> Result<(Mail, bool), Error> {
        crate::mail::check(&draft, now)?;
        let input = (draft, now, self.mail_limits);
        self.writer.write(input, |c, input| Box::pin(mails::post(c, input))).await
    }

    async fn mail(
        &self,
        to: &Principal,
        kinds: &[String],
        after: Option<MailId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Mail>, Error> {
        crate::mail::check_kinds(kinds)?;
        mails::waiting(&mut *self.reader().await?, to, kinds, after, limit, now).await
    }

    async fn ack_mail(&self, to: &Principal, mails: &[MailId]) -> Result<u64, Error> {
        crate::mail::check_ack(mails)?;
        let input = (to.clone(), mails.to_vec(), self.mail_limits);
        self.writer.write(input, |c, input| Box::pin(mails::ack(c, input))).await
    }

    async fn expire_mail(&self, now: Timestamp) -> Result<u64, Error> {
        self.writer.write(now, |c, now| Box::pin(mails::expire(c, now))).await
    }

    async fn setting(&self, key: &str) -> Result<Option<String>, Error> {
        settings::get(&mut *self.reader().await?, key).await
    }

    async fn put_setting(&self, key: &str, value: &str) -> Result<(), Error> {
        crate::setting::check(key, value)?;
        let input = (key.to_owned(), value.to_owned());
        self.writer.write(input, |c, input| Box::pin(settings::put(c, input))).await
    }

    /// Copies with `VACUUM INTO`, beside reads and writes, to a file named `.<name>.partial` first.
    async fn backup_to(&self, path: &Path) -> Result<(), Error> {
        self.writer.check_open()?;
        let copy = backup::copy(self.path.clone(), path.to_owned());
        // A task of its own: the caller cannot cut it off, and closing waits for it.
        self.scope.spawn(copy).await.map_err(|_| Error::Closed)?
    }

    async fn close(&self) {
        self.writer.close();
        self.reads.close().await;
        self.scope.finished().await;
        self.heads.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Row as _;

    #[tokio::test]
    async fn every_commit_of_the_writer_is_synchronised() {
        let dir = tempfile::TempDir::new().unwrap();
        let plain =
            SqliteConnectOptions::new().filename(dir.path().join("state.sqlite")).create_if_missing(true);
        let mut connection = writing_options(&plain, OpenOptions::default()).connect().await.unwrap();
        let row = sqlx::query("PRAGMA journal_mode").fetch_one(&mut connection).await.unwrap();
        assert_eq!(row.get::<String, _>(0), "wal");
        let row = sqlx::query("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 2, "2 is FULL");
    }
}
