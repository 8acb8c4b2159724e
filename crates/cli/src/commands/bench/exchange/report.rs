//! The figures of an exchange, for people and for tools.

use anyhow::Context as _;
use serde::Serialize;
use sheaf_bench::limits::{Limits, Sealing, gb};
use sheaf_bench::load::exchange::{Mark, Report as Load};
use sheaf_bench::process::{Usage, cores, load_average};
use sheaf_domain::{Digest, Manifest};

use super::Args;
use crate::output;

/// The moment the last model was there.
pub(super) struct End {
    pub(super) at_ms: u64,
    pub(super) usage: Usage,
    pub(super) digest: Digest,
}

/// One part of a round: the mean over all rounds.
#[derive(Debug, Serialize)]
struct Stage {
    stage: &'static str,
    seconds: f64,
    server_cpu_seconds: f64,
    client_cpu_seconds: f64,
    gb: f64,
}

/// The figures, named as in `docs/performance.md`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    model: String,
    model_bytes: u64,
    tensors: usize,
    clients: u32,
    rounds: u32,
    transport: String,
    sealing: Sealing,
    inflight_bytes: u64,
    cores: usize,
    load_average: f64,
    seconds: f64,
    seconds_per_round: f64,
    round_limit_seconds: f64,
    ratio_to_round_limit: f64,
    server_peak_rss_bytes: u64,
    server_cpu_seconds: f64,
    client_cpu_seconds: f64,
    client_peak_rss_bytes: u64,
    ingest_gb_per_s: f64,
    ingest_gb_per_cpu_s: f64,
    limit_gb_per_cpu_s: f64,
    ratio_to_limit: f64,
    accepted_gb_per_cpu_s: f64,
    broadcast_gb_per_s: f64,
    broadcast_gb_per_cpu_s: f64,
    calls_again: u64,
    stages: Vec<Stage>,
    limits: Limits,
    final_digest: Digest,
}

/// What both sides used between two moments.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    seconds: f64,
    server: f64,
    client: f64,
}

impl Spent {
    fn between(from: &Mark, to: &Mark) -> Spent {
        Spent {
            seconds: seconds(from.at_ms, to.at_ms),
            server: to.server_cpu_seconds - from.server_cpu_seconds,
            client: to.client_cpu_seconds - from.client_cpu_seconds,
        }
    }

    fn add(&mut self, more: Spent) {
        self.seconds += more.seconds;
        self.server += more.server;
        self.client += more.client;
    }
}

impl Report {
    pub(super) fn make(
        args: &Args,
        sealing: Sealing,
        manifest: &Manifest,
        limits: &Limits,
        load: &Load,
        end: &End,
    ) -> anyhow::Result<Report> {
        let first = load.rounds.first().context("a load without rounds")?.ordered;
        let last = Mark {
            at_ms: end.at_ms,
            server_cpu_seconds: end.usage.cpu_seconds,
            client_cpu_seconds: load.client_cpu_seconds,
        };
        let whole = Spent::between(&first, &last);
        let [read, upload, gate, fold] = stages(load, &last);
        let model_bytes = manifest.byte_len();
        let round_gb = gb(model_bytes) * f64::from(args.clients);
        let rounds = f64::from(args.rounds);
        let moved_gb = round_gb * rounds;
        let seconds_per_round = whole.seconds / rounds;
        let round_limit_seconds = limits.round_seconds(model_bytes, args.clients, cores(), sealing);
        let limit_gb_per_cpu_s = limits.verified_gb_per_cpu_s(sealing);
        let ingest_gb_per_cpu_s = moved_gb / upload.server.max(TICK);
        let stage = |stage, spent: Spent, gb| Stage {
            stage,
            seconds: spent.seconds / rounds,
            server_cpu_seconds: spent.server / rounds,
            client_cpu_seconds: spent.client / rounds,
            gb,
        };
        Ok(Report {
            bench: "exchange",
            model: args.size.map_or_else(|| args.model.clone(), |size| size.to_string()),
            model_bytes,
            tensors: manifest.tensors.len(),
            clients: args.clients,
            rounds: args.rounds,
            transport: args.way.transport.clone(),
            sealing,
            inflight_bytes: args.inflight.as_bytes(),
            cores: cores(),
            load_average: load_average(),
            seconds: whole.seconds,
            seconds_per_round,
            round_limit_seconds,
            ratio_to_round_limit: seconds_per_round / round_limit_seconds,
            server_peak_rss_bytes: end.usage.peak_rss_bytes,
            server_cpu_seconds: whole.server,
            client_cpu_seconds: whole.client,
            client_peak_rss_bytes: load.client_peak_rss_bytes,
            ingest_gb_per_s: moved_gb / upload.seconds.max(MILLISECOND),
            ingest_gb_per_cpu_s,
            limit_gb_per_cpu_s,
            ratio_to_limit: ingest_gb_per_cpu_s / limit_gb_per_cpu_s,
            accepted_gb_per_cpu_s: moved_gb / (upload.server + gate.server).max(TICK),
            broadcast_gb_per_s: moved_gb / read.seconds.max(MILLISECOND),
            broadcast_gb_per_cpu_s: moved_gb / read.server.max(TICK),
            calls_again: load.calls_again,
            stages: vec![
                stage("read", read, round_gb),
                stage("upload", upload, round_gb),
                stage("gate", gate, round_gb),
                stage("fold", fold, round_gb),
            ],
            limits: *limits,
            final_digest: end.digest,
        })
    }

