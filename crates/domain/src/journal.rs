//! The hash-chained journal: what an entry is, how its hash is made, how a chain is checked.
//!
//! An entry's hash is SHA-256 over: the text `sheaf journal 1` and a zero byte; the previous entry's hash (32 zero bytes
//! for the first); the journal's name's length (u32) and bytes; seq (u64); at (u64, ms); the kind's length (u32) and bytes;
//! the body's length (u64) and bytes; all numbers little-endian.

use serde::{Deserialize, Serialize};

use crate::{Digest, Hasher, RunId, Timestamp};

/// Which journal an entry belongs to: a run's, a relayed run's, or the federation's own (enrolment, revocation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum JournalId {
    /// The federation's own journal.
    Federation,
    /// The journal of one run.
    Run(RunId),
    /// The journal of one relayed run.
    Relay(RunId),
}

/// What the name of a relayed run's journal begins with.
const RELAY_PREFIX: &str = "relay-";

impl std::fmt::Display for JournalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JournalId::Federation => f.write_str("federation"),
            JournalId::Run(run) => run.fmt(f),
            JournalId::Relay(run) => write!(f, "{RELAY_PREFIX}{run}"),
        }
    }
}

impl std::str::FromStr for JournalId {
    type Err = crate::Error;
    fn from_str(value: &str) -> Result<JournalId, crate::Error> {
        match value {
            "federation" => Ok(JournalId::Federation),
            name => match name.strip_prefix(RELAY_PREFIX) {
                Some(run) => run.parse().map(JournalId::Relay),
                None => name.parse().map(JournalId::Run),
            },
        }
    }
}

impl TryFrom<String> for JournalId {
    type Error = crate::Error;
    fn try_from(value: String) -> Result<JournalId, crate::Error> {
        value.parse()
    }
}

impl From<JournalId> for String {
    fn from(id: JournalId) -> String {
        id.to_string()
    }
}

/// An entry not yet placed in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryDraft {
    /// When it happened, on our clock.
    pub at: Timestamp,
    /// What sort of event it is, such as `submitted`.
    pub kind: String,
    /// The event as JSON.
    pub body: String,
}

/// One entry of a journal.
///
/// # Examples
/// ```
/// use sheaf_domain::{EntryDraft, GENESIS, JournalEntry, JournalId, Timestamp};
///
/// let draft = EntryDraft { at: Timestamp::from_millis(7), kind: "note".to_owned(), body: "{}".to_owned() };
/// let entry = JournalEntry::chain(JournalId::Federation, 1, GENESIS, draft);
/// assert!(entry.check_follows(JournalId::Federation, (0, GENESIS)).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Position in the journal, from 1.
    pub seq: u64,
    /// When it happened, on our clock.
    pub at: Timestamp,
    /// What sort of event it is.
    pub kind: String,
    /// The event as JSON.
    pub body: String,
    /// The hash of the entry before, or zeros.
    pub previous: Digest,
    /// The hash of this entry.
    pub hash: Digest,
}

/// The `previous` of a journal's first entry.
pub const GENESIS: Digest = Digest::from_bytes([0; 32]);

impl JournalEntry {
    /// Places `draft` behind the entry `previous` with the sequence number `seq`.
    pub fn chain(journal: JournalId, seq: u64, previous: Digest, draft: EntryDraft) -> JournalEntry {
        let mut entry =
            JournalEntry { seq, at: draft.at, kind: draft.kind, body: draft.body, previous, hash: GENESIS };
        entry.hash = entry.computed_hash(journal);
        entry
    }

    /// Checks that this entry follows `(seq, hash)` of the one before; `(0, zeros)` before the first.
    ///
    /// # Errors
    /// [`ChainError`] naming the entry and what does not fit.
    pub fn check_follows(&self, journal: JournalId, before: (u64, Digest)) -> Result<(), ChainError> {
        let reason = if self.seq != before.0 + 1 {
            "its number does not follow"
        } else if self.previous != before.1 {
            "it does not name the hash of the entry before"
        } else if self.hash != self.computed_hash(journal) {
            "its content does not match its hash"
        } else {
            return Ok(());
        };
        Err(ChainError { journal, seq: self.seq, reason })
    }

    fn computed_hash(&self, journal: JournalId) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(b"sheaf journal 1\0");
        hasher.update(self.previous.as_bytes());
        hash_text(&mut hasher, &journal.to_string());
        hasher.update(&self.seq.to_le_bytes());
        hasher.update(&self.at.as_millis().to_le_bytes());
        hash_text(&mut hasher, &self.kind);
        hasher.update(&(self.body.len() as u64).to_le_bytes());
        hasher.update(self.body.as_bytes());
        hasher.finish()
    }
}

/// An entry that does not belong where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal {journal} is broken at entry {seq}: {reason}")]
pub struct ChainError {
    /// The journal.
    pub journal: JournalId,
    /// The entry's number as it claims it.
    pub seq: u64,
    /// What does not fit.
    pub reason: &'static str,
}

fn hash_text(hasher: &mut Hasher, text: &str) {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    hasher.update(&len.to_le_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_entry_breaks_the_chain() {
        let draft =
            |body: &str| EntryDraft { at: Timestamp::from_millis(7), kind: "note".into(), body: body.into() };
        let first = JournalEntry::chain(JournalId::Federation, 1, GENESIS, draft("{}"));
        let second = JournalEntry::chain(JournalId::Federation, 2, first.hash, draft("{\"a\":1}"));
        assert_eq!(first.check_follows(JournalId::Federation, (0, GENESIS)), Ok(()));
        assert_eq!(second.check_follows(JournalId::Federation, (1, first.hash)), Ok(()));
        let mut forged = second.clone();
        forged.body = "{\"a\":2}".into();
        assert!(forged.check_follows(JournalId::Federation, (1, first.hash)).is_err());
        assert!(second.check_follows(JournalId::Federation, (1, second.hash)).is_err());
        assert!(second.check_follows(JournalId::Federation, (0, GENESIS)).is_err());
    }

    #[test]
    fn the_hash_of_an_entry_never_changes_between_releases() {
        let draft = EntryDraft {
            at: Timestamp::from_millis(1500),
            kind: "extended".into(),
            body: "{\"event\":\"extended\",\"rounds\":3}".into(),
        };
        let run = JournalId::Run(RunId::new(7).unwrap());
        let entry = JournalEntry::chain(run, 1, GENESIS, draft);
        assert_eq!(
            entry.hash.to_string(),
            "f3d0d1dd4024a8c6e85db3e39240e7daca8d439368b4992a77271d4c98405846"
        );
    }
}
