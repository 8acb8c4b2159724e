//! Leases: who may append to a journal, and the epoch that fences off whoever might before.
//!
//! An epoch is never given twice. A lease that ran out still writes until another takes it: what protects the
//! journal is the epoch, not anybody's clock.

use sheaf_domain::{JournalId, Span, Timestamp};

use crate::Error;

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The journal it is for.
    pub journal: JournalId,
    /// Who holds it.
    pub holder: String,
    /// Its number: higher than that of every lease before it.
    pub epoch: u64,
    /// When another may take it, if it is not renewed.
    pub expires_at: Timestamp,
}

/// What a store keeps of a journal's leases: the newest epoch, and its holder unless it was released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseRow {
    pub(crate) epoch: u64,
    pub(crate) holder: Option<String>,
    pub(crate) expires_at: Timestamp,
}

impl Lease {
    /// The longest name of a holder, in bytes.
    pub const HOLDER_LEN_MAX: usize = 256;

    /// Decides whether `holder` gets the lease, given what is kept.
    pub(crate) fn acquire(
        journal: JournalId,
        kept: Option<&LeaseRow>,
        holder: &str,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        crate::journal::check_len("holder", holder.len(), Lease::HOLDER_LEN_MAX)?;
        let epoch = match kept {
            None => 1,
            Some(LeaseRow { holder: Some(other), expires_at, .. })
                if other != holder && *expires_at > now =>
            {
                return Err(Error::LeaseHeld { journal, holder: other.clone(), expires_at: *expires_at });
            }
            Some(LeaseRow { epoch, .. }) => epoch + 1,
        };
        Ok(Lease { journal, holder: holder.to_owned(), epoch, expires_at: expiry(ttl, now) })
    }

    /// Decides whether the lease `epoch` may be renewed, given what is kept.
    pub(crate) fn renew(
        journal: JournalId,
        kept: Option<&LeaseRow>,
        epoch: u64,
        ttl: Span,
        now: Timestamp,
    ) -> Result<Lease, Error> {
        let holder = holder_of(journal, kept, epoch)?.to_owned();
        Ok(Lease { journal, holder, epoch, expires_at: expiry(ttl, now) })
    }
}

/// The holder of the lease `epoch`, if that is the journal's newest and was not released.
pub(crate) fn holder_of(journal: JournalId, kept: Option<&LeaseRow>, epoch: u64) -> Result<&str, Error> {
    kept.filter(|row| row.epoch == epoch)
        .and_then(|row| row.holder.as_deref())
        .ok_or(Error::Fenced { journal, epoch })
}

fn expiry(ttl: Span, now: Timestamp) -> Timestamp {
    // A database's number is signed; a lease beyond it is as good as endless.
    now.after(ttl).min(Timestamp::from_millis(i64::MAX.unsigned_abs()))
}
