//! `sheaf openfl`: the aggregator of a federation of stock OpenFL collaborators, started in a workspace that `fx` made.
//!
//! The process is a server with one run: it serves the plan's collaborators until all rounds are done, tells each to quit, and ends. The
//! workspace's plan, list of collaborators, certificates and first model are used as they are.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sheaf_domain::{ErrorKind, Span};
use sheaf_runtime::{Shutdown, ShutdownPhase, TaskScope};
use sheaf_server::{Config, LogSection, Server};
use sheaf_wire_openfl::plan::{self, Plan, Surroundings};
use sheaf_wire_openfl::{Ending, Federation, Opening};

use crate::exit::Failure;

/// Beside upstream's database, so that neither is taken for the other.
const STATE_ENDING: &str = ".sheaf";
/// What says that a federation has ended and its collaborators were told.
const ENDED_FILE: &str = "ended";
/// The longest plan or list of collaborators, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve the collaborators of a workspace until all rounds are done.
    Start(Start),
    /// What `fx` was called with that this program does not do.
    #[command(hide = true)]
    NotServed {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Start {
    /// The federation's plan.
    #[arg(short, long, value_name = "FILE", default_value = "plan/plan.yaml")]
    plan: PathBuf,
    /// The list of collaborators.
    #[arg(
        short = 'c',
        long = "authorized_cols",
        alias = "authorized-cols",
        value_name = "FILE",
        default_value = "plan/cols.yaml"
    )]
    authorized_cols: PathBuf,
    /// Serve this group of tasks alone; `evaluation` is one round that changes no model.
    #[arg(long = "task_group", alias = "task-group", value_name = "NAME")]
    task_group: Option<String>,
    /// Take this for the federation's identity, in place of what the plan comes to.
    #[arg(long, value_name = "NAME")]
    federation_uuid: Option<String>,
    /// How long to wait, once it is over, for collaborators that were not told to quit.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    quit_grace: Span,
    /// Be killed where the variable `SHEAF_CRASH_AT` says, for crash tests.
    #[arg(long, hide = true)]
    crash_points: bool,
}

/// What `fx` is called with, in this program's words.
pub(crate) fn words_of_fx(words: Vec<OsString>) -> Vec<OsString> {
    let mut rest = words.into_iter();
    let mut ours: Vec<OsString> = rest.next().into_iter().collect();
    ours.push("openfl".into());
    let mut rest: Vec<OsString> = rest.collect();
    // Its own options come before the command: how much it logs is not said by them here.
    while rest.first().is_some_and(|word| word.to_string_lossy().starts_with('-')) {
        let takes_value = rest.first().is_some_and(|word| word == "-l" || word == "--log-level");
        rest.drain(..if takes_value { rest.len().min(2) } else { 1 });
    }
    if rest.first().is_some_and(|word| word == "aggregator")
        && rest.get(1).is_some_and(|word| word == "start")
    {
        ours.push("start".into());
        ours.extend(rest.into_iter().skip(2));
    } else {
        ours.extend(["not-served".into(), "--".into()]);
        ours.extend(rest);
    }
    ours
}

pub(crate) fn openfl(args: Args) -> anyhow::Result<()> {
    let args = match args.command {
        Command::Start(args) => args,
        Command::NotServed { words } => {
            let message = format!("fx {}: not served yet; only `fx aggregator start` is", words.join(" "));
            return Err(Failure::usage(message).into());
        }
    };
    let plan = read_plan(&args)?;
    let (data_dir, kept) = data_dir(&plan)?;
    if data_dir.join(ENDED_FILE).exists() {
        let message = format!(
            "the federation kept in {} has ended; remove that directory to begin anew",
            data_dir.display()
        );
        return Err(Failure::new(ErrorKind::Conflict, message).into());
    }
    // Of the rest of the server only what went wrong; a record of every call of a collaborator.
    let log = LogSection { filter: "warn,sheaf_wire_openfl=info".to_owned(), ..LogSection::default() };
    let mut config = Config { data_dir, log, ..Config::default() };
    // Operators of this machine find the port in the data directory.
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    // Collaborators say nothing while they train.
    config.limits.liveness = Span::from_secs(600);
    config.limits.sites_max = config.limits.sites_max.max(plan.collaborators.names().len());
    sheaf_telemetry::init(&config.log.options())?;
    super::arm_crash_point(args.crash_points)?;
    sheaf_server::bound_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config, plan, &args));
    runtime.shutdown_background();
    drop(kept);
    served
}

