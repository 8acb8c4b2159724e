//! `sheaf demo`: a whole federation on this machine, on real data, in real processes.
//!
//! A supervisor: it starts one server and one process a site, starts a run, tells how it goes, brings back what dies, compares
//! the federated model with what each site gets alone, and stops everything again. Everything lies in one data directory.

mod children;
mod progress;
mod report;
mod shards;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sheaf_admin_api::InviteBody;
use sheaf_domain::plan::{Plan, StrategyKind};
use sheaf_domain::{ErrorKind, RunId, RunPhase, RunStatus, SiteName, Span};
use sheaf_runtime::{Clock, Shutdown, SystemClock, TaskScope};

use super::Context;
use crate::exit::Failure;
use crate::follow::is_away;
use crate::operator::{Operator, OperatorArgs};
use crate::output;
use children::{Children, Layout};
use progress::Progress;
use shards::Shards;

/// Epochs a site trains in a round.
const LOCAL_EPOCHS: u32 = 5;
/// Examples a gradient step takes.
const BATCH_SIZE: u32 = 8;
/// The step's length.
const LEARNING_RATE: f64 = 0.2;
/// Units of the hidden layer.
const HIDDEN: u32 = 64;
/// The most sites that are started on one machine.
const SITES_MAX: u32 = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What all pseudo-randomness derives from: the split, the first model, the order of examples.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Rounds to train.
    #[arg(long, default_value_t = 20, value_name = "N")]
    rounds: u32,
    /// Sites, each a process of its own.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SITES_MAX)))]
    sites: u32,
    /// How updates become the next model.
    #[arg(long, default_value = "fedavg", value_name = "NAME", value_parser = StrategyKind::NAMES)]
    strategy: String,
    /// How sites reach the server.
    #[arg(long, default_value = "grpc", value_parser = ["grpc", "https"])]
    transport: String,
    /// Where everything goes; must be new or empty [default: a new directory in the system's temporary one].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How long updates are kept; "run" lets `sheaf replay` rebuild every round.
    #[arg(long, default_value = "round", value_name = "ROUNDS", value_parser = ["round", "run"])]
    keep_updates: String,
}

pub(crate) fn demo(args: Args, context: &Context) -> anyhow::Result<()> {
    let json = context.json;
    super::block_on(async move {
        let scope = TaskScope::new();
        let shutdown = sheaf_runtime::on_signals(&scope)?;
        let outcome = Demo::prepare(args)?.run(shutdown, json).await;
        scope.cancel();
        outcome
    })
}

/// A demo under way.
struct Demo {
    args: Args,
    layout: Layout,
    shards: Shards,
    plan: Plan,
    plan_text: String,
}

impl Demo {
    fn prepare(args: Args) -> anyhow::Result<Demo> {
        let shards = Shards::split(args.sites, args.seed)?;
        let plan_text = plan_of(&args);
        let plan = Plan::parse(&plan_text).context("the demo's plan")?;
        let layout = Layout::new(data_dir(args.data_dir.as_deref())?);
        layout.make(&shards)?;
        std::fs::write(layout.plan(), &plan_text)?;
        Ok(Demo { args, layout, shards, plan, plan_text })
    }

    async fn run(self, mut shutdown: Shutdown, json: bool) -> anyhow::Result<()> {
        let clock = SystemClock::shared();
        let started = clock.monotonic();
        eprintln!("everything of this demo lies in {}", self.layout.root().display());
        let mut children = Children::new(self.layout.clone(), self.args.transport.clone());
        let federated = tokio::select! {
            biased;
            () = shutdown.requested() => None,
            federated = self.federate(&mut children, &*clock) => Some(federated),
        };
        children.stop().await;
        let Some(federated) = federated else {
            eprintln!("\nstopped on request; nothing is left running");
            return Ok(());
        };
        let (run, status) = federated?;
        let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
        self.report(run, &status, seconds, json)
    }

