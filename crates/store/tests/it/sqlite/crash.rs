//! A process that appends is killed at random moments; what it was told is durable must be there.
//!
//! The test starts itself again as the process to be killed: with [`STORE`] set it appends until it dies.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use sheaf_domain::rng::SeededRng;
use sheaf_store::StateStore;
use tempfile::TempDir;

use super::{append_to, checked_bodies, journal, lease, open, path_in};

/// Names the store to the process that is to be killed.
const STORE: &str = "SHEAF_STORE_CRASH_TEST";
const KILLS: u64 = 12;
const ACKNOWLEDGED: &str = "acknowledged ";

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    if let Some(path) = std::env::var_os(STORE) {
        return append_until_killed(Path::new(&path)).await;
    }
    let dir = TempDir::new().unwrap();
    let path = path_in(&dir);
    let mut moments = SeededRng::new(1, "crash moments");
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        acknowledged = run_and_kill(&path, moments.below(60)).max(acknowledged);
        let store = open(&path).await;
        let first = checked_bodies(&store, journal(1)).await;
        let second = checked_bodies(&store, journal(2)).await;
        let kept = first.len() as u64;
        assert!(kept >= acknowledged, "kill {kill}: {acknowledged} acknowledged, {kept} kept");
        assert_eq!(second.len(), 2 * first.len(), "kill {kill}: half a batch was kept");
        let bodies = (1..=kept).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(first, bodies, "kill {kill}");
        // Nobody may have the file open when the next process dies: whoever opens it then has to recover it.
        store.close().await;
    }
    assert!(acknowledged >= KILLS, "only {acknowledged} appends were acknowledged in {KILLS} lives");
}

/// Runs the process until it has acknowledged `after` more appends; gives the number of the last one acknowledged.
fn run_and_kill(path: &Path, after: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::crash::what_was_acknowledged_survives_kill_9", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut last, mut seen) = (0, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Some(number) = line.unwrap().strip_prefix(ACKNOWLEDGED).map(str::to_owned) else {
            continue;
        };
        last = number.parse().unwrap();
        seen += 1;
        if seen == after + 1 {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(seen > after && !status.success(), "the process ended by itself: {status}");
    last
}

async fn append_until_killed(path: &Path) {
    let store = open(path).await;
    let (first, second) = (lease(&store, journal(1)).await, lease(&store, journal(2)).await);
    let (mut seq, _) = store.head(journal(1)).await.unwrap();
    loop {
        let body = (seq + 1).to_string();
        let batch = vec![append_to(&first, seq, &[&body]), append_to(&second, 2 * seq, &[&body, &body])];
        store.append(batch).await.unwrap();
        seq += 1;
        // The first line may follow the harness's own text, which has no line end yet.
        let line = format!("\n{ACKNOWLEDGED}{seq}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}