fn read_plan(args: &Start) -> anyhow::Result<Plan> {
    let (text, collaborators) = (read(&args.plan)?, read(&args.authorized_cols)?);
    let file_name = args.plan.file_name().map(|name| name.to_string_lossy().into_owned());
    let file_name = file_name.unwrap_or_default();
    let fqdn = host_name();
    let around = Surroundings { file_name: &file_name, fqdn: &fqdn, task_group: args.task_group.as_deref() };
    plan::Collaborators::read(&collaborators)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.authorized_cols.display())))?;
    let mut plan = plan::read(&text, &collaborators, around)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.plan.display())))?;
    if let Some(uuid) = &args.federation_uuid {
        plan.identity.federation_uuid.clone_from(uuid);
        plan.identity.aggregator_uuid = format!("aggregator_{uuid}");
    }
    for warning in &plan.warnings {
        eprintln!("{}: {warning}", args.plan.display());
    }
    Ok(plan)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let place = || path.display().to_string();
    let len = std::fs::metadata(path).with_context(place)?.len();
    if len > FILE_LEN_MAX {
        return Err(Failure::usage(format!("{}: {len} bytes are too many", place())).into());
    }
    std::fs::read_to_string(path).with_context(place)
}

/// The name of this machine, as upstream is told it or finds it.
fn host_name() -> String {
    let told = std::env::var("FQDN").ok().filter(|name| !name.is_empty());
    let found = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    told.or_else(found).map_or_else(|| "localhost".to_owned(), |name| name.trim().to_lowercase())
}

/// Where the run is kept, and a directory that lives as long as this where nothing is to be kept.
fn data_dir(plan: &Plan) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    if plan.aggregator.persist_checkpoint && !plan.is_evaluation {
        let path = format!("{}{STATE_ENDING}", plan.aggregator.persistent_db_path);
        return Ok((PathBuf::from(path), None));
    }
    let dir = tempfile::Builder::new().prefix("sheaf-openfl-").tempdir()?;
    Ok((dir.path().join("data"), Some(dir)))
}

async fn serve(config: Config, plan: Plan, args: &Start) -> anyhow::Result<()> {
    let scope = TaskScope::new();
    let mut signals = sheaf_runtime::on_signals(&scope)?;
    let data_dir = config.data_dir.clone();
    let identity = plan.identity.clone();
    let mut server = Server::start(config).await?;
    let opening = Opening { plan, workspace: std::env::current_dir()?, notes: Some(data_dir.clone()) };
    let (address, federation) = server.listen_openfl(opening).await?;
    eprintln!(
        "federation {}, aggregator {}, at {address}",
        identity.federation_uuid, identity.aggregator_uuid
    );
    let ending = tokio::select! {
        biased;
        () = signals.requested() => None,
        ending = ended(&federation, args.quit_grace) => Some(ending),
    };
    if ending.is_some() {
        std::fs::write(data_dir.join(ENDED_FILE), "")?;
    }
    let (ask, drain) = Shutdown::manual();
    ask.send_replace(ShutdownPhase::Draining);
    server.run(drain).await;
    scope.cancel();
    match ending {
        Some(Ending::Finished) => Ok(()),
        Some(Ending::Failed(reason)) => Err(Failure::new(ErrorKind::Internal, reason).into()),
        None => {
            eprintln!("ended before the federation has; start again to go on where something is kept");
            Ok(())
        }
    }
}

/// Waits until it is over and everybody was told, or the grace is over; then names who was not.
async fn ended(federation: &Federation, grace: Span) -> Ending {
    let ending = federation.ended().await;
    eprintln!("the federation is over: {ending:?}");
    if tokio::time::timeout(grace.as_duration(), federation.all_dismissed()).await.is_err() {
        eprintln!("never told to quit, for they did not ask: {}", federation.not_dismissed().join(", "));
    }
    ending
}
