//! A participant: enrols, waits for work, has it done by what the site chose, hands in the result, and goes on.
//!
//! What the server has not answered for is on disk and survives a restart. The participant decides nothing about a round; it
//! takes no command, path or limit from the server.

mod beat;
mod download;
mod enrol;
mod event;
mod home;
mod link;
mod results;
mod state;
mod upload;
mod work;

use std::path::PathBuf;
use std::sync::Arc;

use sheaf_domain::{SiteName, Span};
use sheaf_messages::{Order, Withdrawal, v1};
use sheaf_pki::Kit;
use sheaf_runtime::{Clock, Compute, Entropy, OsEntropy, Shutdown, SystemClock};
use tokio::sync::Semaphore;

pub use event::{Event, EventSink};
pub use link::{Auth, LinkOptions, TransportKind};
pub use work::{Done, Job, Worker};

use crate::Error;
use crate::transport::{Retry, RetryPolicy};
use home::Home;
use link::{Link, Maker};
use results::StoredResult;
use state::{Parts, State};

/// What a participant is made from.
#[derive(Debug)]
pub struct JoinOptions {
    /// The site's directory; made if it is not there.
    pub dir: PathBuf,
    /// The kit; needed the first time, and after a new invitation.
    pub kit: Option<Kit>,
    /// How the server is reached.
    pub link: LinkOptions,
    /// What does the work.
    pub worker: Arc<dyn Worker>,
    /// The most tasks at once, at least 1.
    pub tasks_max: usize,
    /// How calls that fail for a passing reason are tried again.
    pub retry: RetryPolicy,
    /// Takes what happens.
    pub events: EventSink,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The pool for hashing and for files.
    pub compute: Compute,
}

impl JoinOptions {
    /// The options for a directory and a worker, with this machine's clock and randomness.
    pub fn new(dir: impl Into<PathBuf>, worker: Arc<dyn Worker>) -> JoinOptions {
        JoinOptions {
            dir: dir.into(),
            kit: None,
            link: LinkOptions::default(),
            worker,
            tasks_max: 1,
            retry: RetryPolicy::default(),
            events: EventSink::default(),
            clock: SystemClock::shared(),
            entropy: OsEntropy::shared(),
            compute: Compute::for_this_machine(),
        }
    }
}

/// An enrolled participant, ready to run.
#[derive(Debug)]
pub struct Participant {
    state: Arc<State>,
    tasks_max: usize,
}

/// Enrols the site by its kit, or takes up the identity it has.
///
/// Waits while an operator has to approve the site.
///
/// # Errors
/// [`Error::Setting`] without a kit for a site that is not enrolled, or for options that do not go together;
/// [`Error::InUse`]; [`Error::Refused`] with what the server said; [`Error::Pki`], [`Error::File`].
/// # Cancel safety
/// Safe: the key is kept, and the same key may enrol again.
pub async fn join(options: JoinOptions) -> Result<Participant, Error> {
    options.link.check()?;
    let JoinOptions { dir, kit, link, worker, tasks_max, retry, events, clock, entropy, compute } = options;
    let home = Home::open(&dir)?;
    let maker = Maker { options: link, clock: Arc::clone(&clock), entropy: Arc::clone(&entropy) };
    let retry = Retry { policy: retry, clock: Arc::clone(&clock), entropy };
    let (enrolled, key) = enrol::identity(&home, kit.as_ref(), &maker, &retry, &events).await?;
    let link = Link::new(maker, enrolled, key)?;
    let state = State::new(Parts { link, home, retry, compute, clock, worker, events });
    Ok(Participant { state: Arc::new(state), tasks_max: tasks_max.max(1) })
}

impl Participant {
    /// The site's name.
    pub fn site(&self) -> SiteName {
        self.state.link.enrolled().site
    }

