//! A state store that fails: nothing that was told is lost, nothing that was not durable is told.

use std::sync::atomic::Ordering;

use sheaf_domain::{ErrorKind, JournalId, RunPhase, SubmitOutcome, SubmittedSlot};

use crate::world::{Backend, Site, World, num_examples, on_both, plan, submission};

on_both!(a_run_survives_a_store_that_fails_every_nth_append);

/// Calls until the answer is not one that asks to come again.
async fn patiently<T>(mut call: impl AsyncFnMut() -> Result<T, sheaf_coordinator::Error>) -> T {
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn drive(world: &World, sites: &[Site]) -> sheaf_domain::Digest {
    for site in sites {
        patiently(async || world.handle.next(&site.who, &[], sheaf_domain::Span::default()).await).await;
    }
    let request = crate::world::request(&plan(3, 3, ""));
    let run = patiently(async || world.handle.create_run(&world.operator, request.clone()).await).await;
    let mut accepted = 0;
    loop {
        let status = patiently(async || world.handle.status(&world.operator, run).await).await;
        if status.phase.is_over() {
            assert!(matches!(status.phase, RunPhase::Finished { .. }), "{:?}", status.phase);
            break;
        }
        for site in sites {
            for order in world.orders(site).await {
                let mut slots = Vec::new();
                if let Some((slot, _)) = order.expects.first() {
                    let result = patiently(async || world.result(site, &order).await).await;
                    let manifest = patiently(async || world.upload(site, &order, &result).await).await;
                    slots.push(SubmittedSlot { slot: slot.clone(), manifest });
                }
                let answer = submission(order.assignment.task, slots, num_examples(&site.who.name));
                match patiently(async || world.handle.submit(&site.who, answer.clone()).await).await {
                    SubmitOutcome::Accepted => accepted += usize::from(order.assignment.run == run),
                    other => panic!("{other:?}"),
                }
            }
        }
        tokio::task::yield_now().await;
    }
    let kinds = world.kinds(JournalId::Run(run)).await;
    let submitted = kinds.iter().filter(|kind| *kind == "submitted").count();
    assert_eq!(submitted, 1 + 3 * 3);
    // What was told and what is written are the same, also where the answer of the store was lost.
    assert_eq!(accepted, submitted);
    assert_eq!(kinds.iter().filter(|kind| *kind == "folded").count(), 4);
    world.digest(run).await
}

async fn a_run_survives_a_store_that_fails_every_nth_append(backend: Backend) {
    let world = World::start(backend).await;
    let sites = world.sites(3).await;
    let undisturbed = drive(&world, &sites).await;
    for every in [2, 3, 4, 7] {
        for after in [false, true] {
            world.faults.after.store(after, Ordering::SeqCst);
            world.faults.every.store(every, Ordering::SeqCst);
            assert_eq!(drive(&world, &sites).await, undisturbed, "every {every}, carried out: {after}");
        }
    }
}

#[tokio::test]
async fn nothing_is_told_of_a_run_until_its_journal_can_be_read_again() {
    let world = World::start(Backend::Memory).await;
    let sites = world.sites(2).await;
    world.present(&sites).await;
    let run = world.create(&plan(1, 2, "")).await;
    let before = world.status(run).await;
    let faults = &world.faults;
    faults.every.store(1, Ordering::SeqCst);
    faults.blind.store(true, Ordering::SeqCst);
    let refused = world.handle.stop(&world.operator, run, "now".to_owned()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(!world.health.report().is_serving());
    let unread = world.handle.status(&world.operator, run).await.unwrap_err();
    assert_eq!(unread.kind(), ErrorKind::Unavailable);
    assert!(unread.to_string().contains("being rebuilt"), "{unread}");
    let task = sheaf_domain::TaskId::derive(
        run,
        0,
        &sheaf_domain::StageName::new("init").unwrap(),
        &sites[0].who.name,
        1,
    );
    assert_eq!(
        world.handle.missing(&sites[0].who, task, &[]).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    faults.every.store(0, Ordering::SeqCst);
    faults.blind.store(false, Ordering::SeqCst);
    // It comes back by itself, as it was.
    let status = patiently(async || world.handle.status(&world.operator, run).await).await;
    assert_eq!(status.phase, before.phase);
    assert_eq!(status.waits, before.waits);
    world.drive(run, &sites).await;
    assert!(world.health.report().is_serving());
}

#[tokio::test]
async fn a_participant_that_came_while_nothing_could_be_written_is_taken_in_later() {
    let world = World::start(Backend::Memory).await;
    let sites = world.sites(2).await;
    let run = world.create(&plan(1, 2, "")).await;
    world.faults.every.store(1, Ordering::SeqCst);
    world.present(&sites).await;
    world.faults.every.store(0, Ordering::SeqCst);
    let status = patiently(async || world.handle.status(&world.operator, run).await).await;
    assert!(status.sites.is_empty(), "{status:?}");
    world.until(run, |status| status.sites.len() == 2).await;
    world.drive(run, &sites).await;
}

#[tokio::test]
async fn an_event_the_store_would_refuse_spoils_no_other() {
    let world = World::start(Backend::Memory).await;
    let sites = world.sites(1).await;
    world.present(&sites).await;
    // The store takes bodies of 16 MiB; a journal entry is checked before it joins a commit.
    let run = world.create(&plan(1, 1, "")).await;
    let order = world.order(&sites[0]).await;
    let long = "x".repeat(17 << 20);
    world.handle.fail(&sites[0].who, order.assignment.task, long).await.unwrap();
    let status = world.status(run).await;
    assert_eq!(status.sites[0].last_error.as_ref().map(String::len), Some(500));
}
