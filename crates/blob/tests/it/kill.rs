//! A process is killed while it stores: what it acknowledged is there when the directory is opened again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use sheaf_blob::suite::{hold, noise, put};
use sheaf_blob::{BlobStore, DiskBlobs, OpenOptions};
use sheaf_domain::{ByteSize, Digest};

/// Where the child process stores; the test plays the child when it is set.
const DIR_VARIABLE: &str = "SHEAF_BLOB_KILL_DIR";
const KILLS: u64 = 12;

async fn open(dir: &Path) -> DiskBlobs {
    let options = OpenOptions { segment_len: ByteSize::from_bytes(512 * 1024), ..OpenOptions::default() };
    DiskBlobs::open(dir, options).await.unwrap()
}

/// Stores objects for ever, saying each one's digest when it is acknowledged; every fourth hold is released.
async fn store_for_ever(dir: &Path) {
    let store = open(dir).await;
    let first = store.holds().await.unwrap().len() as u64 * 1_000;
    for step in first.. {
        let keeper = hold(&format!("task/{step}"));
        let len = usize::try_from(1 + step * 7_919 % 60_000).unwrap();
        let stored = put(&store, &keeper, noise(step, len)).await.unwrap();
        say(&format!("stored {keeper} {}", stored.digest));
        if step % 4 == 0 {
            store.release(&keeper).await.unwrap();
            say(&format!("released {keeper} {}", stored.digest));
        }
    }
}

fn say(line: &str) {
    // Past the test harness's capture; whole lines reach the pipe at once.
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_acknowledged() {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        store_for_ever(Path::new(&dir)).await;
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<(String, Digest)> = Vec::new();
    for kill in 0..KILLS {
        for line in lines_until_killed(dir.path(), 3 + kill * 17 % 40) {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["stored", keeper, digest] => expected.push(((*keeper).to_owned(), digest.parse().unwrap())),
                ["released", keeper, _] => expected.retain(|(held, _)| held != keeper),
                _ => {}
            }
        }
        let store = open(dir.path()).await;
        for (keeper, digest) in &expected {
            let held = store.held(&hold(keeper)).await.unwrap();
            // A release that was on its way when the process was killed may have happened.
            let step: u64 = keeper.trim_start_matches("task/").parse().unwrap();
            assert!(
                held.iter().any(|(found, _)| found == digest) || step.is_multiple_of(4),
                "kill {kill}: {keeper}"
            );
            if !held.is_empty() {
                store.verify(digest).await.unwrap();
            }
        }
        store.close().await;
    }
    assert!(expected.len() as u64 >= KILLS, "the children must have stored something");
}

/// Runs this test as a child, kills it after `acknowledged` objects, and returns all it said.
fn lines_until_killed(dir: &Path, acknowledged: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::a_killed_process_loses_nothing_acknowledged", "--nocapture"])
        .env(DIR_VARIABLE, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    let mut seen = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        if line.starts_with("stored") {
            seen += 1;
        }
        lines.push(line);
        if seen == acknowledged {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= acknowledged, "the child ended by itself: {lines:?}");
    lines
}
