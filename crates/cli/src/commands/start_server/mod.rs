//! `sheaf start-server`: a run with Flower's oldest clients (`start_client`) from beginning to end, as upstream's `start_server`.
//!
//! The process is a server with one run: it waits for clients, drives the run, prints its History, sends the clients away and ends.
//! What upstream takes as Python objects is a plan here; no code of the caller's runs in this process.

mod report;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sheaf_domain::plan::Plan;
use sheaf_domain::{ByteSize, ErrorKind, RunPhase, RunStatus, Span};
use sheaf_runtime::{Shutdown, ShutdownPhase, TaskScope};
use sheaf_server::{Config, JoinListener, LogSection, OPERATOR_DIR, Server};
use sheaf_wire_flower::legacy::{History, check_plan};

use super::{Context, model, run};
use crate::exit::Failure;
use crate::follow::{Follower, Hold};
use crate::operator::{Operator, OperatorArgs};
use crate::output;

/// The longest message that gRPC can carry.
const MESSAGE_LEN_MAX: u64 = (1 << 31) - 1;
/// When clients are to come back to a server that was asked to end before its run has.
const BACK_IN_S: i64 = 30;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where clients connect: HOST:PORT; an IPv6 address stands in brackets.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8080")]
    address: String,
    /// Rounds to train.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// How long a round's training, and its evaluation, may take, such as 10m [default: for ever].
    #[arg(long, value_name = "TIME")]
    round_timeout: Option<Span>,
    /// How many clients a round needs at least.
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_clients: u32,
    /// A plan (TOML) with strategy, settings of fit and evaluate, first model; in place of the three options above.
    #[arg(long, value_name = "PLAN", conflicts_with_all = ["rounds", "round_timeout", "min_clients"])]
    plan: Option<PathBuf>,
    /// Keep the run here, so that a server started again with this directory goes on [default: nothing is kept].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Write the final model to this file: .npz or .safetensors.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The server's certificate chain (PEM); without it there is no TLS.
    #[arg(long, value_name = "FILE", requires = "ssl_keyfile")]
    ssl_certfile: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "ssl_certfile")]
    ssl_keyfile: Option<PathBuf>,
    /// The longest message either way, in bytes; clients need the same.
    #[arg(long, value_name = "BYTES", default_value_t = 536_870_912)]
    grpc_max_message_length: u64,
    /// Ask clients for this property and know them by it, so that one that connects again is the same participant.
    #[arg(long, value_name = "PROPERTY")]
    name_property: Option<String>,
    /// Be killed where the variable `SHEAF_CRASH_AT` says, for crash tests.
    #[arg(long, hide = true)]
    crash_points: bool,
}

/// A plan, where it came from, and what it says.
struct Wanted {
    path: PathBuf,
    text: String,
    plan: Plan,
}

pub(crate) fn start_server(args: Args, context: &Context) -> anyhow::Result<()> {
    let wanted = wanted(&args)?;
    if let Some(file) = &args.output {
        model::check_ending(file)?;
    }
    let listener = listener(&args)?;
    let (config, kept) = config(&args)?;
    sheaf_telemetry::init(&config.log.options())?;
    super::arm_crash_point(args.crash_points)?;
    sheaf_server::bound_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config, listener, &wanted, &args, context.json));
    runtime.shutdown_background();
    drop(kept);
    served
}

async fn serve(
    config: Config,
    listener: JoinListener,
    wanted: &Wanted,
    args: &Args,
    json: bool,
) -> anyhow::Result<()> {
    let scope = TaskScope::new();
    let mut signals = sheaf_runtime::on_signals(&scope)?;
    let operator = config.data_dir.join(OPERATOR_DIR);
    let mut server = Server::start(config).await?;
    let mut operator = Operator::open(&OperatorArgs { operator, server: None })?;
    let address = server.listen_join(listener).await?;
    eprintln!(
        "waiting for clients at {address}: start_client(server_address=\"HOST:{}\", …)",
        address.port()
    );
    let outcome = tokio::select! {
        biased;
        () = signals.requested() => None,
        outcome = drive(&mut operator, wanted, args.output.as_deref()) => Some(outcome),
    };
    let back_in_s = if outcome.is_none() && args.data_dir.is_some() { BACK_IN_S } else { 0 };
    server.dismiss_clients(back_in_s).await;
    let (ask, drain) = Shutdown::manual();
    ask.send_replace(ShutdownPhase::Draining);
    server.run(drain).await;
    scope.cancel();
    match outcome {
        Some(status) => tell(&status?, json),
        None => {
            let kept =
                args.data_dir.as_ref().map(|dir| format!("start again with --data-dir {}", dir.display()));
            eprintln!("ended before the run has; {}", kept.unwrap_or_else(|| "nothing is kept".to_owned()));
            Ok(())
        }
    }
}