    /// Starts everything, follows the run to its end and fetches what it made.
    async fn federate(
        &self,
        children: &mut Children,
        clock: &dyn Clock,
    ) -> anyhow::Result<(RunId, RunStatus)> {
        children.start_server(clock).await?;
        let mut operator = Operator::open(&OperatorArgs { operator: self.layout.operator(), server: None })?;
        for site in self.shards.names() {
            invite(&mut operator, site, &self.layout.kit(site)).await?;
            children.start_site(site)?;
        }
        let run =
            super::run::start(&mut operator, &self.layout.plan(), &self.plan, self.plan_text.clone(), None)
                .await?;
        let mut progress = Progress::new(run, self.args.rounds, self.args.sites);
        let status = loop {
            children.bring_back(clock).await?;
            if let Some(status) = progress.step(&mut operator).await? {
                break status;
            }
        };
        if let RunPhase::Failed { reason } | RunPhase::Stopped { reason } = &status.phase {
            return Err(Failure::new(ErrorKind::Internal, format!("the run ended early: {reason}")).into());
        }
        let (name, layout) = (run.to_string(), &self.layout);
        insist(children, clock, &mut operator, async |operator| {
            super::model::fetch(operator, &name, "last", &layout.model()).await?;
            super::journal::export_to(operator, &name, &layout.journal()).await
        })
        .await?;
        Ok((run, status))
    }

    fn report(&self, run: RunId, status: &RunStatus, seconds: f64, json: bool) -> anyhow::Result<()> {
        eprintln!("training every site alone for as many epochs, to compare");
        let report =
            report::Report::make(&self.shards, &self.layout, status, self.args.rounds, self.args.seed)?;
        std::fs::write(self.layout.metrics(), serde_json::to_string_pretty(&status.history)?)?;
        report.print(run, &self.layout, status, seconds);
        if json {
            output::json(&report.to_json(&self.layout, self.args.rounds, seconds))?;
        }
        Ok(())
    }
}

/// Asks the server for something, again when it died over it.
async fn insist<T>(
    children: &mut Children,
    clock: &dyn Clock,
    operator: &mut Operator,
    mut ask: impl AsyncFnMut(&mut Operator) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let started = clock.monotonic();
    loop {
        match ask(operator).await {
            Err(error) if is_away(&error) && clock.monotonic().saturating_sub(started) < READY_WITHIN => {
                tokio::time::sleep(LOOK_EVERY).await;
                children.bring_back(clock).await?;
            }
            outcome => return outcome,
        }
    }
}

async fn invite(operator: &mut Operator, site: &SiteName, kit: &Path) -> anyhow::Result<()> {
    let body = InviteBody { site: site.clone(), ttl: Span::from_secs(3600), approve: false };
    super::invite::write_kit(operator, &body, kit).await
}

fn plan_of(args: &Args) -> String {
    let strategy = match args.strategy.as_str() {
        "fedprox" => "proximal_mu = 0.01\n",
        "fedavgm" => "server_learning_rate = 1.0\nserver_momentum = 0.5\n",
        "fedadagrad" | "fedadam" | "fedyogi" => "server_learning_rate = 0.03\n",
        "trimmed-mean" => "trim_share = 0.2\n",
        "krum" => "byzantine = 1\nkeep = 3\n",
        _ => "",
    };
    format!(
        "# Written by `sheaf demo`; `sheaf run` takes the same.\n\
         [run]\nname = \"digits\"\nrounds = {rounds}\nseed = {seed}\nkeep_updates = \"{keep}\"\n\n\
         [model]\ninit = \"trainer\"\n\n\
         [strategy]\nkind = \"{kind}\"\n{strategy}\n\
         [cohort]\nmin = {sites}\nfraction = 1.0\nquorum = 1.0\n\n\
         [task]\ntrainer = \"mlp\"\n\n\
         [task.init]\nhidden = {HIDDEN}\n\n\
         [task.train]\nepochs = {LOCAL_EPOCHS}\nbatch_size = {BATCH_SIZE}\nlearning_rate = {LEARNING_RATE:?}\n\n\
         [task.evaluate]\nevery = 1\nmetric = \"accuracy\"\nbetter = \"higher\"\n",
        rounds = args.rounds,
        seed = args.seed,
        keep = args.keep_updates,
        kind = args.strategy,
        sites = args.sites,
    )
}

fn data_dir(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    let Some(asked) = asked else {
        return Ok(tempfile::Builder::new().prefix("sheaf-demo-").tempdir()?.keep());
    };
    std::fs::create_dir_all(asked).with_context(|| format!("cannot make {}", asked.display()))?;
    if std::fs::read_dir(asked)?.next().is_some() {
        let message = format!("{} is not empty; a demo needs a directory of its own", asked.display());
        return Err(Failure::new(ErrorKind::Conflict, message).into());
    }
    Ok(std::path::absolute(asked)?)
}

/// How long a child may take to become ready, and how often that is looked at.
const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
