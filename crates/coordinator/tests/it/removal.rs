//! Removing a run: journal and bytes go, the federation's journal remembers, and no crash leaves half of either.

use std::sync::atomic::Ordering;

use sheaf_coordinator::Force;
use sheaf_domain::{ErrorKind, JournalId, RunPhase, Span};

use crate::world::{Backend, World, on_both, plan, request};

on_both!(
    a_removed_run_leaves_its_name_and_its_end_behind,
    a_run_that_goes_on_is_removed_by_force_only,
    a_removal_cut_off_leaves_the_run_or_nothing_of_it,
    a_run_that_another_started_from_may_go,
);

async fn a_removed_run_leaves_its_name_and_its_end_behind(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(2).await;
    let run = world.create(&plan(2, 2, "keep_updates = \"run\"")).await;
    world.drive(run, &sites).await;
    world.settle().await;
    let (seq, hash) = world.store.head(JournalId::Run(run)).await.unwrap();
    let removed = world.handle.remove_run(&world.operator, run, Force::No).await.unwrap();
    assert_eq!((removed.run, removed.name.as_str()), (run, "test"));
    assert_eq!((removed.entries, removed.head), (seq, hash));
    assert_eq!(world.blob.holds().await.unwrap(), []);
    assert!(world.handle.runs(&world.operator).await.unwrap().is_empty());
    for text in ["test", &run.to_string()] {
        let gone = world.handle.find_run(&world.operator, text).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
    let again = world.handle.remove_run(&world.operator, run, Force::Yes).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
    let noted = world.journal(JournalId::Federation).await.pop().unwrap();
    let body: serde_json::Value = serde_json::from_str(&noted.body).unwrap();
    assert_eq!(noted.kind, "run_removed");
    assert_eq!((body["run"].as_str(), body["name"].as_str()), (Some(run.to_string().as_str()), Some("test")));
    assert_eq!(
        (body["entries"].as_u64(), body["head"].as_str()),
        (Some(seq), Some(hash.to_string().as_str()))
    );
    assert_eq!(body["by"], "op");

    // Nothing of it comes back, and its name is free.
    world.restart().await;
    assert!(world.handle.runs(&world.operator).await.unwrap().is_empty());
    let next = world.create(&plan(1, 2, "")).await;
    assert_eq!(world.handle.find_run(&world.operator, "test").await.unwrap(), next);
    let status = world.drive(next, &sites).await;
    assert!(matches!(status.phase, RunPhase::Finished { .. }), "{:?}", status.phase);
}

async fn a_run_that_goes_on_is_removed_by_force_only(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(1).await;
    let run = world.create(&plan(2, 1, "")).await;
    let other = world.create(&plan(1, 1, "")).await;
    world.present(&sites).await;
    let refused = world.handle.remove_run(&world.operator, run, Force::No).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("goes on"), "{refused}");
    world.handle.remove_run(&world.operator, run, Force::Yes).await.unwrap();
    let orders = world.handle.next(&sites[0].who, &[], Span::default()).await.unwrap();
    assert_eq!(orders.len(), 1, "the other run's work only: {orders:?}");
    assert!(matches!(world.drive(other, &sites).await.phase, RunPhase::Finished { .. }));
    let participant = world.handle.remove_run(&sites[0].who, other, Force::Yes).await.unwrap_err();
    assert_eq!(participant.kind(), ErrorKind::PermissionDenied);
}

async fn a_removal_cut_off_leaves_the_run_or_nothing_of_it(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(1).await;
    let run = world.create(&plan(1, 1, "keep_updates = \"run\"")).await;
    world.drive(run, &sites).await;
    let holds = world.blob.holds().await.unwrap().len();

    // The store dies before: the run is whole.
    world.faults.dead.store(true, Ordering::SeqCst);
    world.handle.remove_run(&world.operator, run, Force::No).await.unwrap_err();
    world.restart().await;
    assert!(matches!(world.status(run).await.phase, RunPhase::Finished { .. }));
    assert_eq!(world.blob.holds().await.unwrap().len(), holds);

    // It is done and the answer is lost: that is found out, and nothing is left.
    world.faults.after.store(true, Ordering::SeqCst);
    world.handle.remove_run(&world.operator, run, Force::No).await.unwrap();
    world.faults.after.store(false, Ordering::SeqCst);
    assert_eq!(world.blob.holds().await.unwrap(), []);
    world.handle.create_run(&world.operator, request(&plan(1, 1, ""))).await.unwrap();

    // Its journal is gone and its bytes are not: the start frees what no journal explains.
    let second = world.create(&plan(1, 1, "keep_updates = \"run\"")).await;
    world.drive(second, &sites).await;
    let journal = JournalId::Run(second);
    world.crash().await;
    let now = sheaf_runtime::Clock::now(&*world.clock).after(Span::from_secs(60));
    let lease = world.store.acquire_lease(journal, "x", Span::from_secs(1), now).await.unwrap();
    let federation =
        world.store.acquire_lease(JournalId::Federation, "x", Span::from_secs(1), now).await.unwrap();
    let note = sheaf_store::Append {
        journal: JournalId::Federation,
        lease_epoch: federation.epoch,
        expected_seq: world.store.head(JournalId::Federation).await.unwrap().0,
        entries: Vec::new(),
    };
    world.store.remove_journal(journal, lease.epoch, note).await.unwrap();
    world.clock.advance(Span::from_secs(120));
    world.boot().await.unwrap();
    let of_run = format!("run/{second}/");
    let left = world.blob.holds().await.unwrap();
    assert!(left.iter().all(|hold| !hold.as_str().starts_with(&of_run)), "{left:?}");
}

async fn a_run_that_another_started_from_may_go(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(1).await;
    let first = world.create(&plan(1, 1, "")).await;
    world.drive(first, &sites).await;
    let warm = sheaf_coordinator::CreateRun { from: Some(first), ..request(&plan(1, 1, "")) };
    let second = world.handle.create_run(&world.operator, warm).await.unwrap();
    world.handle.remove_run(&world.operator, first, Force::No).await.unwrap();
    assert!(matches!(world.drive(second, &sites).await.phase, RunPhase::Finished { .. }));
}
