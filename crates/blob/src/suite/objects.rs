//! Cases about one object: writing, reading, refusing.

use bytes::Bytes;
use sheaf_domain::{Digest, ErrorKind, Segment};

use super::{Fixture, hold, noise, put, read_all};
use crate::Error;

/// What was written is what is read, under the digest of the bytes.
pub async fn an_object_reads_back(fixture: Fixture) {
    let store = &*fixture.store;
    let bytes = noise(1, 300_000);
    let mut writer = store.writer(&hold("task/1"), 300_000).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    let stored = writer.finish(Some(Digest::of(&bytes))).await.unwrap();
    assert_eq!((stored.digest, stored.len), (Digest::of(&bytes), 300_000));
    assert_eq!(read_all(store, stored).await.unwrap(), bytes);
    assert_eq!(store.len(&stored.digest).await.unwrap(), Some(300_000));
    let usage = store.usage();
    assert_eq!((usage.objects, usage.stored_bytes), (1, 300_000));
}

/// Any range of an object is the same stretch of the whole.
pub async fn whole_and_ranged_reads_agree(fixture: Fixture) {
    let store = &*fixture.store;
    let bytes = noise(2, 70_001);
    let stored = put(store, &hold("task/1"), bytes.clone()).await.unwrap();
    for (offset, len) in [(0, 1), (0, 70_001), (4095, 2), (4096, 4096), (69_999, 2), (70_001, 0), (1, 0)] {
        let range = store.read(&stored.digest, offset as u64, len as u64).await.unwrap();
        assert_eq!(range, bytes.slice(offset..offset + len), "{offset}+{len}");
    }
}

/// A read that leaves the object is refused, also where numbers overflow.
pub async fn reads_outside_an_object_are_refused(fixture: Fixture) {
    let store = &*fixture.store;
    let stored = put(store, &hold("task/1"), noise(3, 100)).await.unwrap();
    for (offset, len) in [(0, 101), (100, 1), (101, 0), (u64::MAX, 1), (1, u64::MAX)] {
        let error = store.read(&stored.digest, offset, len).await.unwrap_err();
        assert!(matches!(error, Error::OutOfRange { object_len: 100, .. }), "{offset}+{len}: {error}");
    }
}

/// Whatever is asked about an unknown object, the answer is that it is not there.
pub async fn an_unknown_object_is_not_found(fixture: Fixture) {
    let store = &*fixture.store;
    let unknown = Digest::of(b"never stored");
    assert_eq!(store.read(&unknown, 0, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    let segment = Segment { object: unknown, offset: 0, len: 1 };
    assert_eq!(store.read_many(&[segment]).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.verify(&unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.len(&unknown).await.unwrap(), None);
    assert!(!store.hold(&unknown, &hold("task/1")).await.unwrap());
    assert!(store.holds().await.unwrap().is_empty());
}

/// An object that ends early is not stored.
pub async fn fewer_bytes_than_declared_are_refused(fixture: Fixture) {
    let store = &*fixture.store;
    let bytes = noise(4, 99);
    let mut writer = store.writer(&hold("task/1"), 100).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    let error = writer.finish(None).await.unwrap_err();
    assert!(matches!(error, Error::Length { declared: 100, received: 99 }), "{error}");
    assert_eq!(store.len(&Digest::of(&bytes)).await.unwrap(), None);
}

/// A byte too many is refused at once, and the object cannot be finished afterwards.
pub async fn more_bytes_than_declared_are_refused(fixture: Fixture) {
    let store = &*fixture.store;
    let mut writer = store.writer(&hold("task/1"), 100).await.unwrap();
    writer.write(noise(5, 100)).await.unwrap();
    let error = writer.write(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, Error::Length { declared: 100, received: 101 }), "{error}");
    assert!(matches!(writer.write(Bytes::from_static(b"x")).await, Err(Error::Incomplete)));
    assert!(writer.finish(None).await.is_err());
    assert_eq!(store.usage().objects, 0);
}

/// Bytes that are not those promised are not stored under either digest.
pub async fn another_digest_is_refused(fixture: Fixture) {
    let store = &*fixture.store;
    let (bytes, promised) = (noise(6, 5000), Digest::of(b"something else"));
    let mut writer = store.writer(&hold("task/1"), 5000).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    let error = writer.finish(Some(promised)).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { expected, .. } if expected == promised), "{error}");
    assert_eq!(store.len(&promised).await.unwrap(), None);
    assert_eq!(store.len(&Digest::of(&bytes)).await.unwrap(), None);
}

