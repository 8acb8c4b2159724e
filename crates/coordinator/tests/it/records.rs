//! What is on record: replay of every round, backups of a live server, what is not kept.

use sheaf_coordinator::{BLOBS_DIR, COMPLETE_FILE, CreateRun, ReplayVerdict, STATE_FILE};
use sheaf_domain::{ErrorKind, JournalId, RunPhase, Span};
use sheaf_pki::{PublicKey, verify_head};

use crate::world::{Backend, HOLD_MAX, Model, World, on_both, plan, request};

on_both!(
    a_replay_reproduces_every_round_when_updates_are_kept,
    a_warm_started_adaptive_run_is_replayed_from_its_first_round,
    a_replay_says_what_is_not_kept,
    journals_are_read_and_signed,
    a_journal_is_read_no_further_by_an_operator_who_was_revoked,
);

async fn a_journal_is_read_no_further_by_an_operator_who_was_revoked(backend: Backend) {
    let mut world = World::start(backend).await;
    let who = world.known_operator("other").await;
    let newest = world.journal(JournalId::Federation).await.last().map_or(0, |entry| entry.seq);
    let read = world.handle.journal(&who, JournalId::Federation, newest, 9, HOLD_MAX);
    let revoke = world.handle.revoke(&world.operator, &who.name, "left".to_owned());
    // It waits for what comes, and the first that comes is its own end.
    let (read, revoked) = tokio::join!(read, revoke);
    revoked.unwrap();
    let refused = read.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::PermissionDenied && refused.to_string().contains("left"),
        "{refused}"
    );
}

async fn a_replay_reproduces_every_round_when_updates_are_kept(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(3).await;
    for (kind, more) in [
        ("fedavg", ""),
        ("fedadam", ""),
        ("fedavgm", ""),
        ("median", ""),
        ("krum", "byzantine = 0\nkeep = 2\n"),
        ("fedavg", "clip = { norm_ratio = 0.5 }\n"),
    ] {
        let keep = "keep_updates = \"run\"\nkeep_models = \"round\"";
        let plan = plan(3, 3, &format!("{keep}\n[strategy]\nkind = \"{kind}\"\n{more}"));
        let run = world.create(&plan).await;
        world.drive(run, &sites).await;
        world.restart().await;
        let report = world.handle.replay(&world.operator, run).await.unwrap();
        assert_eq!(report.rounds.len(), 4, "{kind}: {report:?}");
        for round in &report.rounds {
            assert_eq!(round.verdict, ReplayVerdict::Same, "{kind}, round {}", round.round);
        }
        assert_eq!(report.rounds.last().unwrap().digest, world.digest(run).await);
        assert_eq!(report.entries, world.journal(JournalId::Run(run)).await.len() as u64);
    }
    let holds = world.blob.holds().await.unwrap();
    assert!(holds.iter().all(|hold| !hold.as_str().contains("replay")), "{holds:?}");
}

async fn a_warm_started_adaptive_run_is_replayed_from_its_first_round(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(2).await;
    let keep = "keep_updates = \"run\"\nkeep_models = \"round\"\n[strategy]\nkind = \"fedadam\"";
    let first = world.create(&plan(2, 2, keep)).await;
    world.drive(first, &sites).await;
    let warm = CreateRun { from: Some(first), ..request(&plan(3, 2, keep)) };
    let second = world.handle.create_run(&world.operator, warm).await.unwrap();
    world.drive(second, &sites).await;
    world.restart().await;
    let report = world.handle.replay(&world.operator, second).await.unwrap();
    assert_eq!(report.rounds.len(), 3);
    for round in &report.rounds {
        assert_eq!(round.verdict, ReplayVerdict::Same, "round {}", round.round);
    }
}

async fn a_replay_says_what_is_not_kept(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(2).await;
    let run = world.create(&plan(2, 2, "")).await;
    world.drive(run, &sites).await;
    // Bytes are freed beside the run; a stop waits for that.
    world.restart().await;
    let report = world.handle.replay(&world.operator, run).await.unwrap();
    // The first model was adopted as it came and is kept itself.
    for round in &report.rounds[1..] {
        let ReplayVerdict::NotKept { reason } = &round.verdict else { panic!("{report:?}") };
        assert!(reason.contains("keep_updates"), "{reason}");
    }
    let unknown =
        world.handle.replay(&world.operator, sheaf_domain::RunId::new(5).unwrap()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

async fn journals_are_read_and_signed(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(1).await;
    let handle = &world.handle;
    let entries =
        handle.journal(&world.operator, JournalId::Federation, 0, 0, Span::default()).await.unwrap();
    assert_eq!(entries.len(), 1);
    let all = handle.journal(&world.operator, JournalId::Federation, 1, 100, Span::default()).await.unwrap();
    assert_eq!(all[0].kind, "site_enrolled");
    let head = handle.signed_head(&world.operator, JournalId::Federation).await.unwrap();
    let key = PublicKey::from_pem(&handle.journal_key_pem()).unwrap();
    verify_head(&key, head.journal, head.seq, &head.hash, &head.signature).unwrap();
    let nothing = handle.journal(&world.operator, JournalId::Federation, head.seq, 9, Span::default()).await;
    assert_eq!(nothing.unwrap(), []);
    assert!(handle.journal(&sites[0].who, JournalId::Federation, 0, 9, Span::default()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_live_server_continues_where_it_was_taken() {
    let mut world = World::start(Backend::Disk).await;
    let key_file = world.dir.path().join("key.pem");
    std::fs::write(&key_file, "secret").unwrap();
    world.settings.backup_files = vec![(key_file, "key.pem".to_owned())];
    world.restart().await;
    let sites = world.sites(3).await;
    world.present(&sites).await;
    let run = world.create_from_file(&plan(2, 3, "[model]\ninit = \"a.npz\""), &Model::zeros()).await;
    let order = world.order(&sites[0]).await;
    world.work(&sites[0], &order).await.unwrap();
    let half = world.order(&sites[1]).await;
    let result = world.result(&sites[1], &half).await.unwrap();
    world.upload(&sites[1], &half, &result).await.unwrap();

    let dir = world.dir.path().join("backup");
    let (report, ended) =
        tokio::join!(world.handle.backup(&world.operator, dir.clone()), world.drive(run, &sites),);
    let report = report.unwrap();
    assert!(report.objects >= 3, "{report:?}");
    assert!(matches!(ended.phase, RunPhase::Finished { .. }));
    let digest = world.digest(run).await;
    for name in [COMPLETE_FILE, "key.pem", STATE_FILE, BLOBS_DIR] {
        assert!(dir.join(name).exists(), "{name}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let again = world.handle.backup(&world.operator, dir.clone()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);

    // The copy takes the place of the data, and the run comes to the same end.
    world.crash().await;
    world.swap_in(&dir).await;
    world.boot().await.unwrap();
    world.drive(run, &sites).await;
    assert_eq!(world.digest(run).await, digest);
}
