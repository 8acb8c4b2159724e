//! One file a command; this one sends each to its own.

pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod journal;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod model;
pub(crate) mod nodes;
pub(crate) mod openfl;
pub(crate) mod pki;
pub(crate) mod replay;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod start_server;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod superlink;

use std::future::Future;

use sheaf_runtime::crash;

use crate::args::{Cli, Command};
use crate::operator::Operator;

/// What every command is given.
pub(crate) struct Context {
    pub(crate) operator: crate::operator::OperatorArgs,
    pub(crate) json: bool,
}

impl Context {
    /// Opens the operator's connection.
    pub(crate) fn operator(&self) -> anyhow::Result<Operator> {
        Operator::open(&self.operator)
    }
}

/// Does what the command line asks for.
pub(crate) fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let context = Context { operator: cli.operator, json: cli.json };
    match cli.command {
        Command::Serve(args) => serve::serve(*args),
        Command::Superlink(args) => superlink::superlink(*args),
        Command::StartServer(args) => start_server::start_server(*args, &context),
        Command::Openfl(args) => openfl::openfl(*args),
        Command::Join(args) => join::join(*args),
        Command::Demo(args) => demo::demo(args, &context),
        Command::Restore(args) => backup::restore(&args, &context),
        Command::Bench(args) => bench::bench(args, &context),
        Command::Pki(args) => pki::pki(args, &context),
        Command::Config(args) => config::config(args, &context),
        Command::Completions(args) => completions::completions(&args),
        Command::Run(args) => block_on(run::run(args, &context)),
        Command::Ls(args) => block_on(ls::ls(args, &context)),
        Command::Status(args) => block_on(status::status(args, &context)),
        Command::Logs(args) => block_on(logs::logs(args, &context)),
        Command::Stop(args) => block_on(stop::stop(args, &context)),
        Command::Rm(args) => block_on(rm::rm(args, &context)),
        Command::Nodes(args) => block_on(nodes::nodes(args, &context)),
        Command::Model(args) => block_on(model::model(args, &context)),
        Command::Replay(args) => block_on(replay::replay(args, &context)),
        Command::Journal(args) => block_on(journal::journal(args, &context)),
        Command::Backup(args) => block_on(backup::backup(args, &context)),
        Command::Invite(args) => block_on(invite::invite(args, &context)),
        Command::Approve(args) => block_on(invite::approve(args, &context)),
        Command::Login(args) => block_on(login::login(args, &context)),
        Command::Revoke(args) => block_on(invite::revoke(args, &context)),
    }
}

/// Runs a command that talks to the server.
pub(crate) fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(command)
}

/// Arms a crash test's place, where the command line asks for it.
fn arm_crash_point(asked: bool) -> anyhow::Result<()> {
    match std::env::var(crash::VARIABLE) {
        Ok(place) if asked => Ok(crash::arm(&place)?),
        _ => Ok(()),
    }
}
