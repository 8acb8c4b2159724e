//! Single calls fail: each failure is named, costs only what was not acknowledged, and passes when its cause does.

use std::io::ErrorKind::{Other, StorageFull};
use std::path::Path;
use std::sync::Arc;

use sheaf_blob::suite::{hold, noise, put, read_all};
use sheaf_blob::{BlobStore, DiskBlobs, Error, OpenOptions, Stored};
use sheaf_domain::{ByteSize, ErrorKind};
use sheaf_runtime::TaskScope;

use crate::power;
use sheaf_testkit::files::{Call, FaultyFiles};

async fn verified(store: &DiskBlobs, objects: &[Stored]) {
    for object in objects {
        store.verify(&object.digest).await.unwrap();
    }
}

/// One object stored before the fault.
async fn started() -> (FaultyFiles, DiskBlobs, Stored) {
    let files = FaultyFiles::new(1);
    let store = power::open(&files).await;
    let kept = put(&store, &hold("kept"), noise(1, 10_000)).await.unwrap();
    (files, store, kept)
}

#[tokio::test]
async fn a_failed_write_fails_its_object_only() {
    let (files, store, kept) = started().await;
    let mut writer = store.writer(&hold("task/1"), 300_000).await.unwrap();
    files.fail(Call::Write, "spool", 0, Other);
    let error = writer.write(noise(2, 300_000)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Io { action: "write", path, .. } if path.starts_with("/blobs")),
        "{error}"
    );
    assert!(matches!(writer.finish(None).await, Err(Error::Incomplete)));
    let later = put(&store, &hold("task/2"), noise(3, 10_000)).await.unwrap();
    verified(&store, &[kept, later]).await;
    assert_eq!(store.usage().objects, 2);
}

#[tokio::test]
async fn a_failed_flush_of_a_spool_file_retires_the_file() {
    let (files, store, kept) = started().await;
    // Written before the failed flush, finished after it: nobody knows whether its bytes are still there.
    let mut early = store.writer(&hold("task/early"), 10_000).await.unwrap();
    early.write(noise(4, 10_000)).await.unwrap();
    let mut other = store.writer(&hold("task/other"), 20_000).await.unwrap();
    other.write(noise(4, 20_000)).await.unwrap();
    files.fail(Call::Sync, "spool", 0, Other);
    let error = put(&store, &hold("task/1"), noise(2, 10_000)).await.unwrap_err();
    assert!(matches!(error, Error::Io { action: "flush", .. }), "{error}");
    let error = early.finish(None).await.unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(other);
    let later = put(&store, &hold("task/2"), noise(2, 10_000)).await.unwrap();
    verified(&store, &[kept, later]).await;
    let files = files.after_power_loss();
    let store = power::open(&files).await;
    verified(&store, &[kept, later]).await;
    assert_eq!(store.usage().objects, 2);
}

#[tokio::test]
async fn a_retired_file_is_removed_when_it_is_empty() {
    let (files, store, _) = started().await;
    files.fail(Call::Sync, "spool", 0, Other);
    put(&store, &hold("task/1"), noise(2, 10_000)).await.unwrap_err();
    store.release(&hold("kept")).await.unwrap();
    put(&store, &hold("task/1"), noise(2, 10_000)).await.unwrap();
    assert!(files.content(Path::new("/blobs/spool-00000001")).is_none());
    assert!(files.content(Path::new("/blobs/spool-00000002")).is_some());
}

#[tokio::test]
async fn a_failed_flush_of_the_index_is_made_good_by_a_new_index() {
    for restart in [false, true] {
        let (files, store, kept) = started().await;
        files.fail(Call::Sync, "index", 0, Other);
        let error = put(&store, &hold("task/1"), noise(2, 10_000)).await.unwrap_err();
        assert!(
            matches!(&error, Error::Io { action: "flush", path, .. } if path.ends_with("index")),
            "{error}"
        );
        // The next change first writes the index anew.
        let later = put(&store, &hold("task/2"), noise(3, 10_000)).await.unwrap();
        assert_eq!(store.release(&hold("task/1")).await.unwrap(), 0);
        assert_eq!(store.usage().objects, 2);
        let store = if restart { power::open(&files.after_power_loss()).await } else { store };
        verified(&store, &[kept, later]).await;
        assert_eq!(store.usage().objects, 2, "restart: {restart}");
    }
}