/// No bytes are an object like others.
pub async fn an_empty_object_is_an_object(fixture: Fixture) {
    let store = &*fixture.store;
    let mut writer = store.writer(&hold("task/1"), 0).await.unwrap();
    writer.write(Bytes::new()).await.unwrap();
    let stored = writer.finish(Some(Digest::of(b""))).await.unwrap();
    assert_eq!(read_all(store, stored).await.unwrap(), Bytes::new());
    assert_eq!(store.len(&stored.digest).await.unwrap(), Some(0));
    store.verify(&stored.digest).await.unwrap();
    assert!(matches!(store.read(&stored.digest, 0, 1).await, Err(Error::OutOfRange { .. })));
    assert_eq!(store.held(&hold("task/1")).await.unwrap(), [(stored.digest, 0)]);
    assert_eq!(store.release(&hold("task/1")).await.unwrap(), 0);
    assert_eq!(store.len(&stored.digest).await.unwrap(), None);
}

/// How the bytes are cut on their way in does not show.
pub async fn pieces_of_any_size_make_the_same_object(fixture: Fixture) {
    let store = &*fixture.store;
    let bytes = noise(7, 900_000);
    for (idx, piece_len) in [1000, 16_384, 262_144, 262_145, 500_000, 900_000].into_iter().enumerate() {
        let keeper = hold(&format!("task/{idx}"));
        let mut writer = store.writer(&keeper, 900_000).await.unwrap();
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            writer.write(rest.split_to(piece_len.min(rest.len()))).await.unwrap();
        }
        let stored = writer.finish(Some(Digest::of(&bytes))).await.unwrap();
        assert_eq!(read_all(store, stored).await.unwrap(), bytes, "pieces of {piece_len}");
        store.release(&keeper).await.unwrap();
    }
}

/// A batched read gives the stretches in the order asked, repeated ones and empty ones too.
pub async fn many_ranges_read_in_order(fixture: Fixture) {
    let store = &*fixture.store;
    let (one, two) = (noise(8, 10_000), noise(9, 20_000));
    let (a, b) = (
        put(store, &hold("task/1"), one.clone()).await.unwrap().digest,
        put(store, &hold("task/1"), two.clone()).await.unwrap().digest,
    );
    let wanted = [(b, 5, 10), (a, 9_990, 10), (b, 0, 20_000), (b, 5, 10), (a, 3, 0)];
    let segments = wanted.map(|(object, offset, len)| Segment { object, offset, len });
    let read = store.read_many(&segments).await.unwrap();
    let expected = [two.slice(5..15), one.slice(9_990..), two.clone(), two.slice(5..15), Bytes::new()];
    assert_eq!(read, expected);
    assert!(store.read_many(&[]).await.unwrap().is_empty());
    let beyond = Segment { object: a, offset: 9_990, len: 11 };
    let error = store.read_many(&[segments[0], beyond]).await.unwrap_err();
    assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
}

/// A sound object passes its check.
pub async fn a_stored_object_verifies(fixture: Fixture) {
    let store = &*fixture.store;
    let stored = put(store, &hold("task/1"), noise(10, 600_000)).await.unwrap();
    store.verify(&stored.digest).await.unwrap();
}

/// Neither the object nor its hold can be seen while it is being written.
pub async fn nothing_is_visible_before_it_is_finished(fixture: Fixture) {
    let store = &*fixture.store;
    let bytes = noise(11, 300_000);
    let mut writer = store.writer(&hold("task/1"), 300_000).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    assert_eq!(store.len(&Digest::of(&bytes)).await.unwrap(), None);
    assert!(store.holds().await.unwrap().is_empty());
    assert_eq!(store.usage().objects, 0);
    drop(writer);
    assert_eq!(store.len(&Digest::of(&bytes)).await.unwrap(), None);
}
