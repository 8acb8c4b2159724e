//! Whether a certificate may still be renewed: while it is valid, and for a grace after it ended.

use sheaf_domain::{Span, Timestamp};

/// How a certificate stands with respect to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// It has not ended.
    Valid,
    /// It ended, and may only be renewed, for `left` more.
    InGrace {
        /// What is left of the grace.
        left: Span,
    },
    /// It ended too long ago: the site needs a new invitation.
    TooOld,
}

impl Grace {
    /// Judges a certificate that ends at `not_after` (that instant included), at `now`.
    pub fn of(not_after: Timestamp, now: Timestamp, grace: Span) -> Grace {
        if now <= not_after {
            return Grace::Valid;
        }
        let end = not_after.after(grace);
        if now <= end { Grace::InGrace { left: end.since(now) } } else { Grace::TooOld }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_begins_after_the_end_and_is_over_after_its_span() {
        let at = Timestamp::from_millis;
        let grace = Span::from_millis(50);
        assert_eq!(Grace::of(at(100), at(99), grace), Grace::Valid);
        assert_eq!(Grace::of(at(100), at(100), grace), Grace::Valid);
        assert_eq!(Grace::of(at(100), at(101), grace), Grace::InGrace { left: Span::from_millis(49) });
        assert_eq!(Grace::of(at(100), at(150), grace), Grace::InGrace { left: Span::from_millis(0) });
        assert_eq!(Grace::of(at(100), at(151), grace), Grace::TooOld);
        assert_eq!(Grace::of(at(100), at(101), Span::from_millis(0)), Grace::TooOld);
    }
}
