//! Invitations: a token's hash, the name and role it stands for, and the one key that spent it.
//!
//! The token itself is never here. A spent invitation is kept, so that the same key gets the same answer and another
//! key is told apart.

use sheaf_domain::{Digest, Role, SiteName, Timestamp};

use crate::Error;
use crate::journal::check_time;

/// One invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// The site it is for; a certificate's name comes from here.
    pub site: SiteName,
    /// SHA-256 of the token.
    pub token_hash: Digest,
    /// What the site may do.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops being spendable.
    pub expires_at: Timestamp,
    /// Whether an operator has to compare the key's fingerprint before the site may come in.
    pub approve: bool,
    /// What became of it.
    pub state: InviteState,
}

/// What became of an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteState {
    /// Nobody came with it yet.
    Open,
    /// A key came with it.
    Spent {
        /// The fingerprint of that key.
        by: Digest,
        /// When.
        at: Timestamp,
    },
    /// It was taken back before it was spent.
    Withdrawn,
}

/// What a token is good for. Every case is an answer that the protocol foresees, none an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpendOutcome {
    /// It was open and is now spent by this key.
    Spent(Invite),
    /// This key had spent it before, in time.
    SameKey(Invite),
    /// Another key had spent it before: two parties have the token.
    OtherKey {
        /// The site it is for.
        site: SiteName,
        /// The fingerprint of the key that came first.
        first: Digest,
    },
    /// Nobody had spent it in time.
    Expired,
    /// It was taken back.
    Withdrawn,
    /// No invitation has this token.
    Unknown,
}

impl Invite {
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_time("invitation", self.created_at)?;
        check_time("invitation's end", self.expires_at)?;
        match self.state {
            InviteState::Spent { at, .. } => check_time("spending", at),
            InviteState::Open | InviteState::Withdrawn => Ok(()),
        }
    }

    /// The refusal of a token that an invitation has already.
    pub(crate) fn token_taken(&self) -> Error {
        Error::Conflict(format!("the token of this invitation for site {} is in use", self.site))
    }

    /// What the key `fingerprint` gets for this invitation; on `Spent`, the invitation in it is the one to keep.
    pub(crate) fn spend(self, fingerprint: Digest, now: Timestamp) -> SpendOutcome {
        match self.state {
            InviteState::Spent { by, .. } if by == fingerprint => SpendOutcome::SameKey(self),
            InviteState::Spent { by, .. } => SpendOutcome::OtherKey { site: self.site, first: by },
            InviteState::Withdrawn => SpendOutcome::Withdrawn,
            InviteState::Open if self.expires_at <= now => SpendOutcome::Expired,
            InviteState::Open => {
                SpendOutcome::Spent(Invite { state: InviteState::Spent { by: fingerprint, at: now }, ..self })
            }
        }
    }
}
