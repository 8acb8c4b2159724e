//! The command line's grammar; what each command does is in its own file.

use clap::{Parser, Subcommand};

use crate::commands::{
    backup, bench, completions, config, demo, invite, join, journal, login, logs, ls, model, nodes, openfl,
    pki, replay, rm, run, serve, start_server, status, stop, superlink,
};
use crate::operator::OperatorArgs;

/// Federated learning: one server for every client a site already runs.
#[derive(Debug, Parser)]
#[command(name = "sheaf", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// Print results as JSON.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Reads the command line. Called by the name of another stack's server, this program is that server.
pub(crate) fn parse() -> Cli {
    let mut words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let called = words.first().map(std::path::PathBuf::from);
    match called.as_deref().and_then(std::path::Path::file_name).and_then(std::ffi::OsStr::to_str) {
        Some("flower-superlink") => words.insert(1, "superlink".into()),
        Some("fx") => words = openfl::words_of_fx(words),
        _ => {}
    }
    Cli::parse_from(words)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(Box<serve::Args>),
    /// Run the server for Flower, with the options of `flower-superlink`.
    Superlink(Box<superlink::Args>),
    /// Train with clients of Flower's `start_client`, then send them away.
    StartServer(Box<start_server::Args>),
    /// Serve stock OpenFL collaborators, in a workspace made by `fx`.
    Openfl(Box<openfl::Args>),
    /// Take part as a site: enrol with a kit, then train and evaluate when asked to.
    Join(Box<join::Args>),
    /// Start a run from a plan, warm-start it from another, or extend one.
    Run(run::Args),
    /// List runs.
    Ls(ls::Args),
    /// Show what a run (or every run) is doing and what it waits for.
    Status(status::Args),
    /// Print what happened in a run.
    Logs(logs::Args),
    /// Stop a run.
    Stop(stop::Args),
    /// Remove an ended run: its journal and its bytes.
    Rm(rm::Args),
    /// List the sites, whether they are present and what they work on.
    Nodes(nodes::Args),
    /// Fetch a model.
    Model(model::Args),
    /// Check a run's journal and rebuild every model whose inputs are kept.
    Replay(replay::Args),
    /// Export a journal with its signature, or check an exported one.
    Journal(journal::Args),
    /// Back up the running server into a new directory on its machine.
    Backup(backup::BackupArgs),
    /// Make a data directory of a backup.
    Restore(backup::RestoreArgs),
    /// Invite a site: writes its one-file kit.
    Invite(invite::Args),
    /// Let in a site that waits for approval, after comparing fingerprints.
    Approve(invite::ApproveArgs),
    /// Shut a site out, on live connections too.
    Revoke(invite::RevokeArgs),
    /// Let operators log in from other machines with `flwr login`.
    Login(login::Args),
    /// Make and inspect keys and certificates.
    Pki(pki::Args),
    /// Show the server's configuration and where each value comes from.
    Config(config::Args),
    /// Run a whole federation on this machine: a server, five sites, real data.
    Demo(demo::Args),
    /// Measure this program on this machine, beside what the machine allows.
    Bench(bench::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}
