//! `sheaf superlink`, also as `flower-superlink`: the server with upstream's options.
//!
//! What is not supported is refused by name, with the reason; nothing is ignored in silence.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use sheaf_domain::Span;
use sheaf_runtime::TaskScope;
use sheaf_server::{Config, FlowerSection, LogSection, LoopbackAddr, Server, ServerAppsMode};

/// The value of `--database` that keeps nothing.
const IN_MEMORY: &str = ":flwr-in-memory:";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Serve without TLS.
    #[arg(long)]
    insecure: bool,
    /// The server's certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    ssl_certfile: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE")]
    ssl_keyfile: Option<PathBuf>,
    /// The CA of that certificate (PEM): what ServerApps started here trust.
    #[arg(long, value_name = "FILE")]
    ssl_ca_certfile: Option<PathBuf>,
    /// Who starts ServerApps: this server (subprocess), or a flower-superexec of yours (process).
    #[arg(long, value_name = "MODE", value_parser = ["subprocess", "process"])]
    isolation: Option<String>,
    /// The directory that everything is kept in; `:flwr-in-memory:` keeps nothing beyond the process.
    #[arg(long, value_name = "DIR", default_value = IN_MEMORY)]
    database: String,
    /// Let in only SuperNodes whose keys were registered with `flwr supernode register`.
    #[arg(long)]
    enable_supernode_auth: bool,
    /// The host to listen on.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// The port to listen on.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// A further address that SuperNodes reach, over gRPC or HTTP.
    #[arg(long, value_name = "ADDRESS")]
    fleet_api_address: Option<String>,
    /// Where the flwr command and ServerApps are served; a loopback address.
    #[arg(long, value_name = "ADDRESS")]
    control_api_address: Option<String>,
    /// How SuperNodes speak on the further address; every address serves every way.
    #[arg(long, value_name = "TYPE", value_parser = ["grpc-rere", "grpc-adapter"])]
    fleet_api_type: Option<String>,
    /// Where health is served, without TLS.
    #[arg(long, value_name = "ADDRESS")]
    health_server_address: Option<String>,
    /// Do not install dependencies of apps when they start: it is never done here.
    #[arg(long)]
    disable_runtime_dependency_installation: bool,
    /// Install dependencies of apps when they start.
    #[arg(long, hide = true)]
    allow_runtime_dependency_installation: bool,
    /// A file whose bytes every SuperExec must prove to know.
    #[arg(long, value_name = "FILE")]
    superexec_auth_secret_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    auth_list_public_keys: Option<PathBuf>,
    #[arg(long, hide = true)]
    simulation: bool,
    #[arg(long, hide = true)]
    log_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    log_rotation_interval_hours: Option<String>,
    #[arg(long, hide = true)]
    log_rotation_backup_count: Option<String>,
    /// The `flwr-serverapp` program [default: found on the PATH].
    #[arg(long, value_name = "FILE", help_heading = "Beyond upstream")]
    server_app: Option<PathBuf>,
    /// Let operators log in from anywhere, with `flwr login` and `sheaf login approve`, over TLS; nobody else is served the flwr command.
    #[arg(long, help_heading = "Beyond upstream")]
    operator_login: bool,
    /// Believe a SuperNode's key on the TLS connection it was verified on for a while: only where no proxy stands in front.
    #[arg(long, help_heading = "Beyond upstream")]
    direct_connections: bool,
    /// Start ServerApps even where nothing keeps them from reading what this server can read.
    #[arg(long, help_heading = "Beyond upstream")]
    server_apps_unwalled: bool,
    /// The longest a request for work is held while there is none, such as `20s`; `0s` answers at once.
    #[arg(long, value_name = "TIME", help_heading = "Beyond upstream")]
    hold_max: Option<Span>,
    /// Be killed where the variable `SHEAF_CRASH_AT` says, for crash tests.
    #[arg(long, hide = true)]
    crash_points: bool,
}

pub(crate) fn superlink(args: Args) -> anyhow::Result<()> {
    refuse_unsupported(&args)?;
    let (config, kept) = config(&args)?;
    sheaf_telemetry::init(&config.log.options())?;
    super::arm_crash_point(args.crash_points)?;
    sheaf_server::bound_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async move {
        let scope = TaskScope::new();
        let shutdown = sheaf_runtime::on_signals(&scope)?;
        Server::start(config).await?.run(shutdown).await;
        scope.cancel();
        anyhow::Ok(())
    });
    runtime.shutdown_background();
    drop(kept);
    served
}

