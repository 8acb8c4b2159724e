//! The store in memory under the suite.

use sheaf_store::{Error, MemoryStore, StateStore, suite};

async fn make() -> (Box<MemoryStore>, ()) {
    (Box::new(MemoryStore::new(suite::MAIL_LIMITS)), ())
}

sheaf_store::store_suite!(conformance, make);

#[tokio::test]
async fn there_is_nothing_to_copy() {
    let path = std::path::Path::new("never-made");
    let refused = MemoryStore::default().backup_to(path).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument(_)), "{refused:?}");
    assert!(!path.exists());
}
