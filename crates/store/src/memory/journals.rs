//! Journals in memory: entries, leases and signed heads.

use std::collections::BTreeMap;

use sheaf_domain::{Digest, GENESIS, JournalEntry, JournalId, Span, Timestamp};

use crate::journal::{chain, check_batch, check_removal};
use crate::lease::{LeaseRow, holder_of};
use crate::{Append, Appended, ENTRIES_LIMIT_MAX, Error, Lease, PAGE_BYTES_MAX, SignedHead};

#[derive(Debug, Default)]
pub(super) struct Journals(BTreeMap<JournalId, Journal>);

#[derive(Debug, Default)]
struct Journal {
    lease: Option<LeaseRow>,
    entries: Vec<JournalEntry>,
    signed: Option<SignedHead>,
}

impl Journals {
    pub(super) fn acquire_lease(
        &mut self,
        journal: JournalId,
        holder: &str,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        let lease = Lease::acquire(journal, self.lease(journal), holder, ttl, now)?;
        self.keep(&lease);
        Ok(lease)
    }

    pub(super) fn renew_lease(
        &mut self,
        journal: JournalId,
        epoch: u64,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        let lease = Lease::renew(journal, self.lease(journal), epoch, ttl, now)?;
        self.keep(&lease);
        Ok(lease)
    }

    pub(super) fn release_lease(&mut self, journal: JournalId, epoch: u64) -> Result<(), Error> {
        holder_of(journal, self.lease(journal), epoch)?;
        if let Some(row) = self.0.get_mut(&journal).and_then(|kept| kept.lease.as_mut()) {
            row.holder = None;
        }
        Ok(())
    }

    /// Chains the whole batch before any of it is kept.
    pub(super) fn append(&mut self, batch: &[Append]) -> Result<Vec<Appended>, Error> {
        check_batch(batch)?;
        let mut appended = Vec::with_capacity(batch.len());
        for append in batch {
            holder_of(append.journal, self.lease(append.journal), append.lease_epoch)?;
            appended.push(chain(append, self.head(append.journal))?);
        }
        for Appended { journal, entries } in &appended {
            self.0.entry(*journal).or_default().entries.extend(entries.iter().cloned());
        }
        Ok(appended)
    }

    pub(super) fn remove(
        &mut self,
        journal: JournalId,
        lease_epoch: u64,
        note: &Append,
    ) -> Result<Appended, Error> {
        check_removal(journal, note)?;
        if !self.0.contains_key(&journal) {
            return Err(Error::NotFound(format!("journal {journal}")));
        }
        holder_of(journal, self.lease(journal), lease_epoch)?;
        holder_of(note.journal, self.lease(note.journal), note.lease_epoch)?;
        let appended = chain(note, self.head(note.journal))?;
        self.0.entry(note.journal).or_default().entries.extend(appended.entries.iter().cloned());
        self.0.remove(&journal);
        Ok(appended)
    }

    pub(super) fn entries(&self, journal: JournalId, after_seq: u64, limit: u32) -> Vec<JournalEntry> {
        let limit = usize::try_from(limit.min(ENTRIES_LIMIT_MAX)).unwrap_or(0);
        let skip = usize::try_from(after_seq).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let Some(kept) = self.0.get(&journal) else {
            return Vec::new();
        };
        kept.entries
            .iter()
            .skip(skip)
            .take(limit)
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.body.len().max(1);
                first || bytes <= PAGE_BYTES_MAX
            })
            .cloned()
            .collect()
    }

    pub(super) fn head(&self, journal: JournalId) -> (u64, Digest) {
        let last = self.0.get(&journal).and_then(|kept| kept.entries.last());
        last.map_or((0, GENESIS), |entry| (entry.seq, entry.hash))
    }

    pub(super) fn ids(&self) -> Vec<JournalId> {
        self.0.keys().copied().collect()
    }

    pub(super) fn put_signed_head(&mut self, head: SignedHead) -> Result<(), Error> {
        head.check()?;
        let kept = self.0.get_mut(&head.journal).ok_or_else(|| head.not_in_journal())?;
        if !kept.entries.iter().any(|entry| (entry.seq, entry.hash) == (head.seq, head.hash)) {
            return Err(head.not_in_journal());
        }
        if kept.signed.as_ref().is_none_or(|signed| signed.seq <= head.seq) {
            kept.signed = Some(head);
        }
        Ok(())
    }

    pub(super) fn signed_head(&self, journal: JournalId) -> Option<SignedHead> {
        self.0.get(&journal).and_then(|kept| kept.signed.clone())
    }

    fn lease(&self, journal: JournalId) -> Option<&LeaseRow> {
        self.0.get(&journal).and_then(|kept| kept.lease.as_ref())
    }

    fn keep(&mut self, lease: &Lease) {
        self.0.entry(lease.journal).or_default().lease = Some(LeaseRow {
            epoch: lease.epoch,
            holder: Some(lease.holder.clone()),
            expires_at: lease.expires_at,
        });
    }
}
