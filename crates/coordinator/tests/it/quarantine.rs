//! A journal that is broken: its run is set aside by name, everything else goes on, and a repair brings it back.

use sheaf_coordinator::{Force, Which};
use sheaf_domain::{ErrorKind, JournalId, RunPhase, Span};
use sheaf_telemetry::CheckState;

use crate::faulty::Damage;
use crate::world::{Backend, World, on_both, plan};

on_both!(
    a_broken_journal_sets_its_run_aside_and_no_other,
    a_repaired_run_goes_on_as_if_nothing_had_been,
    a_run_found_broken_while_the_server_runs_is_set_aside,
    a_run_that_is_set_aside_is_removed_by_force,
);

async fn a_broken_journal_sets_its_run_aside_and_no_other(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(2).await;
    let keep = "keep_updates = \"run\"";
    let broken = world.create(&plan(2, 2, keep)).await;
    world.drive(broken, &sites).await;
    let whole = world.create(&plan(2, 2, "")).await;
    world.present(&sites).await;
    // Bytes are freed beside the runs; a stop waits for that.
    world.restart().await;
    let mut before = world.blob.holds().await.unwrap();
    before.sort_unstable_by_key(ToString::to_string);
    let entries = world.journal(JournalId::Run(broken)).await.len() as u64;
    for (damage, entry, says) in [
        (Damage::Changed(3), 3, "its content does not match its hash"),
        (Damage::Torn(4), 4, "damaged"),
        (Damage::CutBefore(5), 5, "it ends there"),
        (Damage::CutBefore(1), 1, "its entries are missing"),
        (Damage::Changed(1), 1, "its content does not match its hash"),
    ] {
        *world.faults.damage.lock().unwrap() = Some((JournalId::Run(broken), damage));
        world.restart().await;
        let told = format!("journal is broken at entry {entry}: ");
        let runs = world.handle.runs(&world.operator).await.unwrap();
        assert_eq!(runs.len(), 2, "{damage:?}");
        let status = world.status(broken).await;
        assert!(runs.contains(&status));
        let RunPhase::Broken { reason } = &status.phase else { panic!("{status:?}") };
        assert!(reason.contains(&told) && reason.contains(says), "{reason}");
        assert_eq!(status.name, if entry == 1 { "(unreadable)" } else { "test" });
        assert_eq!(world.handle.find_run(&world.operator, &broken.to_string()).await.unwrap(), broken);
        let health = world.health.report();
        let Some(CheckState::Degraded { reason }) = health.check("runs") else { panic!("{health:?}") };
        assert!(reason.contains(&told) && reason.contains(&broken.to_string()), "{reason}");
        assert!(health.is_serving());

        // Whatever is asked of it is refused in the same words.
        let (handle, operator, journal) = (&world.handle, &world.operator, JournalId::Run(broken));
        let refusals = [
            handle.replay(operator, broken).await.unwrap_err(),
            handle.journal(operator, journal, 0, 9, Span::default()).await.unwrap_err(),
            handle.signed_head(operator, journal).await.unwrap_err(),
            handle.stop(operator, broken, String::new()).await.unwrap_err(),
            handle.extend(operator, broken, 1).await.unwrap_err(),
            handle.model(operator, broken, Which::Last).await.unwrap_err(),
            handle.remove_run(operator, broken, Force::No).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.kind(), ErrorKind::Conflict);
            assert!(refusal.to_string().contains(&told), "{refusal}");
        }
        world.settle().await;
        let noted = world.kinds(JournalId::Federation).await;
        assert!(noted.iter().any(|kind| kind == "run_set_aside"), "{noted:?}");

        // Nothing of it is freed and nothing is appended.
        let mut after = world.blob.holds().await.unwrap();
        after.sort_unstable_by_key(ToString::to_string);
        assert_eq!(after, before);
        assert_eq!(world.store.head(journal).await.unwrap().0, entries);
    }
    let status = world.drive(whole, &sites).await;
    assert!(matches!(status.phase, RunPhase::Finished { .. }), "{:?}", status.phase);
}

async fn a_repaired_run_goes_on_as_if_nothing_had_been(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(2).await;
    let reference = world.create(&plan(2, 2, "")).await;
    world.drive(reference, &sites).await;
    let run = world.create(&plan(2, 2, "")).await;
    world.present(&sites).await;
    // One result is in and durable when the journal breaks.
    let order = world.orders(&sites[0]).await.into_iter().find(|order| order.assignment.run == run);
    if let Some(order) = order {
        world.work(&sites[0], &order).await.unwrap();
    }
    world.settle().await;
    *world.faults.damage.lock().unwrap() = Some((JournalId::Run(run), Damage::Changed(2)));
    world.restart().await;
    assert!(matches!(world.status(run).await.phase, RunPhase::Broken { .. }));
    *world.faults.damage.lock().unwrap() = None;
    world.restart().await;
    assert_eq!(world.health.report().check("runs"), Some(&CheckState::Ok));
    let status = world.drive(run, &sites).await;
    assert!(matches!(status.phase, RunPhase::Finished { .. }), "{:?}", status.phase);
    assert_eq!(world.digest(run).await, world.digest(reference).await);
}

async fn a_run_found_broken_while_the_server_runs_is_set_aside(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(1).await;
    let run = world.create(&plan(2, 1, "")).await;
    world.present(&sites).await;
    *world.faults.damage.lock().unwrap() = Some((JournalId::Run(run), Damage::Changed(1)));
    // A commit that fails makes the writer look at what is written.
    world.faults.every.store(1, std::sync::atomic::Ordering::SeqCst);
    world.handle.stop(&world.operator, run, String::new()).await.unwrap_err();
    world.faults.every.store(0, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(world.status(run).await.phase, RunPhase::Broken { .. }));
    // What it had given out is taken back.
    assert!(world.handle.next(&sites[0].who, &[], Span::default()).await.unwrap().is_empty());
}

async fn a_run_that_is_set_aside_is_removed_by_force(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(1).await;
    let run = world.create(&plan(1, 1, "keep_updates = \"run\"")).await;
    world.drive(run, &sites).await;
    *world.faults.damage.lock().unwrap() = Some((JournalId::Run(run), Damage::Torn(2)));
    world.restart().await;
    let removed = world.handle.remove_run(&world.operator, run, Force::Yes).await.unwrap();
    assert_eq!((removed.run, removed.name.as_str()), (run, "test"));
    assert!(world.handle.runs(&world.operator).await.unwrap().is_empty());
    assert_eq!(world.health.report().check("runs"), Some(&CheckState::Ok));
    // Which of the uploads were its own is known once it is gone.
    world.restart().await;
    assert_eq!(world.blob.holds().await.unwrap(), []);
}
