//! The disk under the store is full: a small filesystem of its own where the system allows one, else bounded files.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use sheaf_blob::files::{Files, LocalFiles};
use sheaf_blob::suite::{hold, noise, put};
use sheaf_blob::{BlobStore, DiskBlobs, Error, OpenOptions};
use sheaf_domain::{ByteSize, ErrorKind};

use sheaf_testkit::files::FaultyFiles;

/// Where a small filesystem is mounted; the test plays the process that sees it when it is set.
const DIR_VARIABLE: &str = "SHEAF_BLOB_FULL_DIR";
const DISK_BYTES: usize = 4 * 1024 * 1024;
const BALLAST_BYTES: usize = 1024 * 1024;
const OBJECT_LEN: usize = 200_000;

/// Fills a disk, makes room in both ways there are, and finds everything acknowledged after a restart.
async fn fill_and_go_on(files: Arc<dyn Files>, dir: &Path, remove_ballast: impl FnOnce()) {
    let open = || {
        let options = OpenOptions { segment_len: ByteSize::from_bytes(512 * 1024), ..OpenOptions::default() };
        DiskBlobs::open_on(Arc::clone(&files), dir, options)
    };
    let store = open().await.unwrap();
    let mut stored = Vec::new();
    let error = loop {
        let idx = stored.len() as u64;
        match put(&store, &hold(&format!("task/{idx}")), noise(idx, OBJECT_LEN)).await {
            Ok(object) => stored.push(object),
            Err(error) => break error,
        }
        assert!(stored.len() * OBJECT_LEN < DISK_BYTES, "the disk must become full");
    };
    assert!(matches!(&error, Error::DiskFull { path, .. } if path.starts_with(dir)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(stored.len() * OBJECT_LEN > DISK_BYTES / 2, "only {} objects were stored", stored.len());

    store.release(&hold("task/0")).await.unwrap();
    stored[0] = put(&store, &hold("task/again"), noise(900, OBJECT_LEN)).await.unwrap();
    put(&store, &hold("task/more"), noise(901, OBJECT_LEN)).await.unwrap_err();
    remove_ballast();
    stored.push(put(&store, &hold("task/more"), noise(901, OBJECT_LEN)).await.unwrap());
    store.close().await;
    let store = open().await.unwrap();
    assert_eq!(store.usage().objects, stored.len() as u64);
    for object in stored {
        store.verify(&object.digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_recovers() {
    if let Some(mount) = std::env::var_os(DIR_VARIABLE) {
        let ballast = Path::new(&mount).join("ballast");
        fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
        let dir = Path::new(&mount).join("blobs");
        fill_and_go_on(Arc::new(LocalFiles), &dir, || fs::remove_file(&ballast).unwrap()).await;
        return;
    }
    let files = FaultyFiles::new(1);
    files.limit(DISK_BYTES - BALLAST_BYTES);
    fill_and_go_on(Arc::new(files.clone()), Path::new("/blobs"), || files.limit(DISK_BYTES)).await;

    // The same on a real filesystem, where this process may mount one for itself.
    let mount = tempfile::tempdir().unwrap();
    let in_own_mounts = |program: &[&str]| {
        let script = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$0\" && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script]).arg(mount.path()).args(program);
        command.env(DIR_VARIABLE, mount.path()).output()
    };
    if !in_own_mounts(&["true"]).is_ok_and(|output| output.status.success()) {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let test = "full_disk::a_full_disk_refuses_and_recovers";
    let output = in_own_mounts(&[exe.to_str().unwrap(), "--exact", test, "--nocapture"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child ran no test");
}
