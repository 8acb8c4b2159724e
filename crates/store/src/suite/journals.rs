//! Cases of journals: chains, batches, pages, listening.

use sheaf_domain::{EntryDraft, GENESIS, JournalId, Timestamp};

use super::{append_to, at, checked, digest, drafts, journal, lease};
use crate::{Append, BODY_LEN_MAX, Error, KIND_LEN_MAX, SignedHead, StateStore};

/// Entries follow one another by number and hash over several appends.
pub async fn a_chain_has_no_gap(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    let mut seq = 0;
    for num in [1, 3, 2] {
        let appended = store.append(vec![append_to(&held, seq, drafts(num))]).await.unwrap();
        let entries = &appended.first().unwrap().entries;
        assert_eq!(
            entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
            (seq + 1..=seq + num).collect::<Vec<_>>()
        );
        seq += num;
    }
    let entries = checked(store, journal(1)).await;
    let bodies: Vec<&str> = entries.iter().map(|entry| entry.body.as_str()).collect();
    assert_eq!(bodies, ["{\"n\":0}", "{\"n\":0}", "{\"n\":1}", "{\"n\":2}", "{\"n\":0}", "{\"n\":1}"]);
    assert_eq!(entries.last().map(|entry| (entry.at, entry.kind.as_str())), Some((at(1), "note")));
}

/// A journal nobody wrote to stands at the beginning.
pub async fn an_unknown_journal_is_empty(store: &dyn StateStore) {
    assert_eq!(store.head(journal(1)).await.unwrap(), (0, GENESIS));
    assert_eq!(store.entries(journal(1), 0, 10).await.unwrap(), []);
    assert_eq!(store.signed_head(journal(1)).await.unwrap(), None);
    assert_eq!(*store.watch(journal(1)).borrow(), 0);
}

/// Pages are in order, end at their limit, and are empty beyond the end.
pub async fn pages_follow_one_another(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    store.append(vec![append_to(&held, 0, drafts(10))]).await.unwrap();
    let mut seqs = Vec::new();
    for after in [0, 4, 8, 10, u64::MAX] {
        let page = store.entries(journal(1), after, 4).await.unwrap();
        seqs.push(page.iter().map(|entry| entry.seq).collect::<Vec<_>>());
    }
    assert_eq!(seqs, [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10], vec![], vec![]]);
    assert_eq!(store.entries(journal(1), 0, 0).await.unwrap(), []);
}

/// A page of large entries is cut short, but holds one.
pub async fn a_page_ends_at_its_bytes(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    let large = |body: &str, len| EntryDraft { at: at(0), kind: "large".to_owned(), body: body.repeat(len) };
    let entries = vec![large("a", BODY_LEN_MAX), large("b", BODY_LEN_MAX), large("c", 1)];
    store.append(vec![append_to(&held, 0, entries)]).await.unwrap();
    for (after, seqs) in [(0, vec![1]), (1, vec![2]), (2, vec![3])] {
        let page = store.entries(journal(1), after, 10).await.unwrap();
        assert_eq!(page.iter().map(|entry| entry.seq).collect::<Vec<_>>(), seqs);
    }
    assert_eq!(checked(store, journal(1)).await.len(), 3);
}

/// A batch in which one lease is stale leaves the other journals as they were.
pub async fn one_fenced_journal_stops_the_whole_batch(store: &dyn StateStore) {
    let (first, second) = (lease(store, journal(1)).await, lease(store, journal(2)).await);
    lease(store, journal(2)).await;
    let batch = vec![append_to(&first, 0, drafts(2)), append_to(&second, 0, drafts(2))];
    let refused = store.append(batch).await.unwrap_err();
    assert!(matches!(refused, Error::Fenced { journal: of, epoch: 1 } if of == journal(2)), "{refused:?}");
    assert_eq!(checked(store, journal(1)).await, []);
    assert_eq!(checked(store, journal(2)).await, []);
    store.append(vec![append_to(&first, 0, drafts(1))]).await.unwrap();
}

