//! The participant itself: from a kit to a finished run, through a restart, to its end.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sheaf_client::participant::{Auth, Done, Event, EventSink, Job, LinkOptions, TransportKind, Worker};
use sheaf_client::transport::RetryPolicy;
use sheaf_client::{Error, JoinOptions, join};
use sheaf_domain::{ErrorKind, Metrics, RunId, RunPhase, Span, SubmitOutcome};
use sheaf_messages::Order;
use sheaf_pki::Kit;
use sheaf_runtime::{OsEntropy, Shutdown, ShutdownPhase};
use tokio::sync::watch;

use crate::world::{Way, World, eventually, on_every_way};

on_every_way! {
    sites_work_a_run_to_its_end_and_leave,
    a_result_is_handed_in_after_a_restart,
    a_result_is_handed_in_after_an_outage,
    a_result_nobody_wants_after_an_outage_goes,
    a_revoked_site_ends_with_the_reason,
    a_trainer_that_fails_is_reported,
}

/// Hands back the model it was given, and counts how often it was asked.
#[derive(Debug, Default)]
struct Echo {
    jobs: AtomicUsize,
    fail: Option<&'static str>,
}

#[async_trait]
impl Worker for Echo {
    fn accept(&self, _: &Order) -> Result<(), String> {
        Ok(())
    }

    async fn work(&self, job: Job) -> Result<Done, String> {
        self.jobs.fetch_add(1, Ordering::SeqCst);
        assert!(job.scratch.is_dir());
        if let Some(reason) = self.fail {
            return Err(reason.to_owned());
        }
        let metrics = Metrics::from([("loss".to_owned(), 0.5)]);
        Ok(Done { outputs: job.inputs, num_examples: 3.0, metrics })
    }
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Event>>>);

impl Seen {
    fn sink(&self) -> EventSink {
        let seen = Arc::clone(&self.0);
        EventSink::new(move |event| seen.lock().unwrap().push(event))
    }

    fn any(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.0.lock().unwrap().iter().any(wanted)
    }
}

fn options(
    world: &World,
    way: Way,
    dir: &Path,
    kit: Option<Kit>,
    worker: &Arc<Echo>,
    seen: &Seen,
) -> JoinOptions {
    let (transport, auth) = match way {
        Way::Grpc => (TransportKind::Grpc, Auth::Certificate),
        Way::Https => (TransportKind::Https, Auth::Certificate),
        Way::Signed => (TransportKind::Https, Auth::Signed),
    };
    let worker: Arc<dyn Worker> = Arc::<Echo>::clone(worker);
    JoinOptions {
        kit,
        link: LinkOptions { transport, auth, ..LinkOptions::default() },
        events: seen.sink(),
        clock: Arc::<sheaf_runtime::ManualClock>::clone(&world.clock),
        entropy: OsEntropy::shared(),
        ..JoinOptions::new(dir, worker)
    }
}

fn shutdown() -> (watch::Sender<ShutdownPhase>, Shutdown) {
    Shutdown::manual()
}

async fn sites_work_a_run_to_its_end_and_leave(way: Way) {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (stop, asked) = shutdown();
    let worker = Arc::new(Echo::default());
    let mut running = Vec::new();
    for name in ["a", "b"] {
        let kit = world.kit(name).await;
        let seen = Seen::default();
        let options = options(&world, way, &dir.path().join(name), Some(kit), &worker, &seen);
        let participant = join(options).await.unwrap();
        assert_eq!(participant.site().as_str(), name);
        running.push((seen, participant));
    }
    let run = world.run(2, 2).await;
    let work = async {
        let [(first_seen, first), (_, second)] = <[_; 2]>::try_from(running).ok().unwrap();
        let (one, two) = tokio::join!(first.run(asked.clone()), second.run(asked.clone()));
        one.unwrap();
        two.unwrap();
        first_seen
    };
    let watch = async {
        eventually(async || world.handle.status(&world.operator, run).await.unwrap().phase.is_over()).await;
        stop.send_replace(ShutdownPhase::Draining);
    };
    let (seen, ()) = tokio::join!(work, watch);
    let status = world.handle.status(&world.operator, run).await.unwrap();
    assert!(matches!(status.phase, RunPhase::Finished { .. }), "{status:?}");
    assert_eq!(worker.jobs.load(Ordering::SeqCst), 4);
    assert!(seen.any(|event| matches!(event, Event::Answered { outcome: SubmitOutcome::Accepted, .. })));
    assert!(seen.any(|event| matches!(event, Event::Left)));
    let sites = world.handle.sites(&world.operator).await.unwrap();
    assert!(sites.iter().all(|site| !site.present), "{sites:?}");
    // Nothing of a task that was answered for stays behind.
    assert_eq!(std::fs::read_dir(dir.path().join("a/tasks")).unwrap().count(), 0);
}

