//! The `sheaf` command: one binary for the server, participants and operators.
//!
//! Standard output is data, standard error is talk. Errors are one sentence with the remedy; exit codes are listed in [`exit`].

mod args;
mod commands;
mod exit;
mod follow;
mod operator;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match commands::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
