//! `sheaf bench`: what this program does on this machine, beside what the machine allows.
//!
//! Server and load are processes of their own; the server is `sheaf serve` as it is shipped. Every figure stands beside a limit
//! measured in the same run. `docs/performance.md` says what each field means.

mod durability;
mod exchange;
mod fold;
mod load;
mod place;
mod polls;
mod server;

use std::future::Future;
use std::path::PathBuf;

use clap::Subcommand;
use sheaf_bench::limits::Sealing;
use sheaf_client::participant::TransportKind;
use sheaf_domain::ByteSize;
use sheaf_runtime::TaskScope;

use super::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Whole rounds with many participants: read the model, send a whole update, fold, publish.
    Exchange(exchange::Args),
    /// Many connections that beat and ask for work.
    Polls(polls::Args),
    /// Folding updates, from memory and from the disk.
    Fold(fold::Args),
    /// Journal entries that become durable in a second.
    Durability(durability::Args),
    /// The load of another bench, in a process of its own.
    #[command(hide = true)]
    Load(load::Args),
}

/// How participants of a load reach the server.
#[derive(Debug, clap::Args)]
struct WayArgs {
    /// The transport: grpc or https.
    #[arg(long, default_value = "grpc", value_parser = ["grpc", "https"])]
    transport: String,
    /// Over TLS, as participants connect; the default.
    #[arg(long, conflicts_with = "plain")]
    tls: bool,
    /// Without TLS, on loopback, for measuring alone.
    #[arg(long)]
    plain: bool,
}

impl WayArgs {
    fn transport(&self) -> TransportKind {
        if self.transport == "https" { TransportKind::Https } else { TransportKind::Grpc }
    }

    fn sealing(&self) -> Sealing {
        if self.plain { Sealing::Plain } else { Sealing::Tls }
    }
}

/// Where a bench writes, and how much its probes move.
#[derive(Debug, clap::Args)]
struct PlaceArgs {
    /// Where everything goes, and whose disk is measured; must be new or empty, and is kept [default: a new directory in the
    /// system's temporary one, removed at the end].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How many bytes each probe of a limit moves.
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    probe: ByteSize,
}

pub(crate) fn bench(args: Args, context: &Context) -> anyhow::Result<()> {
    let json = context.json;
    match args.what {
        What::Exchange(args) => until_stopped(exchange::exchange(args, json)),
        What::Polls(args) => until_stopped(polls::polls(args, json)),
        What::Fold(args) => until_stopped(fold::fold(args, json)),
        What::Durability(args) => until_stopped(durability::durability(args, json)),
        What::Load(args) => load::load(&args),
    }
}

/// Runs a bench; asked to stop, it is dropped, and its processes and files go with it.
fn until_stopped(bench: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    super::block_on(async {
        let scope = TaskScope::new();
        let mut shutdown = sheaf_runtime::on_signals(&scope)?;
        let outcome = tokio::select! {
            biased;
            () = shutdown.requested() => {
                eprintln!("stopped on request; nothing was measured to its end");
                Ok(())
            }
            outcome = Box::pin(bench) => outcome,
        };
        scope.cancel();
        outcome
    })
}
