//! `sheaf serve`: the server, until SIGTERM or SIGINT.

use std::net::SocketAddr;
use std::path::PathBuf;

use sheaf_domain::ByteSize;
use sheaf_runtime::TaskScope;
use sheaf_server::{Layer, LogFormat, Resolved, Server};
use toml::Value;

/// Where the server's settings come from; shared with `sheaf config show`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConfigArgs {
    /// A configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept [default: sheaf-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port to listen on; port 0 lets the system choose [default: 127.0.0.1:7443].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A name or IP address participants reach this server by; may be repeated.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The most bytes the store may take, such as 50GiB.
    #[arg(long, value_name = "SIZE")]
    max_bytes: Option<ByteSize>,
    /// How lines of the log look: text or json.
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"])]
    log_format: Option<String>,
    /// Which log records, such as `info,sheaf_coordinator=debug`.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Drain when standard input ends, for supervisors.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
    /// Be killed where the variable `SHEAF_CRASH_AT` says, for crash tests.
    #[arg(long, hide = true)]
    crash_points: bool,
}

impl ConfigArgs {
    /// Lays defaults, file, environment and flags over one another.
    pub(crate) fn resolve(&self) -> Result<Resolved, sheaf_server::Error> {
        let mut layers = Vec::new();
        if let Some(file) = &self.config {
            layers.push(Layer::file(file)?);
        }
        layers.push(Layer::environment(std::env::vars()));
        let text = |text: String| Value::String(text);
        let mut flags: Vec<(&'static str, &'static str, Value)> = Vec::new();
        if let Some(dir) = &self.data_dir {
            flags.push(("data_dir", "--data-dir", text(dir.to_string_lossy().into_owned())));
        }
        if let Some(address) = &self.listen {
            flags.push(("listen.address", "--listen", text(address.to_string())));
        }
        if !self.names.is_empty() {
            let names = self.names.iter().cloned().map(Value::String).collect();
            flags.push(("listen.names", "--name", Value::Array(names)));
        }
        if let Some(size) = &self.max_bytes {
            flags.push(("store.max_bytes", "--max-bytes", text(size.to_string())));
        }
        if let Some(format) = &self.log_format {
            flags.push(("log.format", "--log-format", text(format.clone())));
        }
        if let Some(filter) = &self.log {
            flags.push(("log.filter", "--log", text(filter.clone())));
        }
        layers.push(Layer::flags(flags));
        Resolved::of(layers)
    }
}

pub(crate) fn serve(args: Args) -> anyhow::Result<()> {
    let config = args.config.resolve()?.config;
    sheaf_telemetry::init(&config.log.options())?;
    if config.log.format == LogFormat::Json {
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "sheaf");
    }
    super::arm_crash_point(args.crash_points)?;
    sheaf_server::bound_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async move {
        let scope = TaskScope::new();
        let shutdown = sheaf_runtime::on_signals(&scope)?;
        let shutdown = if args.until_stdin_ends { shutdown.or_when_stdin_ends(&scope) } else { shutdown };
        let server = Server::start(config).await?;
        server.run(shutdown).await;
        scope.cancel();
        anyhow::Ok(())
    });
    // A task stuck in a read of standard input must not hold up the exit.
    runtime.shutdown_background();
    served
}
