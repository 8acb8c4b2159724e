//! The disk store on real files: restarts, recycling, its format, and damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheaf_blob::suite::{hold, noise, put, read_all};
use sheaf_blob::{BlobStore, DiskBlobs, Error, OpenOptions};
use sheaf_domain::{ByteSize, Digest, ErrorKind};

fn options(max_bytes: u64) -> OpenOptions {
    OpenOptions {
        max_bytes: ByteSize::from_bytes(max_bytes),
        segment_len: ByteSize::from_bytes(16 * 1024),
        ..OpenOptions::default()
    }
}

async fn open(dir: &Path) -> Result<DiskBlobs, Error> {
    DiskBlobs::open(dir, options(1024 * 1024)).await
}

/// The spool files of a directory and their lengths.
fn spool_files(dir: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let files =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()));
    files.filter(|(name, _)| name.starts_with("spool-")).collect()
}

#[tokio::test]
async fn objects_and_holds_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let one = put(&store, &hold("task/1"), noise(1, 20_000)).await.unwrap();
    let two = put(&store, &hold("task/2"), noise(2, 100)).await.unwrap();
    let empty = put(&store, &hold("task/2"), noise(3, 0)).await.unwrap();
    let gone = put(&store, &hold("task/3"), noise(4, 100)).await.unwrap();
    assert!(store.hold(&one.digest, &hold("run/1")).await.unwrap());
    store.release(&hold("task/1")).await.unwrap();
    store.release(&hold("task/3")).await.unwrap();
    let usage = store.usage();
    store.close().await;
    // Once after a close, once after a mere drop.
    for _ in 0..2 {
        let store = loop {
            match open(dir.path()).await {
                // A dropped store lets go of the directory when its last commit has ended.
                Err(Error::Locked { .. }) => tokio::task::yield_now().await,
                store => break store.unwrap(),
            }
        };
        assert_eq!(store.usage(), usage);
        assert_eq!(store.holds().await.unwrap(), [hold("run/1"), hold("task/2")]);
        assert_eq!(store.held(&hold("run/1")).await.unwrap(), [(one.digest, 20_000)]);
        assert_eq!(read_all(&store, one).await.unwrap(), noise(1, 20_000));
        assert_eq!(read_all(&store, two).await.unwrap(), noise(2, 100));
        assert_eq!(read_all(&store, empty).await.unwrap(), noise(3, 0));
        assert_eq!(store.len(&gone.digest).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_directory_has_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let error = open(dir.path()).await.unwrap_err();
    assert!(matches!(&error, Error::Locked { path } if path.starts_with(dir.path())), "{error}");
    store.close().await;
    open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn spool_files_are_recycled_not_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let mut files = None;
    for round in 0..10 {
        for idx in 0..8 {
            put(&store, &hold("task/1"), noise(round * 8 + idx, 6_000)).await.unwrap();
        }
        let now = spool_files(dir.path());
        assert_eq!(files.get_or_insert_with(|| now.clone()), &now, "round {round}");
        store.release(&hold("task/1")).await.unwrap();
    }
    let lens: Vec<u64> = files.unwrap().into_values().collect();
    assert_eq!(lens, [4096 + 16 * 1024; 4]);
}

#[tokio::test]
async fn a_long_object_gets_a_file_of_its_own_in_place_of_empty_ones() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskBlobs::open(dir.path(), options(100_000)).await.unwrap();
    for idx in 0..4 {
        put(&store, &hold(&format!("task/{idx}")), noise(idx, 16_000)).await.unwrap();
    }
    assert_eq!(spool_files(dir.path()).len(), 4);
    let error = store.writer(&hold("task/9"), 50_000).await.unwrap_err();
    assert!(matches!(error, Error::Full { requested: 50_000, used: 65_536, max: 100_000 }), "{error}");
    for idx in 1..4 {
        store.release(&hold(&format!("task/{idx}"))).await.unwrap();
    }
    let long = put(&store, &hold("task/9"), noise(9, 50_000)).await.unwrap();
    assert_eq!(read_all(&store, long).await.unwrap(), noise(9, 50_000));
    assert!(store.usage().spool_bytes <= 100_000);
    assert!(spool_files(dir.path()).into_values().any(|len| len == 4096 + 53_248));
}

