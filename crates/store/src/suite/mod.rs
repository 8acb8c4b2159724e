//! The conformance suite: written once against [`StateStore`], stamped out for every backend.
//!
//! ```text
//! async fn make() -> (Arc<MyStore>, TempDir) { … }   // empty, with `suite::MAIL_LIMITS`; the second part is kept alive
//! sheaf_store::store_suite!(my_store, make);
//! ```

#![expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "a case of the suite fails by panicking")]

pub mod invites;
pub mod journals;
pub mod leases;
pub mod mails;
pub mod settings;
pub mod sites;

use sheaf_domain::{
    Digest, EntryDraft, GENESIS, JournalEntry, JournalId, Principal, RunId, SiteName, Span, Timestamp,
};

use crate::{Append, Lease, MailLimits, StateStore};

/// The limits a store under the suite is made with.
pub const MAIL_LIMITS: MailLimits = MailLimits { waiting_max: 4, acknowledged_max: 3 };

/// Stamps out every case as a test in a module `$name`; `$make` is an async function that gives an empty store (behind
/// anything that derefs to it) and something to keep alive beside it.
#[macro_export]
macro_rules! store_suite {
    ($name:ident, $make:ident) => {
        mod $name {
            $crate::store_suite! {
                @cases $make;
                journals {
                    a_chain_has_no_gap
                    an_unknown_journal_is_empty
                    pages_follow_one_another
                    a_page_ends_at_its_bytes
                    one_fenced_journal_stops_the_whole_batch
                    one_wrong_number_stops_the_whole_batch
                    a_batch_over_several_journals_is_applied_whole
                    a_journal_twice_in_a_batch_is_refused
                    what_exceeds_a_bound_is_refused
                    of_two_appends_at_once_one_wins
                    an_append_without_entries_only_checks
                    journals_are_listed_in_order
                    a_watch_wakes_when_entries_are_durable
                    a_refused_append_wakes_nobody
                    a_signed_head_gives_way_to_a_newer_one
                    a_head_that_is_not_in_the_journal_is_refused
                    a_removed_journal_is_gone_and_its_removal_noted
                    a_removal_that_is_refused_removes_nothing
                }
                leases {
                    nobody_appends_without_a_lease
                    another_holder_waits_until_the_lease_ends
                    a_renewed_lease_is_live_for_longer
                    the_same_holder_gets_a_higher_epoch
                    a_holder_that_was_taken_over_is_fenced
                    a_lease_that_ran_out_writes_until_it_is_taken
                    a_released_lease_is_free_at_once_and_writes_no_more
                    leases_of_journals_are_apart
                }
                invites {
                    an_open_token_is_spent_once
                    a_spent_token_answers_its_key_for_ever
                    an_expired_token_is_not_spent
                    an_unknown_token_is_told_apart
                    of_two_keys_at_once_one_is_first
                    a_withdrawn_invitation_is_not_spent
                    a_token_in_use_is_refused
                    invitations_are_listed_oldest_first
                    only_unspent_invitations_are_forgotten
                }
                sites {
                    a_site_reads_back_as_it_was_put
                    a_site_waits_is_approved_and_revoked
                    a_key_belongs_to_one_site
                    a_renewal_needs_the_present_key
                    a_renewal_does_not_undo_a_revocation
                    a_revoked_site_can_be_forgotten
                    sightings_never_go_back
                    an_unknown_site_is_told_apart
                }
                mails {
                    posting_again_is_the_same_mail
                    mail_waits_until_it_is_acknowledged
                    only_the_recipient_acknowledges
                    a_full_mailbox_refuses
                    mail_expires
                    mail_is_handed_out_by_kind_and_in_pages
                    the_oldest_acknowledged_mail_is_forgotten
                    a_number_is_never_given_twice
                    bad_mail_is_refused
                }
                settings {
                    a_setting_is_kept_until_it_is_replaced
                    an_oversized_setting_is_refused
                    a_closed_store_says_so
                    closing_ends_every_watch
                }
            }
        }
    };
    (@cases $make:ident; $($group:ident { $($case:ident)+ })+) => {
        $($(
            #[tokio::test]
            async fn $case() {
                let (store, _kept) = super::$make().await;
                $crate::suite::$group::$case(&*store).await;
            }
        )+)+
    };
}

/// An instant some milliseconds after the suite's beginning of time.
pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

pub(crate) fn ms(millis: u64) -> Span {
    Span::from_millis(millis)
}

pub(crate) fn run_id(number: u64) -> RunId {
    RunId::new(number).unwrap()
}

pub(crate) fn journal(number: u64) -> JournalId {
    JournalId::Run(run_id(number))
}

pub(crate) fn site_name(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

pub(crate) fn participant(name: &str) -> Principal {
    Principal::Participant(site_name(name))
}

pub(crate) fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

pub(crate) fn drafts(num: u64) -> Vec<EntryDraft> {
    let draft = |idx| EntryDraft { at: at(idx), kind: "note".to_owned(), body: format!("{{\"n\":{idx}}}") };
    (0..num).map(draft).collect()
}

pub(crate) async fn lease(store: &dyn StateStore, journal: JournalId) -> Lease {
    store.acquire_lease(journal, "holder", ms(1000), at(0)).await.unwrap()
}

pub(crate) fn append_to(lease: &Lease, expected_seq: u64, entries: Vec<EntryDraft>) -> Append {
    Append { journal: lease.journal, lease_epoch: lease.epoch, expected_seq, entries }
}

/// Every entry of a journal; the chain is checked from its beginning.
pub(crate) async fn checked(store: &dyn StateStore, journal: JournalId) -> Vec<JournalEntry> {
    let mut entries: Vec<JournalEntry> = Vec::new();
    let mut head = (0, GENESIS);
    loop {
        let page = store.entries(journal, head.0, 100).await.unwrap();
        if page.is_empty() {
            assert_eq!(store.head(journal).await.unwrap(), head);
            return entries;
        }
        for entry in page {
            entry.check_follows(journal, head).unwrap();
            head = (entry.seq, entry.hash);
            entries.push(entry);
        }
    }
}