    pub(super) fn print(&self, json: bool, need_bytes: u64, used_bytes: u64) -> anyhow::Result<()> {
        if json {
            let mut value = serde_json::to_value(self)?;
            if let Some(object) = value.as_object_mut() {
                object.insert("disk_need_bytes".to_owned(), need_bytes.into());
                object.insert("disk_used_bytes".to_owned(), used_bytes.into());
            }
            return output::json(&value);
        }
        let rows = self.stages.iter().map(|stage| {
            vec![
                stage.stage.to_owned(),
                format!("{:.2}", stage.seconds),
                format!("{:.2}", stage.server_cpu_seconds),
                format!("{:.2}", stage.client_cpu_seconds),
                format!("{:.2}", stage.gb / stage.seconds.max(MILLISECOND)),
            ]
        });
        output::table(&["part of a round", "seconds", "server CPU s", "clients CPU s", "GB/s"], rows);
        let line = |name: &str, value: String| output::line(format!("{name:<44}{value}"));
        output::line("");
        line(
            "model",
            format!("{}, {}, {} tensors", self.model, output::bytes(self.model_bytes), self.tensors),
        );
        line("seconds a round", format!("{:.2}", self.seconds_per_round));
        line("at the limits of this machine", format!("{:.2}", self.round_limit_seconds));
        line("server, most resident memory", output::bytes(self.server_peak_rss_bytes));
        line("server, CPU seconds", format!("{:.2}", self.server_cpu_seconds));
        line("ingest, GB per CPU second", format!("{:.2}", self.ingest_gb_per_cpu_s));
        line("at the limits of this machine", format!("{:.2}", self.limit_gb_per_cpu_s));
        line("ratio", format!("{:.2}", self.ratio_to_limit));
        line("disk used at the end", output::bytes(used_bytes));
        line("load of the machine", format!("{:.1} on {} cores", self.load_average, self.cores));
        line("digest of the final model", self.final_digest.to_string());
        Ok(())
    }
}

/// What all rounds spent on each part: read, upload, gate, fold.
fn stages(load: &Load, last: &Mark) -> [Spent; 4] {
    let mut all = [Spent::default(); 4];
    for (idx, round) in load.rounds.iter().enumerate() {
        let next = load.rounds.get(idx + 1).map_or(last, |next| &next.ordered);
        let moments = [&round.ordered, &round.read, &round.uploaded, &round.submitted, next];
        for (spent, pair) in all.iter_mut().zip(moments.windows(2)) {
            if let [from, to] = pair {
                spent.add(Spent::between(from, to));
            }
        }
    }
    all
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a run are far below 2^53")]
fn seconds(from_ms: u64, to_ms: u64) -> f64 {
    to_ms.saturating_sub(from_ms) as f64 / 1e3
}

/// The kernel counts CPU time in ticks: less than one is not told from none.
const TICK: f64 = 0.01;
const MILLISECOND: f64 = 0.001;
