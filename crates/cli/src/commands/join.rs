//! `sheaf join`: a participant, until SIGTERM or SIGINT.
//!
//! What it trains with comes from the site's configuration file or from this command line, never from a plan or the server.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sheaf_client::participant::{Auth, Event, EventSink, JoinOptions, TransportKind, join as enrol};
use sheaf_client::site::SiteConfig;
use sheaf_client::trainer::{BuiltinSpec, ExecSpec, TrainerSpec, Trainers};
use sheaf_domain::Span;
use sheaf_pki::Kit;
use sheaf_runtime::{Compute, TaskScope};
use sheaf_telemetry::{LogFormat, LogOptions};

use crate::exit::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kit from `sheaf invite`; needed the first time only.
    kit: Option<PathBuf>,
    /// The site's own directory: key, certificate, results not yet handed in [default: the kit's site name].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The site's configuration (TOML); paths in it are relative to it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to reach the server [default: grpc].
    #[arg(long, value_parser = ["grpc", "https"])]
    transport: Option<String>,
    /// How to prove who the site is: by certificate in TLS, or by signed requests (https only) [default: certificate].
    #[arg(long, value_parser = ["certificate", "signed"])]
    auth: Option<String>,
    /// The CA of a proxy that opens TLS (PEM), with `--auth signed`.
    #[arg(long, value_name = "FILE")]
    proxy_ca: Option<PathBuf>,
    /// The name plans know the trainer of this command line under; softmax and mlp are built in.
    #[arg(long, value_name = "NAME", default_value = "mlp")]
    trainer: String,
    /// The data of a built-in trainer: .csv or .npz.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    data: Option<PathBuf>,
    /// The label's column in a CSV [default: the last].
    #[arg(long, value_name = "COLUMN", requires = "data")]
    label: Option<String>,
    /// The number of classes [default: the greatest label plus one].
    #[arg(long, value_name = "N", requires = "data")]
    classes: Option<usize>,
    /// What every feature is multiplied by.
    #[arg(long, value_name = "FACTOR", requires = "data")]
    scale: Option<f64>,
    /// The share of the data that is kept for evaluation.
    #[arg(long, value_name = "SHARE", requires = "data")]
    holdout: Option<f64>,
    /// The directory a command trains in.
    #[arg(long, value_name = "DIR", requires = "command")]
    workdir: Option<PathBuf>,
    /// A variable of this environment that is handed on to the command; may be repeated.
    #[arg(long, value_name = "NAME", requires = "command")]
    env: Vec<String>,
    /// How long a task of the command may take.
    #[arg(long, value_name = "DURATION", requires = "command")]
    timeout: Option<Span>,
    /// Which log records.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Drain when standard input ends, for supervisors.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
    /// Be killed where the variable `SHEAF_CRASH_AT` says, for crash tests.
    #[arg(long, hide = true)]
    crash_points: bool,
    /// A command that trains, after `--`; see docs/trainers.md.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn join(args: Args) -> anyhow::Result<()> {
    sheaf_telemetry::init(&LogOptions { format: LogFormat::Text, filter: args.log.clone() })?;
    super::arm_crash_point(args.crash_points)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(participate(args));
    // A task stuck in a read of standard input must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

async fn participate(args: Args) -> anyhow::Result<()> {
    let scope = TaskScope::new();
    let shutdown = sheaf_runtime::on_signals(&scope)?;
    let mut shutdown = if args.until_stdin_ends { shutdown.or_when_stdin_ends(&scope) } else { shutdown };
    let kit = args.kit.as_deref().map(Kit::load).transpose()?;
    let dir = site_dir(&args, kit.as_ref())?;
    let (config, base) = site_config(&args)?;
    let trainers =
        Trainers::open(&config.trainers, config.policy.clone(), &base, &Compute::for_this_machine())?;
    let options = JoinOptions {
        kit,
        link: config.link(&base)?,
        tasks_max: config.tasks_max,
        events: EventSink::new(tell),
        ..JoinOptions::new(dir, std::sync::Arc::new(trainers))
    };
    let participant = tokio::select! {
        biased;
        () = shutdown.requested() => return Ok(()),
        participant = enrol(options) => participant?,
    };
    eprintln!("{} takes part", participant.site());
    participant.run(shutdown).await?;
    scope.cancel();
    Ok(())
}