/// Starts the run, or goes on with the one that is there, and follows it to its end.
async fn drive(operator: &mut Operator, wanted: &Wanted, file: Option<&Path>) -> anyhow::Result<RunStatus> {
    let runs: Vec<RunStatus> = operator.get("/runs").await?;
    let id = match runs.first() {
        Some(known) => {
            check_same(operator, known, &wanted.plan).await?;
            eprintln!("going on with run {} (round {} of {})", known.run, known.round, known.rounds);
            known.run
        }
        None => run::start(operator, &wanted.path, &wanted.plan, wanted.text.clone(), None).await?,
    };
    let status = run::follow(operator, id).await?;
    if let (Some(file), Some(_)) = (file, &status.model) {
        model::fetch(operator, &id.to_string(), "last", file).await?;
    }
    Ok(status)
}

/// A directory holds one run; another plan needs another directory.
async fn check_same(operator: &mut Operator, known: &RunStatus, plan: &Plan) -> anyhow::Result<()> {
    let entries = Follower::new(known.run.to_string()).next(operator, Hold::None).await?;
    let first = entries.first().context("the run in this directory has no beginning")?;
    let body: serde_json::Value = serde_json::from_str(&first.body)?;
    if body.get("plan") == Some(&serde_json::to_value(plan)?) {
        return Ok(());
    }
    let message =
        "the run in this directory has another plan (rounds, clients, timeout, …): name a new directory";
    Err(Failure::new(ErrorKind::Conflict, message).into())
}

fn tell(status: &RunStatus, json: bool) -> anyhow::Result<()> {
    let history = History::of(status);
    if json {
        output::json(&history)?;
    } else {
        report::print(&history, status);
    }
    match &status.phase {
        RunPhase::Failed { reason } | RunPhase::Broken { reason } => {
            Err(Failure::new(ErrorKind::Internal, reason.clone()).into())
        }
        _ => Ok(()),
    }
}

fn wanted(args: &Args) -> anyhow::Result<Wanted> {
    let (path, text) = match &args.plan {
        Some(path) => (path.clone(), run::read_plan(path)?),
        None => (PathBuf::from("start-server.toml"), plan_of(args)),
    };
    let plan = Plan::parse(&text).with_context(|| path.display().to_string())?;
    check_plan(&plan).map_err(|reason| Failure::usage(format!("{}: {reason}", path.display())))?;
    Ok(Wanted { path, text, plan })
}

/// The plan that the options come to: upstream's FedAvg, evaluated at the clients in every round.
fn plan_of(args: &Args) -> String {
    let deadline = args.round_timeout.map_or_else(String::new, |span| format!("deadline = \"{span}\"\n"));
    format!(
        "[run]\nname = \"start-server\"\nrounds = {}\nkeep_models = \"round\"\n\n\
         [cohort]\nmin = {}\n{deadline}\n\
         [task.evaluate]\nmetric = \"loss\"\nbetter = \"lower\"\n",
        args.rounds, args.min_clients
    )
}

fn listener(args: &Args) -> anyhow::Result<JoinListener> {
    if args.grpc_max_message_length > MESSAGE_LEN_MAX {
        bail!(Failure::usage(format!(
            "--grpc-max-message-length {}: gRPC carries at most {MESSAGE_LEN_MAX} bytes",
            args.grpc_max_message_length
        )));
    }
    Ok(JoinListener {
        address: address(&args.address)?,
        tls: args.ssl_certfile.clone().zip(args.ssl_keyfile.clone()),
        message_max: ByteSize::from_bytes(args.grpc_max_message_length),
        name_property: args.name_property.clone(),
    })
}

fn address(text: &str) -> anyhow::Result<SocketAddr> {
    let no_address = |why: String| Failure::usage(format!("--address {text}: {why}; write HOST:PORT"));
    let mut found = text.to_socket_addrs().map_err(|error| no_address(error.to_string()))?;
    Ok(found.next().ok_or_else(|| no_address("the name has no address".to_owned()))?)
}

/// The configuration, and a directory that lives as long as the server where nothing is to be kept.
fn config(args: &Args) -> anyhow::Result<(Config, Option<tempfile::TempDir>)> {
    let (data_dir, kept) = match &args.data_dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let dir = tempfile::Builder::new().prefix("sheaf-start-server-").tempdir()?;
            (dir.path().join("data"), Some(dir))
        }
    };
    // The run's journal is told as it goes; of the rest only what is about clients and what went wrong.
    let log = LogSection { filter: "warn,sheaf_wire_flower=info".to_owned(), ..LogSection::default() };
    let mut config = Config { data_dir, log, ..Config::default() };
    // Operators of this machine find the port in the data directory.
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok((config, kept))
}