/// What upstream offers and this server does not.
fn refuse_unsupported(args: &Args) -> anyhow::Result<()> {
    if args.auth_list_public_keys.is_some() {
        bail!("--auth-list-public-keys is not served: register each key with `flwr supernode register`");
    }
    if args.simulation {
        bail!("--simulation is not served yet: this server runs deployed SuperNodes");
    }
    if args.allow_runtime_dependency_installation {
        bail!(
            "--allow-runtime-dependency-installation is not served: install what apps need beside flwr-serverapp"
        );
    }
    for (flag, given) in [
        ("--log-file", args.log_file.is_some()),
        ("--log-rotation-interval-hours", args.log_rotation_interval_hours.is_some()),
        ("--log-rotation-backup-count", args.log_rotation_backup_count.is_some()),
    ] {
        if given {
            bail!("{flag} is not served: the log is standard error; let a service manager keep it");
        }
    }
    if args.insecure && args.operator_login {
        bail!("--operator-login needs TLS: give --ssl-certfile and --ssl-keyfile in place of --insecure");
    }
    if !args.insecure && (args.ssl_certfile.is_none() || args.ssl_keyfile.is_none()) {
        bail!(
            "give --ssl-certfile and --ssl-keyfile (and --ssl-ca-certfile) for TLS, or ask for none with --insecure"
        );
    }
    Ok(())
}

/// The configuration, and a directory that lives as long as the server where nothing is to be kept.
fn config(args: &Args) -> anyhow::Result<(Config, Option<tempfile::TempDir>)> {
    let address = address("--host and --port", &host_port(&args.host, args.port))?;
    let also = args
        .fleet_api_address
        .as_deref()
        .map(|text| self::address("--fleet-api-address", text))
        .transpose()?;
    let local = args.control_api_address.as_deref().map(|text| self::address("--control-api-address", text));
    let local = local.transpose()?.map(|local| {
        LoopbackAddr::try_from(local).map_err(|error| {
            anyhow::anyhow!("--control-api-address {local}: {error}: whoever reaches it may run code here")
        })
    });
    let health =
        args.health_server_address.as_deref().map(|text| self::address("--health-server-address", text));
    let (data_dir, kept) = data_dir(&args.database)?;
    let flower = FlowerSection {
        address: Some(address),
        also,
        local: local.transpose()?,
        certificate: args.ssl_certfile.clone(),
        key: args.ssl_keyfile.clone(),
        roots: args.ssl_ca_certfile.clone(),
        insecure: args.insecure,
        supernode_auth: args.enable_supernode_auth,
        server_apps: args.isolation.as_deref().map(|mode| match mode {
            "process" => ServerAppsMode::External,
            _ => ServerAppsMode::Sandboxed,
        }),
        server_app: args.server_app.clone(),
        server_app_account: None,
        superexec_secret: args.superexec_auth_secret_file.clone(),
        server_apps_unwalled: args.server_apps_unwalled,
        operator_login: args.operator_login,
        direct_connections: args.direct_connections,
    };
    let mut config = Config { data_dir, flower, log: LogSection::default(), ..Config::default() };
    // Operators of this machine find the port in the data directory.
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.telemetry.address = health.transpose()?;
    config.limits.hold_max = args.hold_max.unwrap_or(config.limits.hold_max);
    Ok((config, kept))
}

fn data_dir(database: &str) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    if database.is_empty() || database == IN_MEMORY {
        let dir = tempfile::Builder::new().prefix("sheaf-superlink-").tempdir()?;
        eprintln!(
            "--database {IN_MEMORY}: nothing is kept beyond this process; give a directory to keep runs and nodes"
        );
        return Ok((dir.path().join("data"), Some(dir)));
    }
    if database.contains("://") {
        bail!("--database {database}: only a directory of this machine is served");
    }
    let path = PathBuf::from(database);
    if path.is_file() {
        bail!(
            "--database {database} is a file of another program; this server keeps a directory: name a new one"
        );
    }
    Ok((path, None))
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// An address of any of the forms upstream takes: IPv4, IPv6 in brackets, or a name, each with a port.
fn address(flag: &str, text: &str) -> anyhow::Result<SocketAddr> {
    let found = text.to_socket_addrs().with_context(|| format!("{flag} {text} is no address: HOST:PORT"))?;
    let mut all: Vec<SocketAddr> = found.collect();
    // A name that has both is listened on over IPv4.
    all.sort_by_key(SocketAddr::is_ipv6);
    all.first().copied().with_context(|| format!("{flag} {text}: the name has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_three_forms_and_others_are_named() {
        for (text, expected) in [("127.0.0.1:1", "127.0.0.1:1"), ("[::1]:2", "[::1]:2")] {
            assert_eq!(address("--x", text).unwrap().to_string(), expected);
        }
        assert!(address("--x", "localhost:3").unwrap().ip().is_loopback());
        assert_eq!(host_port("::1", 4), "[::1]:4");
        for bad in ["127.0.0.1", "nowhere:port", ":", "1.2.3.4:99999"] {
            let error = format!("{:#}", address("--fleet-api-address", bad).unwrap_err());
            assert!(error.contains("--fleet-api-address") && error.contains(bad), "{error}");
        }
    }
}
