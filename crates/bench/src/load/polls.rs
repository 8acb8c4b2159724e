//! Many participants that mostly wait: each has a connection of its own, beats now and then and asks for work often.
//!
//! They begin spread over their interval, as participants that joined at different times do, so that the load is even.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use sheaf_domain::Span;
use sheaf_messages::v1;
use sheaf_runtime::{Clock, SystemClock, TaskScope};

use super::{Member, Party, Way, enrol_all};
use crate::Error;
use crate::histogram::Histogram;
use crate::process::{own_usage, raise_descriptor_limit, usage};

/// How often to ask what, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Who takes part.
    pub party: Party,
    /// How often a participant beats.
    pub beat_every: Span,
    /// How often it asks for work.
    pub poll_every: Span,
    /// For how long.
    pub duration: Span,
}

/// What the load saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Connections held.
    pub connections: u64,
    /// How long all enrolments together took, in seconds.
    pub enrol_seconds: f64,
    /// How long it took to open all connections, each with a first beat, in seconds.
    pub connect_seconds: f64,
    /// Beats answered.
    pub beats: u64,
    /// Polls answered.
    pub polls: u64,
    /// Calls that failed.
    pub errors: u64,
    /// The first failure, for people.
    pub first_error: Option<String>,
    /// The time half of all calls took at most, in milliseconds.
    pub latency_p50_ms: f64,
    /// The time 99 of 100 calls took at most, in milliseconds.
    pub latency_p99_ms: f64,
    /// The longest call, in milliseconds.
    pub latency_max_ms: f64,
    /// How long it went, in seconds.
    pub seconds: f64,
    /// CPU seconds of the server in that time.
    pub server_cpu_seconds: f64,
    /// Resident memory of the server with all connections open, in bytes; the greatest of what was seen.
    pub server_rss_bytes: u64,
    /// CPU seconds of the load in that time.
    pub client_cpu_seconds: f64,
    /// The most resident memory of the load, in bytes.
    pub client_peak_rss_bytes: u64,
}

/// Enrols all, opens all connections, then beats and polls.
///
/// # Errors
/// When a member cannot enrol or connect at first, or there are not enough descriptors; failures afterwards are counted.
/// # Cancel safety
/// Dropped, its connections close.
pub async fn run(job: Job) -> Result<Report, Error> {
    check_descriptors(job.party.kits.len() as u64)?;
    let clock = SystemClock::shared();
    let began = clock.monotonic();
    let members = enrol_all(&Way::of(&job.party)?, &job.party.kits).await?;
    let enrolled = clock.monotonic();
    connect(&members).await?;
    let connected = clock.monotonic();
    let tally = Arc::new(Tally::default());
    let connections = members.len() as u64;
    let (server_before, own_before) = (usage(job.party.server_pid)?, own_usage()?);
    let started = clock.monotonic();
    let scope = TaskScope::new();
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX).max(1);
    for (member, idx) in members.into_iter().zip(0_u32..) {
        for (ask, every) in [(Ask::Beat, job.beat_every), (Ask::Poll, job.poll_every)] {
            let first = every.as_duration() * idx / count;
            let round = Asking { ask, first, every: every.as_duration(), member: member.clone() };
            scope.spawn_until_cancelled(round.go_on(Arc::clone(&tally), Arc::clone(&clock)));
        }
    }
    let mut server_rss_bytes = server_before.rss_bytes;
    while clock.monotonic().saturating_sub(started) < job.duration.as_duration() {
        tokio::time::sleep(LOOK_EVERY.min(job.duration.as_duration())).await;
        server_rss_bytes = server_rss_bytes.max(usage(job.party.server_pid)?.rss_bytes);
    }
    let (server, own) = (usage(job.party.server_pid)?, own_usage()?);
    let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
    scope.cancel();
    let counted = tally.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Report {
        connections,
        enrol_seconds: enrolled.saturating_sub(began).as_secs_f64(),
        connect_seconds: connected.saturating_sub(enrolled).as_secs_f64(),
        beats: counted.beats,
        polls: counted.polls,
        errors: counted.errors,
        first_error: counted.first_error,
        latency_p50_ms: counted.latency.quantile_ms(0.5),
        latency_p99_ms: counted.latency.quantile_ms(0.99),
        latency_max_ms: counted.latency.max_ms(),
        seconds,
        server_cpu_seconds: server.cpu_seconds - server_before.cpu_seconds,
        server_rss_bytes,
        client_cpu_seconds: own.cpu_seconds - own_before.cpu_seconds,
        client_peak_rss_bytes: own.peak_rss_bytes,
    })
}

/// Raises this process's limit of descriptors and checks that so many connections can be open at once; processes started
/// afterwards have the limit, too.
///
/// # Errors
/// When the system does not allow as many descriptors, naming both numbers.
pub fn check_descriptors(connections: u64) -> Result<u64, Error> {
    let descriptors = raise_descriptor_limit();
    if descriptors < connections.saturating_add(DESCRIPTORS_KEPT) {
        return Err(Error::unexpected(format!(
            "{connections} connections and {DESCRIPTORS_KEPT} files need more than the {descriptors} descriptors this system allows a process (ulimit -Hn)"
        )));
    }
    Ok(descriptors)
}

/// Opens every connection with a first beat, some at once.
async fn connect(members: &[Member]) -> Result<(), Error> {
    let beats = members.iter().map(|member| member.transport.beat(beat()));
    let beats = futures_util::stream::iter(beats).buffer_unordered(CONNECTING_AT_ONCE);
    Ok(beats.try_for_each(|_| std::future::ready(Ok(()))).await?)
}

#[derive(Debug, Default)]
struct Tally(Mutex<Counted>);

#[derive(Debug, Clone, Default)]
struct Counted {
    beats: u64,
    polls: u64,
    errors: u64,
    first_error: Option<String>,
    latency: Histogram,
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Beat,
    Poll,
}

/// One participant asking one thing again and again.
struct Asking {
    ask: Ask,
    first: Duration,
    every: Duration,
    member: Member,
}

impl Asking {
    async fn go_on(self, tally: Arc<Tally>, clock: Arc<dyn Clock>) {
        tokio::time::sleep(self.first).await;
        let mut ticks = tokio::time::interval(self.every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let before = clock.monotonic();
            let answer = match self.ask {
                Ask::Beat => self.member.transport.beat(beat()).await.map(drop),
                Ask::Poll => {
                    let request = v1::NextRequest { have: Vec::new(), hold_ms: 0 };
                    self.member.transport.next(request).await.map(drop)
                }
            };
            let took = clock.monotonic().saturating_sub(before);
            let mut counted = tally.0.lock().unwrap_or_else(PoisonError::into_inner);
            match (answer, self.ask) {
                (Ok(()), Ask::Beat) => counted.beats += 1,
                (Ok(()), Ask::Poll) => counted.polls += 1,
                (Err(error), _) => {
                    counted.errors += 1;
                    counted.first_error.get_or_insert_with(|| error.to_string());
                }
            }
            counted.latency.record(took);
        }
    }
}

fn beat() -> v1::BeatRequest {
    v1::BeatRequest { working: Vec::new(), client: CLIENT.to_owned() }
}

const CLIENT: &str = concat!("sheaf-bench/", env!("CARGO_PKG_VERSION"));
const CONNECTING_AT_ONCE: usize = 64;
const DESCRIPTORS_KEPT: u64 = 64;
const LOOK_EVERY: Duration = Duration::from_secs(1);
