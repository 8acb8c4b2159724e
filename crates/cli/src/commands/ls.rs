//! `sheaf ls`: every run, newest first.

use sheaf_domain::RunStatus;

use super::Context;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only runs that go on.
    #[arg(long)]
    running: bool,
}

pub(crate) async fn ls(args: Args, context: &Context) -> anyhow::Result<()> {
    let mut runs: Vec<RunStatus> = context.operator()?.get("/runs").await?;
    runs.retain(|run| !args.running || !run.phase.is_over());
    if context.json {
        return output::json(&runs);
    }
    let rows = runs.iter().map(|run| {
        let why = run.waits.first().map(ToString::to_string);
        vec![
            run.run.to_string(),
            run.name.clone(),
            run.phase.name().to_owned(),
            format!("{}/{}", run.round, run.rounds),
            output::utc(run.created_at),
            why.or_else(|| run.phase.reason().map(str::to_owned)).unwrap_or_default(),
        ]
    });
    output::table(&["run", "name", "phase", "round", "created (utc)", "why"], rows);
    Ok(())
}