fn site_dir(args: &Args, kit: Option<&Kit>) -> anyhow::Result<PathBuf> {
    match (&args.dir, kit) {
        (Some(dir), _) => Ok(dir.clone()),
        (None, Some(kit)) => Ok(PathBuf::from(kit.site.as_str())),
        (None, None) => {
            Err(Failure::usage("name the kit, or with --dir the directory of a site that has joined").into())
        }
    }
}

/// The configuration file with the command line laid over it, and the directory its paths start from.
fn site_config(args: &Args) -> anyhow::Result<(SiteConfig, PathBuf)> {
    let here = std::env::current_dir()?;
    let (mut config, base) = match &args.config {
        Some(file) => {
            let file = std::path::absolute(file)?;
            let base = file.parent().unwrap_or_else(|| Path::new("/")).to_owned();
            (SiteConfig::load(&file).with_context(|| file.display().to_string())?, base)
        }
        None => (SiteConfig::default(), here.clone()),
    };
    match args.transport.as_deref() {
        Some("https") => config.transport = TransportKind::Https,
        Some(_) => config.transport = TransportKind::Grpc,
        None => {}
    }
    match args.auth.as_deref() {
        Some("signed") => config.auth = Auth::Signed,
        Some(_) => config.auth = Auth::Certificate,
        None => {}
    }
    if let Some(file) = &args.proxy_ca {
        config.proxy_ca = Some(here.join(file));
    }
    if let Some(spec) = trainer_of(args, &here)? {
        config.trainers.insert(args.trainer.clone(), spec);
    }
    if config.trainers.is_empty() {
        return Err(Failure::usage(
            "say what to train with: --data FILE, a command after `--`, or a --config file",
        )
        .into());
    }
    Ok((config, base))
}

/// The trainer the command line describes, if it does.
fn trainer_of(args: &Args, here: &Path) -> anyhow::Result<Option<TrainerSpec>> {
    if let Some(data) = &args.data {
        let spec = BuiltinSpec {
            data: here.join(data),
            label: args.label.clone(),
            num_classes: args.classes,
            scale: args.scale.unwrap_or(1.0),
            test: None,
            holdout: args.holdout,
        };
        return match args.trainer.as_str() {
            "softmax" => Ok(Some(TrainerSpec::Softmax(spec))),
            "mlp" => Ok(Some(TrainerSpec::Mlp(spec))),
            other => Err(Failure::usage(format!(
                "{other:?} is not built in: softmax and mlp are; give a command after `--`"
            ))
            .into()),
        };
    }
    if args.command.is_empty() {
        return Ok(None);
    }
    let mut spec = ExecSpec::new(args.command.iter().cloned());
    spec.workdir = args.workdir.as_deref().map_or_else(|| here.to_owned(), |dir| here.join(dir));
    spec.env.clone_from(&args.env);
    if let Some(timeout) = args.timeout {
        spec.timeout = timeout;
    }
    Ok(Some(TrainerSpec::Exec(spec)))
}

/// Tells a person at the site what needs a person; everything else is in the log.
fn tell(event: Event) {
    match event {
        Event::ApprovalAwaited { fingerprint } => {
            output::line(format!(
                "waiting for an operator's approval; read them this fingerprint: {fingerprint}"
            ));
        }
        Event::Enrolled { not_after } => {
            output::line(format!(
                "enrolled; the certificate is valid until {} UTC and renews itself",
                output::utc(not_after)
            ));
        }
        _ => {}
    }
}
