//! A site's host: the real participant, started again whenever its process dies.

use std::sync::Arc;
use std::time::Duration;

use sheaf_client::participant::{Event, EventSink, LinkOptions};
use sheaf_client::transport::{ProxySettings, RetryPolicy, Timeouts};
use sheaf_client::{JoinOptions, join};
use sheaf_domain::{SiteName, Span, SubmitOutcome};
use sheaf_pki::Kit;
use sheaf_runtime::{Compute, SeededEntropy, Shutdown};

use crate::clock::SimClock;
use crate::model::SteadyWorker;
use crate::net::SimulatedTcp;
use crate::world::World;

/// How long a site waits before it looks again, or starts again.
const PAUSE: Duration = Duration::from_millis(500);

/// Takes part until the simulation ends.
pub(crate) async fn participate(world: Arc<World>, site_idx: usize) {
    let name = world.scenario.sites[site_idx].name.clone();
    let start = world.starts(&name);
    let kit = kit(&world, &name).await;
    for attempt in 0.. {
        let (_keep, shutdown) = Shutdown::manual();
        let entropy_seed = world.scenario.seed ^ (start << 32) ^ (attempt << 48) ^ (site_idx as u64 + 1);
        let ended = match join(options(&world, site_idx, kit.clone(), entropy_seed)).await {
            Ok(participant) => participant.run(shutdown).await,
            Err(error) => Err(error),
        };
        // Whatever it is, it would be started again; that the server would not have it must not happen.
        match ended {
            Err(error) if error.is_transient() => world.trace(&name, "gave up for now"),
            Err(error) => world.complain(format!("{name} ended: {error}")),
            Ok(()) => world.complain(format!("{name} ended unasked")),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits for the kit, which comes by another way than the network.
async fn kit(world: &World, name: &str) -> Kit {
    loop {
        let kit = world.notes().kits.get(name).cloned();
        match kit {
            Some(kit) => return kit,
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn options(world: &Arc<World>, site_idx: usize, kit: Kit, entropy_seed: u64) -> JoinOptions {
    let (scenario, site) = (&world.scenario, &world.scenario.sites[site_idx]);
    let worker = Arc::new(SteadyWorker { seed: scenario.seed, work_ms_max: scenario.work_ms_max });
    let timeouts = Timeouts {
        connect: Span::from_secs(5),
        control: Span::from_secs(10),
        piece: Span::from_secs(20),
        submit: Span::from_secs(30),
    };
    JoinOptions {
        kit: Some(kit),
        link: LinkOptions {
            transport: site.transport,
            auth: site.auth,
            proxy: ProxySettings::none().over(Arc::new(SimulatedTcp)),
            extra_roots: None,
            timeouts,
        },
        retry: RetryPolicy { give_up_after: Span::from_secs(60), ..RetryPolicy::default() },
        events: sink(Arc::clone(world), site.name.clone()),
        clock: SimClock::skewed(site.skew_ms),
        entropy: SeededEntropy::shared(entropy_seed),
        compute: Compute::on_the_spot(),
        ..JoinOptions::new(world.dir.path().join(&site.name), worker)
    }
}

fn sink(world: Arc<World>, name: String) -> EventSink {
    let site = SiteName::new(name.clone()).unwrap();
    EventSink::new(move |event| {
        match &event {
            Event::Answered { task, outcome: SubmitOutcome::Accepted | SubmitOutcome::Duplicate } => {
                world.notes().acknowledged.push((site.clone(), *task));
            }
            Event::Answered { task, outcome: SubmitOutcome::Refused { refusal } } => {
                world.complain(format!("{site}: task {task} was refused: {refusal}"));
            }
            _ => {}
        }
        let what = match &event {
            Event::Started { order } | Event::Training { order } => {
                let assignment = &order.assignment;
                format!("{} {}/{}#{}", event.name(), assignment.round, assignment.stage, assignment.attempt)
            }
            Event::Answered { task, outcome } => format!("answered {task}: {outcome:?}"),
            Event::Failed { task, reason } => format!("failed {task}: {reason}"),
            Event::Withdrawn { task, reason } => format!("withdrawn {task}: {reason}"),
            other => other.name().to_owned(),
        };
        world.trace(&name, &what);
    })
}
