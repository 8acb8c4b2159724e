//! `sheaf bench exchange`: whole rounds between the real server and participants in another process.

mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sheaf_admin_api::{CreateRunBody, CreatedRun};
use sheaf_bench::limits::{Limits, Sealing};
use sheaf_bench::load::{Job, Party, exchange};
use sheaf_bench::model;
use sheaf_bench::piece::{Origin, Pieces};
use sheaf_domain::{ByteSize, Digest, ErrorKind, Manifest, RunId, RunPhase, RunStatus};
use sheaf_runtime::{Compute, SystemClock};

use super::place::Place;
use super::server::{Server, run_load};
use super::{PlaceArgs, WayArgs};
use crate::exit::Failure;
use crate::follow::status;
use crate::operator::Operator;
use report::{End, Report};

/// Figures of `--json` (docs/performance.md has them all, with formulas).
const FIGURES: &str = "\
Figures with --json, among others (docs/performance.md explains all of them):
  seconds_per_round       from the moment every participant has its work to the next model, mean
  round_limit_seconds     max(CPU of both sides at the limits / cores, disk bytes / disk rate)
  server_peak_rss_bytes   VmHWM of the server
  server_cpu_seconds      user and system time of the server over all rounds
  ingest_gb_per_cpu_s     GB of updates taken in, verified and durable, per CPU second of the server
  limit_gb_per_cpu_s      1 / (tcp + hash), with TLS 1 / (tcp + tls + hash), each in CPU seconds per GB
  ratio_to_limit          ingest_gb_per_cpu_s / limit_gb_per_cpu_s
  stages                  seconds and CPU seconds of a round: read, upload, gate, fold
  limits                  the limits, measured in the same run
GB are 10^9 bytes.";

#[derive(Debug, clap::Args)]
#[command(after_help = FIGURES)]
pub(super) struct Args {
    /// What is exchanged: mlp, cnn-1m, resnet50, gpt2, gpt2-large, or a .safetensors or .npz file.
    #[arg(long, default_value = "resnet50", value_name = "NAME or FILE", conflicts_with = "size")]
    model: String,
    /// A model of this size instead, such as 100MB.
    #[arg(long, value_name = "SIZE")]
    size: Option<ByteSize>,
    /// Participants, all in one process.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Rounds.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    #[command(flatten)]
    way: WayArgs,
    /// Bytes of uploads the server holds at once.
    #[arg(long, default_value = "128MiB", value_name = "SIZE")]
    inflight: ByteSize,
    /// What the updates derive from.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    place: PlaceArgs,
}

/// What is exchanged.
enum Model {
    Made(Pieces),
    File { path: PathBuf, bytes: u64 },
}

impl Model {
    fn of(args: &Args) -> anyhow::Result<Model> {
        if let Some(size) = args.size {
            return Ok(Model::Made(Pieces::new(model::of_size(size.as_bytes())?)?));
        }
        if model::PRESETS.contains(&args.model.as_str()) {
            return Ok(Model::Made(Pieces::new(model::preset(&args.model)?)?));
        }
        let path = PathBuf::from(&args.model);
        if !path.is_file() {
            let presets = model::PRESETS.join(", ");
            let message = format!("{} is neither a file nor one of {presets}", args.model);
            return Err(Failure::usage(message).into());
        }
        let bytes = std::fs::metadata(&path)?.len();
        Ok(Model::File { path, bytes })
    }

    fn byte_len(&self) -> u64 {
        match self {
            Model::Made(pieces) => pieces.byte_len(),
            Model::File { bytes, .. } => *bytes,
        }
    }
}