#[tokio::test]
async fn a_lowered_limit_removes_empty_files_when_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let kept = put(&store, &hold("kept"), noise(1, 16_000)).await.unwrap();
    for idx in 2..6 {
        put(&store, &hold("task/1"), noise(idx, 16_000)).await.unwrap();
    }
    store.release(&hold("task/1")).await.unwrap();
    store.close().await;
    let store = DiskBlobs::open(dir.path(), options(50_000)).await.unwrap();
    assert_eq!(spool_files(dir.path()).len(), 2);
    assert!(store.usage().spool_bytes <= 50_000);
    store.verify(&kept.digest).await.unwrap();
}

#[tokio::test]
async fn changed_bytes_are_found_by_verifying() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let stored = put(&store, &hold("task/1"), noise(1, 3_000)).await.unwrap();
    let file = fs::File::options().write(true).open(dir.path().join("spool-00000001")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 4096 + 1_500).unwrap();
    let error = store.verify(&stored.digest).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { expected, .. } if expected == stored.digest), "{error}");
}

#[tokio::test]
async fn the_index_stays_short_however_long_the_store_runs() {
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::new(sheaf_testkit::files::FaultyFiles::new(1));
    let store = DiskBlobs::open_on(Arc::clone(&files) as _, dir.path(), options(1024 * 1024)).await.unwrap();
    let kept = put(&store, &hold("kept"), noise(1, 1_000)).await.unwrap();
    let long = "x".repeat(230);
    let mut longest = 0;
    for round in 0..6_000 {
        let keeper = hold(&format!("task/{long}/{round}"));
        assert!(store.hold(&kept.digest, &keeper).await.unwrap());
        store.release(&keeper).await.unwrap();
        longest = longest.max(files.content(&dir.path().join("index")).unwrap().len());
    }
    assert!(longest < 1_100_000, "the index grew to {longest} bytes");
    store.close().await;
    let store = DiskBlobs::open_on(files, dir.path(), options(1024 * 1024)).await.unwrap();
    assert_eq!(store.holds().await.unwrap(), [hold("kept")]);
    store.verify(&kept.digest).await.unwrap();
}

/// What the kept directory of format 1 was made by.
async fn make_format_1(dir: &Path) {
    let store = open(dir).await.unwrap();
    put(&store, &hold("task/1"), noise(1, 3_000)).await.unwrap();
    put(&store, &hold("task/2"), noise(2, 5_000)).await.unwrap();
    put(&store, &hold("task/2"), noise(1, 3_000)).await.unwrap();
    store.release(&hold("task/1")).await.unwrap();
    put(&store, &hold("task/3"), noise(3, 0)).await.unwrap();
    put(&store, &hold("task/4"), noise(4, 4_096)).await.unwrap();
    store.hold(&Digest::of(&noise(2, 5_000)), &hold("run/1/version/opt.m/0")).await.unwrap();
    store.release(&hold("task/4")).await.unwrap();
    store.close().await;
}

const FORMAT_1_FILES: [&str; 2] = ["index", "spool-00000001"];

fn kept_format_1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format-1")
}

/// A copy of the kept directory of format 1.
fn copy_of_format_1() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in FORMAT_1_FILES {
        fs::copy(kept_format_1().join(name), dir.path().join(name)).unwrap();
    }
    dir
}

