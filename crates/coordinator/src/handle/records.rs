//! What is on record: journals, signed heads, replay, backup.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sheaf_blob::BlobStore;
use sheaf_domain::{ErrorKind, Identity, JournalEntry, JournalId, Role, RunId, Span};
use sheaf_runtime::crash::{self, Point};
use sheaf_store::SignedHead;

use crate::shared::RELEASE_PERMITS;
use crate::{Error, Handle, Relays, ReplayReport, replay};

/// The most entries one call returns.
const ENTRIES_MAX: u32 = 1024;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// Where it is.
    pub dir: PathBuf,
    /// Stored objects copied.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Handle {
    /// The entries of a journal after `after_seq`, oldest first; holds the request while there is none.
    ///
    /// # Errors
    /// Not found for a run that does not exist; permission denied unless `who` is an operator, also when that ends while the request is
    /// held.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn journal(
        &self,
        who: &Identity,
        journal: JournalId,
        after_seq: u64,
        limit: u32,
        hold: Span,
    ) -> Result<Vec<JournalEntry>, Error> {
        self.authorise(who, Role::Operator)?;
        self.check_journal(journal)?;
        let mut newest = self.shared.store.watch(journal);
        let deadline = tokio::time::Instant::now() + hold.min(self.shared.settings.hold_max).as_duration();
        loop {
            newest.mark_unchanged();
            let entries = self.shared.store.entries(journal, after_seq, limit.clamp(1, ENTRIES_MAX)).await?;
            self.authorise(who, Role::Operator)?;
            if !entries.is_empty() {
                return Ok(entries);
            }
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Ok(Vec::new()),
                refused = self.shared.registry.shut_out(who) => return Err(refused),
                changed = newest.changed() => if changed.is_err() { return Ok(Vec::new()) },
                () = tokio::time::sleep_until(deadline) => return Ok(Vec::new()),
            }
        }
    }

    /// A receiver that sees every entry that is appended to a journal: the number of the newest.
    ///
    /// # Errors
    /// Permission denied; not found.
    pub fn watch_journal(
        &self,
        who: &Identity,
        journal: JournalId,
    ) -> Result<tokio::sync::watch::Receiver<u64>, Error> {
        self.authorise(who, Role::Operator)?;
        self.check_journal(journal)?;
        Ok(self.shared.store.watch(journal))
    }

    fn check_journal(&self, journal: JournalId) -> Result<(), Error> {
        match journal {
            JournalId::Federation => Ok(()),
            JournalId::Run(run) => self.shared.run(run).map(drop),
            JournalId::Relay(run) if Relays::of(&self.shared)?.knows(run) => Ok(()),
            JournalId::Relay(run) => Err(Error::not_found(format!("no relayed run {run}"))),
        }
    }

    /// Finds a journal by what an operator writes: the federation's by its name, a run's as [`Handle::find_run`] does, a relayed run's by
    /// its name, its id or the beginning of one, or the number that its own stack shows.
    ///
    /// # Errors
    /// As [`Handle::find_run`].
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn find_journal(&self, who: &Identity, text: &str) -> Result<JournalId, Error> {
        if text == JournalId::Federation.to_string() {
            self.authorise(who, Role::Operator)?;
            return Ok(JournalId::Federation);
        }
        match self.find_run(who, text).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let relayed = Relays::of(&self.shared)?.named(text)?;
                relayed.map(JournalId::Relay).ok_or(error)
            }
            found => found.map(JournalId::Run),
        }
    }

    /// Signs the end of a journal as it stands now.
    ///
    /// # Errors
    /// Not found; conflict when the journal is broken; when the store cannot be read.
    /// # Cancel safety
    /// Safe: a signature that is made twice says the same.
    pub async fn signed_head(&self, who: &Identity, journal: JournalId) -> Result<SignedHead, Error> {
        self.authorise(who, Role::Operator)?;
        self.check_journal(journal)?;
        super::sign_head(&self.shared, journal).await
    }

    /// The public key heads are signed with, as PEM.
    pub fn journal_key_pem(&self) -> String {
        self.shared.signer.public_key_pem()
    }

    /// Checks a run's chain and rebuilds every model whose inputs are kept.
    ///
    /// # Errors
    /// Not found; conflict when the chain is broken; when bytes cannot be read.
    /// # Cancel safety
    /// What a dropped call was rebuilding is freed at the next start.
    pub async fn replay(&self, who: &Identity, run: RunId) -> Result<ReplayReport, Error> {
        self.authorise(who, Role::Operator)?;
        self.shared.run(run)?;
        replay::replay(&self.shared, run).await
    }

    /// Copies state, bytes and keys of the running server into a new directory, which is a data directory of its own.
    ///
    /// Runs go on meanwhile; only freeing of bytes waits.
    ///
    /// # Errors
    /// Conflict when the directory exists; when something cannot be read or written, nothing is left then.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless.
    pub async fn backup(&self, who: &Identity, dir: PathBuf) -> Result<BackupReport, Error> {
        self.authorise(who, Role::Operator)?;
        let handle = self.clone();
        let made = dir.clone();
        let make = move || std::fs::DirBuilder::new().mode(0o700).create(&made);
        self.shared.compute.run(make).await?.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::conflict(format!("{} exists already", dir.display())),
            _ => failed("make", &dir, &error),
        })?;
        // To its end or not at all, whether or not the caller stays.
        self.to_the_end(async move {
            let copied = handle.copy_all(&dir).await;
            if copied.is_err() {
                let dir = dir.clone();
                let _ = handle.shared.compute.run(move || std::fs::remove_dir_all(dir)).await;
            }
            copied
        })
        .await
    }

    async fn copy_all(&self, dir: &Path) -> Result<BackupReport, Error> {
        let nothing_is_freed = self.shared.release_gate.acquire_many(RELEASE_PERMITS).await;
        // The journals first: whatever they refer to is stored by then, and stays while it is copied.
        self.shared.store.backup_to(&dir.join(STATE_FILE)).await?;
        crash::reached(Point::BackupStateCopied);
        let report = self.copy_objects(dir).await?;
        drop(nothing_is_freed);
        let (files, dir) = (self.shared.settings.backup_files.clone(), dir.to_owned());
        let finish = move || {
            for (from, name) in &files {
                copy_tree(from, &dir.join(name)).map_err(|error| failed("copy into", &dir, &error))?;
            }
            crash::reached(Point::BackupFilesCopied);
            // Written last: a directory without it is an unfinished backup.
            mark_complete(&dir).map_err(|error| failed("write in", &dir, &error))
        };
        self.shared.compute.run(finish).await??;
        crash::reached(Point::BackupMarked);
        Ok(report)
    }

    async fn copy_objects(&self, dir: &Path) -> Result<BackupReport, Error> {
        let copy =
            sheaf_blob::DiskBlobs::open(&dir.join(BLOBS_DIR), sheaf_blob::OpenOptions::default()).await?;
        let (mut objects, mut bytes) = (0, 0);
        for hold in self.shared.blob.holds().await? {
            for (digest, len) in self.shared.blob.held(&hold).await? {
                if self.shared.scope.is_cancelled() {
                    return Err(Error::shutting_down());
                }
                if copy.hold(&digest, &hold).await? {
                    continue;
                }
                let mut writer = copy.writer(&hold, len).await?;
                let mut offset = 0;
                while offset < len {
                    let part = self.shared.blob.read(&digest, offset, COPY_LEN.min(len - offset)).await?;
                    offset += part.len() as u64;
                    writer.write(part).await?;
                }
                writer.finish(Some(digest)).await?;
                crash::reached(Point::BackupObjectCopied);
                objects += 1;
                bytes += len;
            }
        }
        copy.close().await;
        Ok(BackupReport { dir: dir.to_owned(), objects, bytes })
    }
}

/// The state store's file in a data directory.
pub const STATE_FILE: &str = "state.sqlite";
/// The blob store's directory in a data directory.
pub const BLOBS_DIR: &str = "blobs";
/// The file that marks a finished backup.
pub const COMPLETE_FILE: &str = "BACKUP_COMPLETE";
/// How much of an object is copied at once, in bytes.
const COPY_LEN: u64 = 1024 * 1024;

fn failed(what: &str, dir: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("cannot {what} {}: {error}", dir.display()))
}

fn mark_complete(dir: &Path) -> std::io::Result<()> {
    let mut mark = std::fs::File::create_new(dir.join(COMPLETE_FILE))?;
    mark.write_all(b"sheaf backup 1\n")?;
    mark.sync_all()?;
    std::fs::File::open(dir)?.sync_all()
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        // `fs::copy` keeps the permissions: keys stay private.
        return std::fs::copy(from, to).map(drop);
    }
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy_tree(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