/// A batch in which one journal stands elsewhere leaves the other journals as they were.
pub async fn one_wrong_number_stops_the_whole_batch(store: &dyn StateStore) {
    let (first, second) = (lease(store, journal(1)).await, lease(store, journal(2)).await);
    store.append(vec![append_to(&second, 0, drafts(3))]).await.unwrap();
    for (expected, found) in [(0, 3), (4, 3), (u64::MAX, 3)] {
        let batch = vec![append_to(&first, 0, drafts(2)), append_to(&second, expected, drafts(2))];
        let refused = store.append(batch).await.unwrap_err();
        assert!(
            matches!(refused, Error::WrongSeq { journal: of, expected: e, found: f } if of == journal(2) && (e, f) == (expected, found)),
            "{refused:?}"
        );
    }
    assert_eq!(checked(store, journal(1)).await, []);
    assert_eq!(checked(store, journal(2)).await.len(), 3);
}

/// A batch that fits goes to the end of every journal it names.
pub async fn a_batch_over_several_journals_is_applied_whole(store: &dyn StateStore) {
    let (first, second) = (lease(store, journal(1)).await, lease(store, JournalId::Federation).await);
    let batch = vec![append_to(&second, 0, drafts(2)), append_to(&first, 0, drafts(3))];
    let appended = store.append(batch).await.unwrap();
    let lens: Vec<_> = appended.iter().map(|appended| (appended.journal, appended.entries.len())).collect();
    assert_eq!(lens, [(JournalId::Federation, 2), (journal(1), 3)]);
    assert_eq!(checked(store, journal(1)).await, appended.last().unwrap().entries);
    assert_eq!(checked(store, JournalId::Federation).await, appended.first().unwrap().entries);
}

/// A batch names each journal once.
pub async fn a_journal_twice_in_a_batch_is_refused(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    let batch = vec![append_to(&held, 0, drafts(1)), append_to(&held, 1, drafts(1))];
    assert!(matches!(store.append(batch).await, Err(Error::InvalidArgument(_))));
    assert_eq!(checked(store, journal(1)).await, []);
}

/// Bodies, kinds and times beyond their bounds are refused; the bounds themselves are not.
pub async fn what_exceeds_a_bound_is_refused(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    let draft = |at: Timestamp, kind_len: usize, body_len: usize| EntryDraft {
        at,
        kind: "k".repeat(kind_len),
        body: "b".repeat(body_len),
    };
    let beyond = [
        draft(at(0), 1, BODY_LEN_MAX + 1),
        draft(at(0), KIND_LEN_MAX + 1, 1),
        draft(Timestamp::from_millis(u64::MAX), 1, 1),
    ];
    for entry in beyond {
        let refused = store.append(vec![append_to(&held, 0, vec![entry])]).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidArgument(_)), "{refused:?}");
    }
    let five = vec![draft(at(0), 1, BODY_LEN_MAX); 5];
    assert!(matches!(store.append(vec![append_to(&held, 0, five)]).await, Err(Error::InvalidArgument(_))));
    store.append(vec![append_to(&held, 0, vec![draft(at(0), KIND_LEN_MAX, 0)])]).await.unwrap();
    assert_eq!(checked(store, journal(1)).await.len(), 1);
}

/// Of two appends for the same place one is applied; the other learns where the journal stands.
pub async fn of_two_appends_at_once_one_wins(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    let (one, other) = tokio::join!(
        store.append(vec![append_to(&held, 0, drafts(2))]),
        store.append(vec![append_to(&held, 0, drafts(2))]),
    );
    let (won, lost) = if one.is_ok() { (one, other) } else { (other, one) };
    assert_eq!(checked(store, journal(1)).await, won.unwrap().first().unwrap().entries);
    assert!(matches!(lost, Err(Error::WrongSeq { expected: 0, found: 2, .. })), "{lost:?}");
}

/// An append of nothing is an answer to: do I still hold it, and does it stand here.
pub async fn an_append_without_entries_only_checks(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    let appended = store.append(vec![append_to(&held, 0, vec![])]).await.unwrap();
    assert!(appended.first().unwrap().entries.is_empty());
    assert!(matches!(store.append(vec![append_to(&held, 1, vec![])]).await, Err(Error::WrongSeq { .. })));
    let stale = Append { lease_epoch: held.epoch + 1, ..append_to(&held, 0, vec![]) };
    assert!(matches!(store.append(vec![stale]).await, Err(Error::Fenced { .. })));
    assert_eq!(store.append(vec![]).await.unwrap(), []);
}