/// An object is refused because of `faults`; then a change fails too where `stuck` says so, so that the index is not
/// replaced. The room of the object, if it is free, is overwritten, and the power goes.
async fn refused_then_overwritten(
    seed: u64,
    faults: &[(Call, &'static str)],
    stuck: Option<(Call, &'static str)>,
) {
    let files = FaultyFiles::new(seed);
    let store = power::open(&files).await;
    faults.iter().for_each(|(call, name)| files.fail(*call, name, 0, Other));
    put(&store, &hold("task/1"), noise(2, 10_000)).await.unwrap_err();
    if let Some((call, name)) = stuck {
        files.fail(call, name, 0, Other);
        store.release(&hold("task/1")).await.unwrap_err();
    }
    let mut writer = store.writer(&hold("task/2"), 300_000).await.unwrap();
    writer.write(noise(3, 300_000)).await.unwrap();
    let mut writer = store.writer(&hold("task/2"), 10_000).await.unwrap();
    writer.write(noise(3, 10_000)).await.unwrap();
    assert!(writer.finish(Some(sheaf_domain::Digest::of(b"other bytes"))).await.is_err());
    let store = power::open(&files.after_power_loss()).await;
    for (digest, _) in store.held(&hold("task/1")).await.unwrap() {
        store.verify(&digest).await.unwrap_or_else(|error| panic!("seed {seed}, {faults:?}: {error}"));
    }
}

#[tokio::test]
async fn room_of_unknown_fate_is_not_used_again_before_the_index_is_certain() {
    for seed in 0..200 {
        refused_then_overwritten(seed, &[(Call::Sync, "index")], Some((Call::SyncDir, "blobs"))).await;
        refused_then_overwritten(seed, &[(Call::Sync, "index")], Some((Call::Write, "index.new"))).await;
        refused_then_overwritten(seed, &[(Call::Write, "index")], None).await;
        let torn = [(Call::Write, "index"), (Call::Truncate, "index")];
        refused_then_overwritten(seed, &torn, Some((Call::Rename, "index"))).await;
    }
}

#[tokio::test]
async fn a_torn_append_is_cut_off() {
    for skip_truncate in [false, true] {
        let (files, store, kept) = started().await;
        files.fail(Call::Write, "index", 0, StorageFull);
        if skip_truncate {
            files.fail(Call::Truncate, "index", 0, Other);
        }
        let error = put(&store, &hold("task/1"), noise(2, 10_000)).await.unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        let later = put(&store, &hold("task/2"), noise(3, 10_000)).await.unwrap();
        let store = power::open(&files.after_power_loss()).await;
        verified(&store, &[kept, later]).await;
        assert_eq!(store.usage().objects, 2);
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_passes() {
    let (files, store, kept) = started().await;
    files.limit(files.bytes() + 30_000);
    let error = put(&store, &hold("task/1"), noise(2, 100_000)).await.unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("spool-"), "{error}");
    // What there is no room for in a whole segment still fits as a short file.
    put(&store, &hold("small"), noise(3, 60_000)).await.unwrap_err();
    let small = put(&store, &hold("small"), noise(3, 20_000)).await.unwrap();
    assert!(files.content(Path::new("/blobs/spool-00000002")).is_none(), "an unfinished file is left");
    files.limit(usize::MAX);
    let later = put(&store, &hold("task/1"), noise(2, 100_000)).await.unwrap();
    verified(&store, &[kept, small, later]).await;
}

#[tokio::test]
async fn a_store_opens_on_a_full_disk() {
    let (files, store, kept) = started().await;
    put(&store, &hold("gone"), noise(2, 10_000)).await.unwrap();
    store.release(&hold("gone")).await.unwrap();
    store.close().await;
    files.limit(files.bytes());
    let store = power::open(&files).await;
    assert_eq!(read_all(&store, kept).await.unwrap(), noise(1, 10_000));
    assert_eq!(store.usage().objects, 1);
}

#[tokio::test]
async fn every_call_may_fail_once_and_nothing_acknowledged_is_lost() {
    let calls = [
        (Call::Write, "spool"),
        (Call::Sync, "spool"),
        (Call::Allocate, "spool"),
        (Call::SyncDir, "blobs"),
        (Call::Remove, "spool"),
        (Call::Write, "index"),
        (Call::Sync, "index"),
        (Call::Rename, "index.new"),
        (Call::Truncate, "index"),
    ];
    for (call, name) in calls {
        for skip in 0..6 {
            let (files, store, kept) = started().await;
            files.fail(call, name, skip, Other);
            let mut stored = vec![kept];
            for step in 0..12 {
                let keeper = hold(&format!("task/{step}"));
                let object = noise(10 + step, 50_000);
                stored.extend(put(&store, &keeper, object).await);
                if step % 3 == 2 && store.release(&keeper).await.is_ok() {
                    stored.retain(|object| {
                        object.digest != sheaf_domain::Digest::of(&noise(10 + step, 50_000))
                    });
                }
            }
            verified(&store, &stored).await;
            let store = power::open(&files.after_power_loss()).await;
            verified(&store, &stored).await;
            assert!(stored.len() >= 8, "{call:?} {name} {skip}: only {} were stored", stored.len());
        }
    }
}

#[tokio::test]
async fn writers_that_wait_together_share_a_flush() {
    const LEN: usize = 256 * 1024;
    let files = FaultyFiles::new(1);
    let options = OpenOptions { segment_len: ByteSize::from_mib(8), ..OpenOptions::default() };
    let store = DiskBlobs::open_on(Arc::new(files.clone()), Path::new("/blobs"), options).await.unwrap();
    let mut writers = Vec::new();
    for idx in 0..20 {
        let mut writer = store.writer(&hold("all"), LEN as u64).await.unwrap();
        writer.write(noise(100 + idx, LEN)).await.unwrap();
        writers.push(writer);
    }
    let before = files.flushes();
    // One thread: all of them ask before the first commit begins.
    let scope = TaskScope::new();
    let tasks: Vec<_> = writers.into_iter().map(|writer| scope.spawn(writer.finish(None))).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(files.flushes() - before, 2, "one of the spool file, one of the index");
    assert_eq!(store.held(&hold("all")).await.unwrap().len(), 20);
}
