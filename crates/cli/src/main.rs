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

fn main() -> ExitCode {
    // The server starts programs of others through this program; before anything else, as a confiner has no threads.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == sheaf_sandbox::CONFINE) {
        return sheaf_sandbox::confine_main();
    }
    let cli = args::parse();
    match commands::dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
