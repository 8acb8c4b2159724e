//! A process that appends is killed at random moments; what it was told is durable must be there.

use std::path::Path;

use sheaf_domain::rng::SeededRng;
use sheaf_store::StateStore;
use sheaf_testkit::victim;
use tempfile::TempDir;

use super::{append_to, checked_bodies, journal, lease, open, path_in};

const THIS_TEST: &str = "sqlite::crash::what_was_acknowledged_survives_kill_9";
const KILLS: u64 = 12;

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    if let Some(path) = victim::place() {
        return append_until_killed(Path::new(&path)).await;
    }
    let dir = TempDir::new().unwrap();
    let path = path_in(&dir);
    let mut moments = SeededRng::new(1, "crash moments");
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let lines = 1 + usize::try_from(moments.below(60)).unwrap();
        let said = victim::run_and_kill(THIS_TEST, &path, lines);
        acknowledged = said.last().unwrap().parse::<u64>().unwrap().max(acknowledged);
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

async fn append_until_killed(path: &Path) {
    let store = open(path).await;
    let (first, second) = (lease(&store, journal(1)).await, lease(&store, journal(2)).await);
    let (mut seq, _) = store.head(journal(1)).await.unwrap();
    loop {
        let body = (seq + 1).to_string();
        let batch = vec![append_to(&first, seq, &[&body]), append_to(&second, 2 * seq, &[&body, &body])];
        store.append(batch).await.unwrap();
        seq += 1;
        victim::say(&seq.to_string());
    }
}
