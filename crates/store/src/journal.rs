//! What goes into a journal at once, what comes back, and the bounds of both.

use sheaf_domain::{Digest, EntryDraft, JournalEntry, JournalId, Timestamp};

use crate::Error;

/// The longest body of one entry, in bytes.
pub const BODY_LEN_MAX: usize = 16 << 20;
/// The longest kind of one entry, in bytes.
pub const KIND_LEN_MAX: usize = 64;
/// The most body bytes of one batch.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// The most entries one page holds.
pub const ENTRIES_LIMIT_MAX: u32 = 4096;
/// The body bytes after which a page ends, though it always holds one entry if there is one.
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// Entries for the end of one journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The journal.
    pub journal: JournalId,
    /// The epoch of the lease under which the caller writes.
    pub lease_epoch: u64,
    /// The number of the journal's last entry as the caller knows it; 0 for an empty journal.
    pub expected_seq: u64,
    /// What to append, in order; none only checks the lease and the number.
    pub entries: Vec<EntryDraft>,
}

/// The entries of one [`Append`] as they stand in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The journal.
    pub journal: JournalId,
    /// The entries with their numbers and hashes.
    pub entries: Vec<JournalEntry>,
}

/// A journal's head with our signature over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// The journal.
    pub journal: JournalId,
    /// The number of the entry signed, from 1.
    pub seq: u64,
    /// That entry's hash.
    pub hash: Digest,
    /// The signature.
    pub signature: Vec<u8>,
    /// When it was signed.
    pub at: Timestamp,
}

impl SignedHead {
    /// The longest signature, in bytes.
    pub const SIGNATURE_LEN_MAX: usize = 1024;

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.signature.len() > Self::SIGNATURE_LEN_MAX {
            return Err(Error::InvalidArgument(format!(
                "signature of {} bytes exceeds the limit of {}",
                self.signature.len(),
                Self::SIGNATURE_LEN_MAX
            )));
        }
        check_time("signature", self.at)
    }

    /// The refusal of a head that is not in its journal.
    pub(crate) fn not_in_journal(&self) -> Error {
        Error::InvalidArgument(format!("journal {} has no entry {} with this hash", self.journal, self.seq))
    }
}

/// Checks what can be checked of a batch without the store.
pub(crate) fn check_batch(batch: &[Append]) -> Result<(), Error> {
    let mut bytes = 0_usize;
    for (idx, append) in batch.iter().enumerate() {
        if batch.iter().take(idx).any(|other| other.journal == append.journal) {
            return Err(Error::InvalidArgument(format!(
                "journal {} occurs twice in a batch",
                append.journal
            )));
        }
        for draft in &append.entries {
            check_len("kind", draft.kind.len(), KIND_LEN_MAX)?;
            check_len("body", draft.body.len(), BODY_LEN_MAX)?;
            check_time("entry", draft.at)?;
            bytes = bytes.saturating_add(draft.body.len());
        }
    }
    check_len("batch", bytes, BATCH_BYTES_MAX)
}

/// Checks what can be checked of a removal without the store.
pub(crate) fn check_removal(journal: JournalId, note: &Append) -> Result<(), Error> {
    if note.journal == journal {
        return Err(Error::InvalidArgument(format!(
            "the removal of journal {journal} cannot be noted in it itself"
        )));
    }
    check_batch(std::slice::from_ref(note))
}

/// Places `append` behind `head`, the journal's last number and hash, if that is where the caller believes it to be.
pub(crate) fn chain(append: &Append, head: (u64, Digest)) -> Result<Appended, Error> {
    let (mut seq, mut hash) = head;
    if append.expected_seq != seq {
        return Err(Error::WrongSeq { journal: append.journal, expected: append.expected_seq, found: seq });
    }
    let mut entries = Vec::with_capacity(append.entries.len());
    for draft in &append.entries {
        seq += 1;
        let entry = JournalEntry::chain(append.journal, seq, hash, draft.clone());
        hash = entry.hash;
        entries.push(entry);
    }
    Ok(Appended { journal: append.journal, entries })
}

/// Refuses an instant that a database's signed number cannot hold.
pub(crate) fn check_time(what: &str, at: Timestamp) -> Result<(), Error> {
    match i64::try_from(at.as_millis()) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::InvalidArgument(format!("the time of this {what} is out of range"))),
    }
}

pub(crate) fn check_len(what: &str, len: usize, len_max: usize) -> Result<(), Error> {
    if len > len_max {
        return Err(Error::InvalidArgument(format!("{what} of {len} bytes exceeds the limit of {len_max}")));
    }
    Ok(())
}