    /// Works until a shutdown is asked for, then says goodbye.
    ///
    /// # Errors
    /// [`Error::Revoked`] when the server will not have this site any more; [`Error::File`] when the site's directory
    /// cannot be read.
    /// # Cancel safety
    /// Dropped, it ends at once: results that are not handed in stay on disk for the next start.
    pub async fn run(self, mut shutdown: Shutdown) -> Result<(), Error> {
        let state = self.state;
        // A dropped run takes its tasks with it.
        let _guard = state.stop.clone().drop_guard();
        while beat::has_ended(&state, state.clock.now()) && !state.stop.is_cancelled() {
            tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                () = renew_first(&state) => {}
            }
        }
        resume_left_over(&state)?;
        let stop = state.stop.clone();
        for side in [side(beat::beats(Arc::clone(&state))), side(beat::renewals(Arc::clone(&state)))] {
            state.scope.spawn(stop.clone().run_until_cancelled_owned(side));
        }
        tokio::select! {
            biased;
            () = shutdown.requested() => {}
            () = stop.cancelled() => {}
            () = take_work(&state, self.tasks_max) => {}
        }
        stop.cancel();
        state.scope.finished().await;
        match state.ended_by() {
            Some(error) => Err(error),
            None => {
                leave(&state).await;
                Ok(())
            }
        }
    }
}

fn side(
    task: impl Future<Output = ()> + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(task)
}

/// Renews a certificate that has ended before anything else; the server judges whether it still may be.
async fn renew_first(state: &State) {
    beat::renew(state).await;
    if beat::has_ended(state, state.clock.now()) {
        tokio::time::sleep(state.retry.pause(u32::MAX).as_duration()).await;
    }
}

fn resume_left_over(state: &Arc<State>) -> Result<(), Error> {
    for result in StoredResult::left_over(&state.home.tasks_dir())? {
        if state.begin(result.task()).is_some() {
            state.scope.spawn(work::resume(Arc::clone(state), result));
        }
    }
    Ok(())
}

/// Waits for work and begins it, as much at once as allowed.
async fn take_work(state: &Arc<State>, tasks_max: usize) {
    let places = Arc::new(Semaphore::new(tasks_max));
    let mut failures = 0;
    loop {
        // Work is asked for only when there is a place for it.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match next(state).await {
            Ok(orders) => {
                failures = 0;
                state.answered();
                let mut place = Some(place);
                for order in orders {
                    let Some(place) = place.take().or_else(|| Arc::clone(&places).try_acquire_owned().ok())
                    else {
                        break;
                    };
                    if let Some(cancel) = state.begin(order.assignment.task) {
                        let work = work::run(Arc::clone(state), Arc::new(order), cancel);
                        state.scope.spawn(async move {
                            work.await;
                            drop(place);
                        });
                    }
                }
            }
            Err(error) => {
                beat::failed(state, &error).await;
                let pause = state.retry.pause(failures).max(error.retry_after().unwrap_or_default());
                failures += 1;
                tokio::time::sleep(pause.as_duration()).await;
            }
        }
    }
}

async fn next(state: &State) -> Result<Vec<Order>, Error> {
    let have = state.tasks().iter().map(ToString::to_string).collect();
    let request = v1::NextRequest { have, hold_ms: HOLD.as_millis() };
    let reply = state.link.transport().next(request).await?;
    let bad = |error: sheaf_messages::Error| Error::bad_answer("next", error);
    for withdrawn in &reply.withdrawn {
        state.withdraw(Withdrawal::from_wire(withdrawn).map_err(bad)?);
    }
    let site = state.link.enrolled().site;
    let orders = reply.work.iter().map(|order| {
        let order = Order::from_wire(order).map_err(bad)?;
        if order.assignment.site != site {
            return Err(Error::bad_answer("next", format!("work of site {}", order.assignment.site)));
        }
        Ok(order)
    });
    orders.collect()
}

async fn leave(state: &State) {
    match tokio::time::timeout(LEAVE.as_duration(), state.link.transport().leave()).await {
        Ok(Ok(_)) => state.events.emit(Event::Left),
        Ok(Err(error)) => tracing::info!(%error, "the server could not be told goodbye"),
        Err(_) => tracing::info!("the server did not answer a goodbye"),
    }
}

const HOLD: Span = Span::from_secs(30);
const LEAVE: Span = Span::from_secs(5);