#[tokio::test]
async fn a_directory_of_format_1_opens() {
    let dir = copy_of_format_1();
    let store = open(dir.path()).await.unwrap();
    let holds = [hold("run/1/version/opt.m/0"), hold("task/2"), hold("task/3")];
    assert_eq!(store.holds().await.unwrap(), holds);
    let of = |seed, len: usize| (Digest::of(&noise(seed, len)), len as u64);
    let mut task_2 = vec![of(1, 3_000), of(2, 5_000)];
    task_2.sort_unstable();
    assert_eq!(store.held(&holds[0]).await.unwrap(), [of(2, 5_000)]);
    assert_eq!(store.held(&holds[1]).await.unwrap(), task_2);
    assert_eq!(store.held(&holds[2]).await.unwrap(), [of(3, 0)]);
    for (digest, _) in task_2 {
        store.verify(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_written_is_format_1() {
    let dir = tempfile::tempdir().unwrap();
    make_format_1(dir.path()).await;
    for name in FORMAT_1_FILES {
        let (kept, made) =
            (fs::read(kept_format_1().join(name)).unwrap(), fs::read(dir.path().join(name)).unwrap());
        assert!(kept == made, "{name} is not written as it was");
    }
}

#[tokio::test]
async fn another_format_version_is_refused_by_name() {
    for name in FORMAT_1_FILES {
        let dir = copy_of_format_1();
        let mut bytes = fs::read(dir.path().join(name)).unwrap();
        bytes[8] = 2;
        if name != "index" {
            let crc = crc32fast::hash(&bytes[..24]);
            bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(dir.path().join(name), bytes).unwrap();
        let error = open(dir.path()).await.unwrap_err();
        assert!(
            matches!(&error, Error::Format { found: 2, supported: 1, path } if path.ends_with(name)),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

#[tokio::test]
async fn a_flipped_bit_before_the_last_frame_is_refused_with_its_place() {
    let kept = fs::read(kept_format_1().join("index")).unwrap();
    let last_frame = kept.windows(4).rposition(|window| window == b"SFRM").unwrap();
    for at in (0..last_frame).step_by(7) {
        let dir = copy_of_format_1();
        let mut bytes = kept.clone();
        bytes[at] ^= 0x10;
        fs::write(dir.path().join("index"), &bytes).unwrap();
        match open(dir.path()).await.unwrap_err() {
            Error::Corrupt { path, offset, .. } => {
                assert!(path.ends_with("index"));
                assert!(offset <= at as u64, "byte {at} was found at {offset}");
            }
            Error::Format { .. } => assert!((8..12).contains(&at), "byte {at}"),
            other => panic!("byte {at}: {other}"),
        }
        assert_eq!(fs::read(dir.path().join("index")).unwrap(), bytes, "a refused index is left as it is");
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_wherever_it_is_torn() {
    let kept = fs::read(kept_format_1().join("index")).unwrap();
    let last_frame = kept.windows(4).rposition(|window| window == b"SFRM").unwrap();
    for len in last_frame..kept.len() {
        for zeros in [0, 100] {
            let dir = copy_of_format_1();
            let mut bytes = kept[..len].to_vec();
            bytes.resize(len + zeros, 0);
            fs::write(dir.path().join("index"), &bytes).unwrap();
            let store = open(dir.path()).await.unwrap();
            // The last frame was the release of `task/4`; without it the object is there, whole.
            assert_eq!(store.held(&hold("task/4")).await.unwrap().len(), 1, "{len} + {zeros}");
            store.verify(&Digest::of(&noise(4, 4_096))).await.unwrap();
        }
    }
}

#[tokio::test]
async fn missing_files_are_refused() {
    let dir = copy_of_format_1();
    fs::remove_file(dir.path().join("index")).unwrap();
    let error = open(dir.path()).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if path.ends_with("index")), "{error}");
    assert!(dir.path().join("spool-00000001").exists());

    let dir = copy_of_format_1();
    let spool = dir.path().join("spool-00000001");
    fs::remove_file(&spool).unwrap();
    assert!(matches!(open(dir.path()).await.unwrap_err(), Error::Corrupt { .. }));

    let dir = copy_of_format_1();
    fs::write(dir.path().join("spool-00000001"), b"not a spool file").unwrap();
    assert!(matches!(open(dir.path()).await.unwrap_err(), Error::Corrupt { .. }));
    assert!(dir.path().join("spool-00000001").exists(), "what was refused is not removed");
}

#[tokio::test]
async fn what_an_unfinished_start_left_is_removed() {
    let dir = copy_of_format_1();
    fs::write(dir.path().join("index.new"), b"half").unwrap();
    fs::write(dir.path().join("spool-00000007"), vec![0; 8_192]).unwrap();
    fs::write(dir.path().join("notes.txt"), b"somebody's").unwrap();
    open(dir.path()).await.unwrap();
    assert!(!dir.path().join("index.new").exists());
    assert!(!dir.path().join("spool-00000007").exists());
    assert!(dir.path().join("notes.txt").exists());
}
