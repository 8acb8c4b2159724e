//! `sheaf logs [RUN] [-f]`: what happened in a run, from its journal.

use sheaf_domain::{JournalId, RunStatus};

use super::Context;
use crate::follow::{Follower, Hold, describe, is_away, journal_of, status};
use crate::operator::Operator;
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
    let journal = journal_of(&mut operator, &args.run).await?;
    let mut follower = Follower::new(journal.to_string());
    let mut over = None;
    loop {
        // Once the run is over nothing new comes: what is left is read without waiting.
        let hold = if args.follow && over.is_none() { Hold::Long } else { Hold::None };
        let entries = follower.next(&mut operator, hold).await?;
        for entry in &entries {
            if context.json {
                output::json(entry)?;
            } else {
                output::line(describe(entry));
            }
        }
        let all_told = entries.is_empty();
        if all_told && (!args.follow || over.is_some()) {
            break;
        }
        if args.follow && over.is_none() {
            over = ended(&mut operator, journal).await?;
        }
    }
    if let Some(status) = over {
        eprintln!(
            "run {} {}: {}",
            status.run,
            status.phase.name(),
            status.phase.reason().unwrap_or_default()
        );
    }
    Ok(())
}

/// The state of a run that is over.
async fn ended(operator: &mut Operator, journal: JournalId) -> anyhow::Result<Option<RunStatus>> {
    let JournalId::Run(run) = journal else { return Ok(None) };
    match status(operator, run).await {
        Ok(status) => Ok(Some(status).filter(|status| status.phase.is_over())),
        // The follower knows for how long a server may be away.
        Err(error) if is_away(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
