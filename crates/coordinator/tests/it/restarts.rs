//! The same bits after a restart in the middle of every step.

use sheaf_domain::{Digest, JournalId, RunPhase, Span};

use crate::world::{Backend, Site, World, on_both, plan};

on_both!(a_restart_at_any_step_changes_no_bit);

/// Drives a run and restarts the coordinator before step number `restart_at`; returns the model's digest and the steps taken.
async fn drive(world: &mut World, sites: &[Site], restart_at: usize) -> (Digest, usize) {
    let mut steps = 0;
    let mut step = async |world: &mut World| {
        steps += 1;
        if steps == restart_at {
            world.restart().await;
        }
    };
    world.present(sites).await;
    step(world).await;
    let run = world.create(&plan(2, 3, "[task.evaluate]\nevery = 1\n[strategy]\nkind = \"fedyogi\"")).await;
    loop {
        step(world).await;
        if world.rested(run).await.phase.is_over() {
            break;
        }
        for site in sites {
            let orders = world.orders(site).await;
            for order in orders {
                step(world).await;
                if let Some((slot, _)) = order.expects.first() {
                    let result = world.result(site, &order).await.unwrap();
                    let manifest = world.upload(site, &order, &result).await.unwrap();
                    step(world).await;
                    // What was acknowledged is there; nothing is uploaded again.
                    let objects = manifest.objects();
                    let missing = world.handle.missing(&site.who, order.assignment.task, &objects).await;
                    assert_eq!(missing.unwrap(), []);
                    let slots = vec![sheaf_domain::SubmittedSlot { slot: slot.clone(), manifest }];
                    let weight = crate::world::num_examples(&site.who.name);
                    let submission = crate::world::submission(order.assignment.task, slots, weight);
                    world.handle.submit(&site.who, submission.clone()).await.unwrap();
                    step(world).await;
                    // The client did not hear the answer and asks again.
                    let again = world.handle.submit(&site.who, submission).await.unwrap();
                    assert_eq!(again, sheaf_domain::SubmitOutcome::Duplicate);
                } else {
                    world.work(site, &order).await.unwrap();
                }
            }
        }
    }
    let status = world.status(run).await;
    assert!(matches!(status.phase, RunPhase::Finished { .. }), "{:?}", status.phase);
    let kinds = world.kinds(JournalId::Run(run)).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "folded").count(), 3);
    assert_eq!(kinds.iter().filter(|kind| *kind == "submitted").count(), 1 + 2 * 3 + 2 * 3);
    (world.digest(run).await, steps)
}

async fn a_restart_at_any_step_changes_no_bit(backend: Backend) {
    let mut world = World::start(backend).await;
    let sites = world.sites(3).await;
    let (undisturbed, steps) = drive(&mut world, &sites, 0).await;
    let stride = if backend == Backend::Memory { 1 } else { 4 };
    for restart_at in (1..=steps).step_by(stride) {
        let (digest, _) = drive(&mut world, &sites, restart_at).await;
        assert_eq!(digest, undisturbed, "restarted at step {restart_at} of {steps}");
    }
}

#[tokio::test]
async fn deadlines_and_liveness_go_on_after_a_restart() {
    let mut world = World::start(Backend::Memory).await;
    let sites = world.sites(2).await;
    world.present(&sites).await;
    let run = world.create(&plan(1, 2, "").replace("min = 2", "min = 1\ndeadline = \"5m\"")).await;
    let init = world.until(run, |status| !status.waits.is_empty()).await;
    assert_eq!(init.round, 0);
    world.restart().await;
    // Those who were there get their full time again, and are not said to have been heard of.
    let overview = world.handle.sites(&world.operator).await.unwrap();
    assert!(overview.iter().all(|site| site.present));
    world.clock.advance(Span::from_secs(59));
    world.present(&sites[..1]).await;
    assert!(world.status(run).await.sites.iter().all(|site| site.presence == "present"));
    world.clock.advance(Span::from_secs(2));
    let status = world.until(run, |status| status.sites.iter().any(|site| site.presence == "lost")).await;
    let lost: Vec<_> = status.sites.iter().filter(|site| site.presence == "lost").collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].site, sites[1].who.name);
    world.restart().await;
    world.clock.advance(Span::from_secs(600));
    let kinds = async || world.kinds(JournalId::Run(run)).await;
    world.until(run, |_| true).await;
    loop {
        if kinds().await.iter().any(|kind| kind == "deadline_passed") {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn sightings_are_written_down_at_the_end() {
    let mut world = World::start(Backend::Memory).await;
    let sites = world.sites(1).await;
    world.present(&sites).await;
    world.stop().await;
    let kept = world.store.site(&sites[0].who.name).await.unwrap().unwrap();
    assert_eq!(kept.last_seen.map(|seen| seen.as_millis()), Some(1_800_000_000_000));
    world.boot().await.unwrap();
    let overview = world.handle.sites(&world.operator).await.unwrap();
    assert_eq!(overview[0].last_seen, kept.last_seen);
    assert!(!overview[0].present);
}

#[tokio::test]
async fn a_held_request_ends_with_the_server() {
    let mut world = World::start(Backend::Memory).await;
    let sites = world.sites(1).await;
    let (handle, who) = (world.handle.clone(), sites[0].who.clone());
    let held = async move { handle.next(&who, &[], crate::world::HOLD_MAX).await };
    let (answer, ()) = tokio::join!(held, async {
        world.present(&sites).await;
        world.stop().await;
    });
    assert_eq!(answer.unwrap(), []);
    let late = world.handle.create_run(&world.operator, crate::world::request(&plan(1, 2, ""))).await;
    assert_eq!(late.unwrap_err().kind(), sheaf_domain::ErrorKind::Unavailable);
}