/// Journals are listed once each, the federation's first.
pub async fn journals_are_listed_in_order(store: &dyn StateStore) {
    assert_eq!(store.journals().await.unwrap(), []);
    for id in [journal(0xff), JournalId::Federation, journal(2)] {
        let held = lease(store, id).await;
        store.append(vec![append_to(&held, 0, drafts(1))]).await.unwrap();
    }
    assert_eq!(store.journals().await.unwrap(), [JournalId::Federation, journal(2), journal(0xff)]);
}

/// A listener wakes with the newest number, and finds the entries there.
pub async fn a_watch_wakes_when_entries_are_durable(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    let mut early = store.watch(journal(1));
    let (woken, appended) = tokio::join!(
        async {
            early.changed().await.unwrap();
            let seq = *early.borrow_and_update();
            (seq, store.entries(journal(1), 0, 10).await.unwrap().len())
        },
        store.append(vec![append_to(&held, 0, drafts(3))]),
    );
    appended.unwrap();
    assert_eq!(woken, (3, 3));
    let late = store.watch(journal(1));
    assert_eq!(*late.borrow(), 3);
    assert!(!late.has_changed().unwrap());
    store.append(vec![append_to(&held, 3, drafts(1))]).await.unwrap();
    assert_eq!((*early.borrow(), *late.borrow()), (4, 4));
}

/// A listener sleeps through appends that are refused and appends to other journals.
pub async fn a_refused_append_wakes_nobody(store: &dyn StateStore) {
    let (held, other) = (lease(store, journal(1)).await, lease(store, journal(2)).await);
    let listener = store.watch(journal(1));
    let batch = vec![append_to(&held, 0, drafts(1)), append_to(&other, 7, drafts(1))];
    store.append(batch).await.unwrap_err();
    store.append(vec![append_to(&other, 0, drafts(1))]).await.unwrap();
    assert!(!listener.has_changed().unwrap());
    assert_eq!(*listener.borrow(), 0);
}

/// The newest signed head is kept, whatever the order of signing.
pub async fn a_signed_head_gives_way_to_a_newer_one(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    store.append(vec![append_to(&held, 0, drafts(3))]).await.unwrap();
    let signed: Vec<SignedHead> = checked(store, journal(1))
        .await
        .iter()
        .map(|entry| SignedHead {
            journal: journal(1),
            seq: entry.seq,
            hash: entry.hash,
            signature: vec![1, 2, 3],
            at: at(entry.seq),
        })
        .collect();
    let [first, second, third] = <[SignedHead; 3]>::try_from(signed).unwrap();
    for (put, kept) in [(&second, &second), (&first, &second), (&third, &third), (&second, &third)] {
        store.put_signed_head(put.clone()).await.unwrap();
        assert_eq!(store.signed_head(journal(1)).await.unwrap().as_ref(), Some(kept));
    }
    let again = SignedHead { signature: vec![9], ..third };
    store.put_signed_head(again.clone()).await.unwrap();
    assert_eq!(store.signed_head(journal(1)).await.unwrap(), Some(again));
}

/// A head is kept only for an entry that is there, with the hash it has.
pub async fn a_head_that_is_not_in_the_journal_is_refused(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    store.append(vec![append_to(&held, 0, drafts(1))]).await.unwrap();
    let (_, hash) = store.head(journal(1)).await.unwrap();
    let right = SignedHead { journal: journal(1), seq: 1, hash, signature: vec![1], at: at(0) };
    let wrong = [
        SignedHead { seq: 2, ..right.clone() },
        SignedHead { seq: 0, ..right.clone() },
        SignedHead { hash: digest("another"), ..right.clone() },
        SignedHead { journal: journal(2), ..right.clone() },
        SignedHead { signature: vec![0; SignedHead::SIGNATURE_LEN_MAX + 1], ..right.clone() },
    ];
    for head in wrong {
        assert!(matches!(store.put_signed_head(head).await, Err(Error::InvalidArgument(_))));
    }
    assert_eq!(store.signed_head(journal(1)).await.unwrap(), None);
    store.put_signed_head(right).await.unwrap();
}