async fn a_result_is_handed_in_after_a_restart(way: Way) {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (_stop, asked) = shutdown();
    let (worker, seen) = (Arc::new(Echo::default()), Seen::default());
    let kit = world.kit("a").await;
    let run = world.run(1, 1).await;
    world.uploads_closed.store(true, Ordering::SeqCst);
    let first = join(options(&world, way, dir.path(), Some(kit.clone()), &worker, &seen)).await.unwrap();
    let handing_in = eventually(async || seen.any(|event| matches!(event, Event::HandingIn { .. })));
    tokio::select! {
        ended = first.run(asked.clone()) => panic!("it ended: {ended:?}"),
        () = handing_in => {}
    }
    // The lock is let go when the tasks of the dropped participant have ended.
    let second = loop {
        match join(options(&world, way, dir.path(), Some(kit.clone()), &worker, &seen)).await {
            Err(Error::InUse { .. }) => tokio::task::yield_now().await,
            joined => break joined.unwrap(),
        }
    };
    world.uploads_closed.store(false, Ordering::SeqCst);
    tokio::select! {
        ended = second.run(asked) => panic!("it ended: {ended:?}"),
        () = eventually(async || world.handle.status(&world.operator, run).await.unwrap().phase.is_over()) => {}
    }
    assert!(seen.any(|event| matches!(event, Event::Resumed { .. })));
    assert_eq!(worker.jobs.load(Ordering::SeqCst), 1, "the work was done once");
}

/// Has a site give up on handing in a result because nothing gets through, does something in the meantime, and lets everything
/// through again; returns what the site told once none of its results is left.
async fn after_an_outage(way: Way, meanwhile: impl AsyncFnOnce(&World, RunId)) -> Seen {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (_stop, asked) = shutdown();
    let (worker, seen) = (Arc::new(Echo::default()), Seen::default());
    let kit = world.kit("a").await;
    let run = world.run(1, 1).await;
    world.uploads_closed.store(true, Ordering::SeqCst);
    let pause = Span::from_millis(10);
    let retry = RetryPolicy { pause, pause_max: pause, give_up_after: Span::from_millis(20) };
    let options = JoinOptions { retry, ..options(&world, way, dir.path(), Some(kit), &worker, &seen) };
    let participant = join(options).await.unwrap();
    let outage = async {
        eventually(async || seen.any(|event| matches!(event, Event::HandingIn { .. }))).await;
        // While it hands in, it waits for no other work, so nothing tells it what happens in the meantime.
        world.closed.store(true, Ordering::SeqCst);
        eventually(async || seen.any(|event| matches!(event, Event::Disconnected { .. }))).await;
        // In steps so small that the server does not count the site as gone.
        let gives_up = async || {
            world.clock.advance(Span::from_millis(30));
            seen.any(|event| matches!(event, Event::Failed { .. }))
        };
        eventually(gives_up).await;
        assert_eq!(results(dir.path()), 1, "it is kept");
        meanwhile(&world, run).await;
        world.uploads_closed.store(false, Ordering::SeqCst);
        world.closed.store(false, Ordering::SeqCst);
        eventually(async || results(dir.path()) == 0).await;
        // The files go first, then it is told.
        eventually(async || seen.any(|event| matches!(event, Event::Answered { .. }))).await;
    };
    tokio::select! {
        ended = participant.run(asked) => panic!("it ended: {ended:?}"),
        () = outage => {}
    }
    assert_eq!(worker.jobs.load(Ordering::SeqCst), 1, "the work was done once");
    seen
}

fn results(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("tasks")).unwrap().count()
}

async fn a_result_is_handed_in_after_an_outage(way: Way) {
    let seen = after_an_outage(way, async |_, _| {}).await;
    assert!(seen.any(|event| matches!(event, Event::Answered { outcome: SubmitOutcome::Accepted, .. })));
}