pub(super) async fn exchange(args: Args, json: bool) -> anyhow::Result<()> {
    let sealing = args.way.sealing();
    let model = Model::of(&args)?;
    let need_bytes = need(&model, &args);
    let place = Place::take(&args.place, need_bytes)?;
    let limits = measure_limits(place.dir(), args.place.probe, sealing).await?;
    eprintln!("{} participants, {} rounds", args.clients, args.rounds);
    let settings = [
        ("SHEAF_LIMITS__INFLIGHT", args.inflight.to_string()),
        ("SHEAF_STORE__MAX_BYTES", ByteSize::from_bytes(need_bytes).to_string()),
        ("SHEAF_LISTEN__CONNECTIONS_MAX", (2 * args.clients + 16).to_string()),
    ];
    let server = Server::start(&place, sealing, &settings).await?;
    let kits = server.invite(&place, args.clients).await?;
    let mut operator = server.operator()?;
    let (manifest, upload) = upload(&mut operator, &model, args.seed).await?;
    let body = CreateRunBody {
        plan: plan(&args),
        init: Some(manifest.clone()),
        upload: Some(upload),
        app: None,
        from: None,
    };
    let CreatedRun { run } = operator.post("/runs", &body).await?;
    let party = Party {
        kits,
        transport: args.way.transport(),
        plaintext: server.plaintext()?,
        server_pid: server.pid(),
    };
    let job = Job::Exchange(exchange::Job { party, rounds: args.rounds, seed: args.seed });
    let load: exchange::Report = run_load(&place, &job).await?;
    let end = over(&mut operator, &server, run).await?;
    let disk_used_bytes = size_of(server.data_dir());
    server.stop().await?;
    let report = Report::make(&args, sealing, &manifest, &limits, &load, &end)?;
    report.print(json, need_bytes, disk_used_bytes)
}

/// What disk it takes: every update, three generations of the model, and the probes.
fn need(model: &Model, args: &Args) -> u64 {
    let models = u64::from(args.clients) + 3;
    model
        .byte_len()
        .saturating_mul(models)
        .saturating_add(args.place.probe.as_bytes())
        .saturating_add(64 << 20)
}

/// Measures the limits off the I/O threads.
pub(super) async fn measure_limits(dir: &Path, probe: ByteSize, sealing: Sealing) -> anyhow::Result<Limits> {
    eprintln!("measuring what this machine allows");
    let dir = dir.to_owned();
    Ok(Compute::new(1).run(move || Limits::measure(&dir, probe.as_bytes(), sealing)).await??)
}

/// Hands in the first model; one that is made is never in memory as a whole.
async fn upload(operator: &mut Operator, model: &Model, seed: u64) -> anyhow::Result<(Manifest, String)> {
    let pieces = match model {
        Model::File { path, .. } => return crate::commands::run::upload_model(operator, path).await,
        Model::Made(pieces) => pieces,
    };
    let upload = Digest::of(&seed.to_le_bytes()).to_string();
    let mut digests = Vec::new();
    for piece_idx in 0..pieces.count() {
        let piece = pieces.piece(Origin { seed, client: 0, round: 0 }, piece_idx);
        let digest = Digest::of(&piece);
        operator.put(&format!("/uploads/{upload}/pieces/{digest}"), piece).await?;
        digests.push(digest);
    }
    Ok((pieces.manifest(&digests)?, upload))
}

/// Every participant in every round, and nothing but the exchange.
fn plan(args: &Args) -> String {
    format!(
        "[run]\nname = \"bench\"\nrounds = {}\nseed = {}\nkeep_updates = \"round\"\nkeep_models = \"round\"\n\n\
         [model]\ninit = \"model.safetensors\"\n\n[strategy]\nkind = \"fedavg\"\n\n\
         [cohort]\nmin = {}\nfraction = 1.0\nquorum = 1.0\n",
        args.rounds, args.seed, args.clients
    )
}

/// Waits for the last model.
async fn over(operator: &mut Operator, server: &Server, run: RunId) -> anyhow::Result<End> {
    let clock = SystemClock::shared();
    loop {
        let now: RunStatus = status(operator, run).await?;
        match &now.phase {
            phase if !phase.is_over() => tokio::time::sleep(LOOK_EVERY).await,
            RunPhase::Finished { .. } => {
                let digest = now
                    .model
                    .ok_or_else(|| Failure::new(ErrorKind::Internal, "the run ended without a model"))?;
                return Ok(End { at_ms: clock.now().as_millis(), usage: server.usage()?, digest });
            }
            phase => {
                let reason = phase.reason().unwrap_or_default();
                let message = format!("the run {}: {reason}", phase.name());
                return Err(Failure::new(ErrorKind::Internal, message).into());
            }
        }
    }
}

/// Bytes of all files below a directory, as they take room on the disk.
fn size_of(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() { size_of(&entry.path()) } else { metadata.blocks() * 512 })
        })
        .sum()
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
