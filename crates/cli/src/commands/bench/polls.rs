//! `sheaf bench polls`: many connections that mostly wait, on one server.

use serde::Serialize;
use sheaf_bench::limits::Sealing;
use sheaf_bench::load::{Job, Party, polls};
use sheaf_bench::process::{cores, load_average};
use sheaf_domain::Span;
use sheaf_runtime::SystemClock;

use super::place::Place;
use super::server::{Server, run_load};
use super::{PlaceArgs, WayArgs};
use crate::output;

const FIGURES: &str = "\
Figures with --json, among others (docs/performance.md explains all of them):
  errors                     calls that failed
  rss_per_connection_bytes   (server_rss_bytes - server_rss_base_bytes) / connections
  latency_p50_ms, latency_p99_ms, latency_max_ms
                             of all beats and polls, as participants see them
  server_cpu_share           CPU seconds of the server per second
  calls_per_cpu_s            beats and polls per CPU second of the server";

/// What a site's rows and kits take on the disk at most, in bytes.
const SITE_BYTES: u64 = 16 * 1024;

#[derive(Debug, clap::Args)]
#[command(after_help = FIGURES)]
pub(super) struct Args {
    /// Connections, each of a site of its own.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// How often each beats.
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    beat: Span,
    /// How often each asks for work.
    #[arg(long, default_value = "3s", value_name = "DURATION")]
    poll: Span,
    /// For how long.
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    duration: Span,
    #[command(flatten)]
    way: WayArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

/// The figures, named as in `docs/performance.md`.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    transport: String,
    sealing: Sealing,
    beat_every_ms: u64,
    poll_every_ms: u64,
    cores: usize,
    load_average: f64,
    invite_seconds: f64,
    #[serde(flatten)]
    load: polls::Report,
    server_rss_base_bytes: u64,
    server_peak_rss_bytes: u64,
    rss_per_connection_bytes: u64,
    server_cpu_share: f64,
    calls_per_s: f64,
    calls_per_cpu_s: f64,
}

pub(super) async fn polls(args: Args, json: bool) -> anyhow::Result<()> {
    let sealing = args.way.sealing();
    // Said before anybody is invited: load and server have this limit, too.
    let descriptors = polls::check_descriptors(u64::from(args.connections))?;
    let place = Place::take(&args.place, u64::from(args.connections) * SITE_BYTES + (64 << 20))?;
    let beat_every = ("SHEAF_LIMITS__BEAT_EVERY", args.beat.to_string());
    let connections_max = ("SHEAF_LISTEN__CONNECTIONS_MAX", (args.connections + 128).to_string());
    let server = Server::start(&place, sealing, &[beat_every, connections_max]).await?;
    let base = server.usage()?;
    eprintln!("a process may have {descriptors} descriptors");
    eprintln!("enrolling {} sites, then {} of beats and polls", args.connections, args.duration);
    let clock = SystemClock::shared();
    let began = clock.monotonic();
    let kits = server.invite(&place, args.connections).await?;
    let invite_seconds = clock.monotonic().saturating_sub(began).as_secs_f64();
    let party = Party {
        kits,
        transport: args.way.transport(),
        plaintext: server.plaintext()?,
        server_pid: server.pid(),
    };
    let (beat_every, poll_every, duration) = (args.beat, args.poll, args.duration);
    let job = Job::Polls(polls::Job { party, beat_every, poll_every, duration });
    let load: polls::Report = run_load(&place, &job).await?;
    let end = server.usage()?;
    server.stop().await?;
    #[expect(clippy::cast_precision_loss, reason = "calls of a run are far below 2^53")]
    let calls = (load.beats + load.polls) as f64;
    let report = Report {
        bench: "polls",
        transport: args.way.transport.clone(),
        sealing,
        beat_every_ms: args.beat.as_millis(),
        poll_every_ms: args.poll.as_millis(),
        cores: cores(),
        load_average: load_average(),
        invite_seconds,
        server_rss_base_bytes: base.rss_bytes,
        server_peak_rss_bytes: end.peak_rss_bytes,
        rss_per_connection_bytes: load.server_rss_bytes.saturating_sub(base.rss_bytes)
            / load.connections.max(1),
        server_cpu_share: load.server_cpu_seconds / load.seconds,
        calls_per_s: calls / load.seconds,
        calls_per_cpu_s: calls / load.server_cpu_seconds.max(TICK),
        load,
    };
    if json { output::json(&report) } else { print(&report) }
}

fn print(report: &Report) -> anyhow::Result<()> {
    let line = |name: &str, value: String| output::line(format!("{name:<44}{value}"));
    let load = &report.load;
    line(
        "connections",
        format!("{} ({}, {})", load.connections, report.transport, sealing_name(report.sealing)),
    );
    let [invite, enrol, connect] = [report.invite_seconds, load.enrol_seconds, load.connect_seconds];
    line("to invite, enrol, connect all, s", format!("{invite:.1}, {enrol:.1}, {connect:.1}"));
    line("beats and polls answered", format!("{} and {}", load.beats, load.polls));
    line("errors", load.errors.to_string());
    if let Some(error) = &load.first_error {
        line("first error", error.clone());
    }
    let [p50, p99, max] = [load.latency_p50_ms, load.latency_p99_ms, load.latency_max_ms];
    line("latency, ms: half, 99 of 100, longest", format!("{p50:.1}, {p99:.1}, {max:.1}"));
    line("server, resident memory a connection", output::bytes(report.rss_per_connection_bytes));
    line("server, most resident memory", output::bytes(report.server_peak_rss_bytes));
    line("server, share of a core", format!("{:.3}", report.server_cpu_share));
    line("calls per CPU second of the server", format!("{:.0}", report.calls_per_cpu_s));
    line("load of the machine", format!("{:.1} on {} cores", report.load_average, report.cores));
    Ok(())
}

fn sealing_name(sealing: Sealing) -> &'static str {
    match sealing {
        Sealing::Plain => "plain",
        Sealing::Tls => "tls",
    }
}

/// The kernel counts CPU time in ticks: less than one is not told from none.
const TICK: f64 = 0.01;
