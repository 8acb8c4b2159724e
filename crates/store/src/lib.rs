//! The state store: journals with leases, sites and invitations, mail, small settings.
//!
//! One trait, [`StateStore`], two backends ([`MemoryStore`], [`SqliteStore`]) and one conformance [`suite`] that both
//! pass. It keeps what is small and must be exact; bytes of models live in the blob store. It decides nothing about
//! runs: what may be written is checked by whoever holds the journal's lease.
//!
//! Invariants: what a write returns is durable; a write that fails has changed nothing; a journal only grows, by the
//! holder of its newest lease, and its chain of hashes has no gap; nothing here grows without a bound.

mod error;
mod heads;
mod invite;
mod journal;
mod lease;
mod mail;
mod memory;
mod setting;
mod site;
mod sqlite;
mod state;
pub mod suite;

pub use error::Error;
pub use invite::{Invite, InviteState, SpendOutcome};
pub use journal::{
    Append, Appended, BATCH_BYTES_MAX, BODY_LEN_MAX, ENTRIES_LIMIT_MAX, KIND_LEN_MAX, PAGE_BYTES_MAX,
    SignedHead,
};
pub use lease::Lease;
pub use mail::{MAIL_ACK_MAX, MAIL_KINDS_MAX, MAIL_LIMIT_MAX, MailLimits};
pub use memory::MemoryStore;
pub use setting::{SETTING_KEY_LEN_MAX, SETTING_VALUE_LEN_MAX};
pub use site::{SEEN_MAX, SiteCertificate, SiteRecord, SiteState};
pub use sqlite::{APPLICATION_ID, FORMAT_VERSION, OpenOptions, SqliteStore};
pub use state::StateStore;
