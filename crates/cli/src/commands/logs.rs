//! `sheaf logs [RUN] [-f]`: what happened in a run, from its journal.

use super::Context;
use crate::follow::{Follower, Hold, describe};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id, beginning of an id, or name; `federation` for enrolments and revocations.
    run: String,
    /// Go on as things happen, until the run ends.
    #[arg(short, long)]
    follow: bool,
}

pub(crate) async fn logs(args: Args, context: &Context) -> anyhow::Result<()> {
    let mut operator = context.operator()?;
    let mut follower = Follower::new(args.run.clone());
    loop {
        let hold = if args.follow { Hold::Long } else { Hold::None };
        let entries = follower.next(&mut operator, hold).await?;
        for entry in &entries {
            if context.json {
                output::json(entry)?;
            } else {
                output::line(describe(entry));
            }
        }
        if !entries.is_empty() {
            continue;
        }
        if !args.follow {
            return Ok(());
        }
        if args.run != "federation" {
            let status: sheaf_domain::RunStatus = operator.get(&format!("/runs/{}", args.run)).await?;
            if status.phase.is_over() {
                return Ok(());
            }
        }
    }
}
