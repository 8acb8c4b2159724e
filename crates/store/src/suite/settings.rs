//! Cases of settings, and of a store that was closed.

use sheaf_domain::ErrorKind;

use super::{append_to, at, drafts, journal, lease, ms, participant, site_name};
use crate::{Error, SETTING_KEY_LEN_MAX, SETTING_VALUE_LEN_MAX, StateStore};

/// A setting is there as it was put last.
pub async fn a_setting_is_kept_until_it_is_replaced(store: &dyn StateStore) {
    assert_eq!(store.setting("instance").await.unwrap(), None);
    for value in ["one", "", "two \u{1F33E} '; --"] {
        store.put_setting("instance", value).await.unwrap();
        assert_eq!(store.setting("instance").await.unwrap().as_deref(), Some(value));
    }
    assert_eq!(store.setting("Instance").await.unwrap(), None);
}

/// Keys and values are bounded.
pub async fn an_oversized_setting_is_refused(store: &dyn StateStore) {
    let (key, value) = ("k".repeat(SETTING_KEY_LEN_MAX), "v".repeat(SETTING_VALUE_LEN_MAX));
    store.put_setting(&key, &value).await.unwrap();
    for (key, value) in [(format!("{key}k"), String::new()), (String::new(), format!("{value}v"))] {
        assert!(matches!(store.put_setting(&key, &value).await, Err(Error::InvalidArgument(_))));
        assert_eq!(store.setting(&key).await.unwrap(), None);
    }
}

/// After closing, reads and writes are refused by name; closing again does nothing.
pub async fn a_closed_store_says_so(store: &dyn StateStore) {
    let held = lease(store, journal(1)).await;
    store.close().await;
    store.close().await;
    let site = site_name("site-1");
    let refusals = [
        store.append(vec![append_to(&held, 0, drafts(1))]).await.map(drop),
        store.renew_lease(journal(1), held.epoch, ms(1), at(1)).await.map(drop),
        store.entries(journal(1), 0, 1).await.map(drop),
        store.head(journal(1)).await.map(drop),
        store.journals().await.map(drop),
        store.invites().await.map(drop),
        store.withdraw_invites(&site).await.map(drop),
        store.site(&site).await.map(drop),
        store.touch_sites(vec![(site, at(1))]).await,
        store.mail(&participant("site-1"), &[], None, 1, at(1)).await.map(drop),
        store.expire_mail(at(1)).await.map(drop),
        store.setting("key").await.map(drop),
        store.put_setting("key", "value").await,
        store.backup_to(std::path::Path::new("never-made")).await,
    ];
    for (idx, refusal) in refusals.into_iter().enumerate() {
        let error = refusal.unwrap_err();
        assert!(matches!(error, Error::Closed), "call {idx}: {error:?}");
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Unavailable, "the state store is closed")
        );
    }
}

/// Who listens learns that nothing more will come.
pub async fn closing_ends_every_watch(store: &dyn StateStore) {
    let mut listener = store.watch(journal(1));
    store.close().await;
    assert!(listener.changed().await.is_err());
    assert!(store.watch(journal(1)).changed().await.is_err());
}