/// A removal takes entries, lease and signed head with it, wakes the listeners for the last time, and is in another journal.
pub async fn a_removed_journal_is_gone_and_its_removal_noted(store: &dyn StateStore) {
    let (held, other) = (lease(store, journal(1)).await, lease(store, JournalId::Federation).await);
    let beside = lease(store, journal(2)).await;
    store.append(vec![append_to(&held, 0, drafts(3)), append_to(&beside, 0, drafts(2))]).await.unwrap();
    let (seq, hash) = store.head(journal(1)).await.unwrap();
    let signed = SignedHead { journal: journal(1), seq, hash, signature: vec![1], at: at(0) };
    store.put_signed_head(signed).await.unwrap();
    let (mut listener, mut noted) = (store.watch(journal(1)), store.watch(JournalId::Federation));
    let note = append_to(&other, 0, drafts(1));
    let appended = store.remove_journal(journal(1), held.epoch, note).await.unwrap();
    assert_eq!(checked(store, JournalId::Federation).await, appended.entries);
    assert!(noted.has_changed().unwrap());
    assert_eq!(*noted.borrow_and_update(), 1);
    assert!(listener.changed().await.is_err(), "nothing more comes");
    assert_eq!(store.head(journal(1)).await.unwrap(), (0, sheaf_domain::GENESIS));
    assert_eq!(store.entries(journal(1), 0, 10).await.unwrap(), []);
    assert_eq!(store.signed_head(journal(1)).await.unwrap(), None);
    assert_eq!(store.journals().await.unwrap(), [JournalId::Federation, journal(2)]);
    assert_eq!(checked(store, journal(2)).await.len(), 2);
    // Whoever wrote it does not bring it back; it may be begun anew.
    let late = store.append(vec![append_to(&held, 3, drafts(1))]).await.unwrap_err();
    assert!(matches!(late, Error::Fenced { .. }), "{late:?}");
    let again = lease(store, journal(1)).await;
    store.append(vec![append_to(&again, 0, drafts(1))]).await.unwrap();
    assert_eq!(checked(store, journal(1)).await.len(), 1);
}

/// Without its lease, without a place for the note, and of what is not there, nothing is removed and nothing noted.
pub async fn a_removal_that_is_refused_removes_nothing(store: &dyn StateStore) {
    let (held, other) = (lease(store, journal(1)).await, lease(store, JournalId::Federation).await);
    store.append(vec![append_to(&held, 0, drafts(3))]).await.unwrap();
    let note = || append_to(&other, 0, drafts(1));
    let stale = store.remove_journal(journal(1), held.epoch + 1, note()).await.unwrap_err();
    assert!(matches!(&stale, Error::Fenced { journal: of, .. } if *of == journal(1)), "{stale:?}");
    let elsewhere = Append { expected_seq: 4, ..note() };
    let refused = store.remove_journal(journal(1), held.epoch, elsewhere).await.unwrap_err();
    assert!(matches!(refused, Error::WrongSeq { expected: 4, found: 0, .. }), "{refused:?}");
    let unleased = Append { lease_epoch: other.epoch + 1, ..note() };
    let refused = store.remove_journal(journal(1), held.epoch, unleased).await.unwrap_err();
    assert!(matches!(&refused, Error::Fenced { journal: JournalId::Federation, .. }), "{refused:?}");
    let itself = append_to(&held, 3, drafts(1));
    let refused = store.remove_journal(journal(1), held.epoch, itself).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument(_)), "{refused:?}");
    let unknown = store.remove_journal(journal(9), 1, note()).await.unwrap_err();
    assert!(matches!(unknown, Error::NotFound(_)), "{unknown:?}");
    assert_eq!(checked(store, journal(1)).await.len(), 3);
    assert_eq!(checked(store, JournalId::Federation).await, []);
    store.append(vec![append_to(&held, 3, drafts(1))]).await.unwrap();
}
