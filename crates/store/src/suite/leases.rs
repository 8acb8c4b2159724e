//! Cases of leases: who may write, and who may not any more.

use super::{append_to, at, checked, drafts, journal, lease, ms};
use crate::{Append, Error, Lease, StateStore};

/// A journal takes nothing from whom it was not leased to.
pub async fn nobody_appends_without_a_lease(store: &dyn StateStore) {
    for lease_epoch in [0, 1, u64::MAX] {
        let append = Append { journal: journal(1), lease_epoch, expected_seq: 0, entries: drafts(1) };
        assert!(matches!(store.append(vec![append]).await, Err(Error::Fenced { .. })));
        assert!(matches!(
            store.renew_lease(journal(1), lease_epoch, ms(10), at(0)).await,
            Err(Error::Fenced { .. })
        ));
        assert!(matches!(store.release_lease(journal(1), lease_epoch).await, Err(Error::Fenced { .. })));
    }
    assert_eq!(checked(store, journal(1)).await, []);
}

/// While a lease is live, another holder learns whose it is and until when.
pub async fn another_holder_waits_until_the_lease_ends(store: &dyn StateStore) {
    let one = store.acquire_lease(journal(1), "one", ms(100), at(0)).await.unwrap();
    assert_eq!(one.expires_at, at(100));
    for now in [0, 99] {
        let refused = store.acquire_lease(journal(1), "two", ms(100), at(now)).await.unwrap_err();
        assert!(
            matches!(&refused, Error::LeaseHeld { holder, expires_at, .. } if holder == "one" && *expires_at == at(100)),
            "{refused:?}"
        );
    }
    let two = store.acquire_lease(journal(1), "two", ms(100), at(100)).await.unwrap();
    assert!(two.epoch > one.epoch);
    assert_eq!((two.holder.as_str(), two.expires_at), ("two", at(200)));
}

/// A renewal keeps the epoch and moves the end.
pub async fn a_renewed_lease_is_live_for_longer(store: &dyn StateStore) {
    let one = store.acquire_lease(journal(1), "one", ms(100), at(0)).await.unwrap();
    let renewed = store.renew_lease(journal(1), one.epoch, ms(100), at(90)).await.unwrap();
    assert_eq!(renewed, Lease { expires_at: at(190), ..one });
    assert!(matches!(
        store.acquire_lease(journal(1), "two", ms(100), at(150)).await,
        Err(Error::LeaseHeld { .. })
    ));
}

/// A holder that starts again fences off what it was before.
pub async fn the_same_holder_gets_a_higher_epoch(store: &dyn StateStore) {
    let before = lease(store, journal(1)).await;
    let now = lease(store, journal(1)).await;
    assert_eq!(now.epoch, before.epoch + 1);
    assert!(matches!(store.append(vec![append_to(&before, 0, drafts(1))]).await, Err(Error::Fenced { .. })));
    store.append(vec![append_to(&now, 0, drafts(1))]).await.unwrap();
}

/// After a take-over the old holder can do nothing, and the chain goes on.
pub async fn a_holder_that_was_taken_over_is_fenced(store: &dyn StateStore) {
    let one = store.acquire_lease(journal(1), "one", ms(100), at(0)).await.unwrap();
    store.append(vec![append_to(&one, 0, drafts(2))]).await.unwrap();
    let two = store.acquire_lease(journal(1), "two", ms(100), at(200)).await.unwrap();
    let refused = store.append(vec![append_to(&one, 2, drafts(1))]).await.unwrap_err();
    assert!(matches!(refused, Error::Fenced { epoch, .. } if epoch == one.epoch), "{refused:?}");
    assert!(matches!(
        store.renew_lease(journal(1), one.epoch, ms(1), at(201)).await,
        Err(Error::Fenced { .. })
    ));
    assert!(matches!(store.release_lease(journal(1), one.epoch).await, Err(Error::Fenced { .. })));
    store.append(vec![append_to(&two, 2, drafts(1))]).await.unwrap();
    assert_eq!(checked(store, journal(1)).await.len(), 3);
}

/// What protects a journal is the epoch, not a clock.
pub async fn a_lease_that_ran_out_writes_until_it_is_taken(store: &dyn StateStore) {
    let one = store.acquire_lease(journal(1), "one", ms(1), at(0)).await.unwrap();
    store.append(vec![append_to(&one, 0, drafts(1))]).await.unwrap();
    let renewed = store.renew_lease(journal(1), one.epoch, ms(10), at(500)).await.unwrap();
    assert_eq!((renewed.epoch, renewed.expires_at), (one.epoch, at(510)));
    store.append(vec![append_to(&one, 1, drafts(1))]).await.unwrap();
}

/// A lease given back is nobody's, and its epoch is not given again.
pub async fn a_released_lease_is_free_at_once_and_writes_no_more(store: &dyn StateStore) {
    let one = store.acquire_lease(journal(1), "one", ms(1000), at(0)).await.unwrap();
    store.release_lease(journal(1), one.epoch).await.unwrap();
    assert!(matches!(store.append(vec![append_to(&one, 0, drafts(1))]).await, Err(Error::Fenced { .. })));
    assert!(matches!(
        store.renew_lease(journal(1), one.epoch, ms(1), at(1)).await,
        Err(Error::Fenced { .. })
    ));
    assert!(matches!(store.release_lease(journal(1), one.epoch).await, Err(Error::Fenced { .. })));
    let two = store.acquire_lease(journal(1), "two", ms(1000), at(1)).await.unwrap();
    assert!(two.epoch > one.epoch);
    store.append(vec![append_to(&two, 0, drafts(1))]).await.unwrap();
}

/// A lease is for one journal.
pub async fn leases_of_journals_are_apart(store: &dyn StateStore) {
    let one = lease(store, journal(1)).await;
    let two = store.acquire_lease(journal(2), "another", ms(1000), at(0)).await.unwrap();
    store.append(vec![append_to(&one, 0, drafts(1)), append_to(&two, 0, drafts(1))]).await.unwrap();
    lease(store, journal(1)).await;
    store.append(vec![append_to(&two, 1, drafts(1))]).await.unwrap();
}