async fn a_result_nobody_wants_after_an_outage_goes(way: Way) {
    let seen = after_an_outage(way, async |world, run| {
        world.handle.stop(&world.operator, run, "enough".to_owned()).await.unwrap();
    })
    .await;
    assert!(seen.any(|event| matches!(event, Event::Resumed { .. })), "no order came again");
    assert!(
        seen.any(|event| matches!(event, Event::Answered { outcome: SubmitOutcome::TooLate { .. }, .. }))
    );
}

async fn a_revoked_site_ends_with_the_reason(way: Way) {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (_stop, asked) = shutdown();
    let (worker, seen) = (Arc::new(Echo::default()), Seen::default());
    let kit = world.kit("a").await;
    let participant = join(options(&world, way, dir.path(), Some(kit), &worker, &seen)).await.unwrap();
    let site = participant.site();
    let revoke = async {
        world.until_present(&site).await;
        world.revoke(&site).await;
    };
    let (ended, ()) = tokio::join!(participant.run(asked), revoke);
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("revoked"), "{error}");
}

async fn a_trainer_that_fails_is_reported(way: Way) {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (_stop, asked) = shutdown();
    let (worker, seen) =
        (Arc::new(Echo { fail: Some("the disk of the data is gone"), ..Echo::default() }), Seen::default());
    let kit = world.kit("a").await;
    let run = world.run(1, 1).await;
    let participant = join(options(&world, way, dir.path(), Some(kit), &worker, &seen)).await.unwrap();
    let told = eventually(async || {
        let status = world.handle.status(&world.operator, run).await.unwrap();
        let error = status.sites.first().and_then(|site| site.last_error.clone());
        error.is_some_and(|error| error.contains("the disk of the data is gone"))
    });
    tokio::select! {
        ended = participant.run(asked) => panic!("it ended: {ended:?}"),
        () = told => {}
    }
}

#[tokio::test]
async fn a_site_waits_for_approval_and_a_second_process_for_nothing() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (worker, seen) = (Arc::new(Echo::default()), Seen::default());
    let kit = world.kit_with("a", true).await;
    let joining = join(options(&world, Way::Grpc, dir.path(), Some(kit.clone()), &worker, &seen));
    let approve = async {
        eventually(async || seen.any(|event| matches!(event, Event::ApprovalAwaited { .. }))).await;
        let other =
            join(options(&world, Way::Grpc, dir.path(), Some(kit.clone()), &worker, &Seen::default())).await;
        assert!(matches!(other, Err(Error::InUse { .. })));
        let fingerprint = seen.0.lock().unwrap().iter().find_map(|event| match event {
            Event::ApprovalAwaited { fingerprint } => Some(*fingerprint),
            _ => None,
        });
        world.handle.approve(&world.operator, &kit.site, fingerprint.unwrap()).await.unwrap();
    };
    let (joined, ()) = tokio::join!(joining, approve);
    assert_eq!(joined.unwrap().site(), kit.site);
}

#[tokio::test]
async fn an_identity_is_kept_and_another_kit_does_not_fit_it() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (worker, seen) = (Arc::new(Echo::default()), Seen::default());
    let none = join(options(&world, Way::Https, dir.path(), None, &worker, &seen)).await.unwrap_err();
    assert!(none.to_string().contains("a kit is needed"), "{none}");
    let kit = world.kit("a").await;
    drop(join(options(&world, Way::Https, dir.path(), Some(kit), &worker, &seen)).await.unwrap());
    let again = join(options(&world, Way::Https, dir.path(), None, &worker, &seen)).await.unwrap();
    assert_eq!(again.site().as_str(), "a");
    drop(again);
    let other = world.kit("b").await;
    let refused =
        join(options(&world, Way::Https, dir.path(), Some(other), &worker, &seen)).await.unwrap_err();
    assert!(refused.to_string().contains("it belongs to site a"), "{refused}");
    // Revoked and invited again, the same directory comes in with a new key.
    world.revoke(&sheaf_domain::SiteName::new("a").unwrap()).await;
    let kit = world.kit("a").await;
    join(options(&world, Way::Https, dir.path(), Some(kit), &worker, &seen)).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("keys")).unwrap().count(), 2);
}
