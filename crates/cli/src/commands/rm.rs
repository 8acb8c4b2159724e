//! `sheaf rm RUN`: a run removed for good.

use sheaf_admin_api::RemoveBody;
use sheaf_coordinator::RemovedRun;

use super::Context;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id, beginning of an id, or name.
    run: String,
    /// Stop it first if it goes on; remove it also if its journal is broken.
    #[arg(long)]
    force: bool,
}

pub(crate) async fn rm(args: Args, context: &Context) -> anyhow::Result<()> {
    let body = RemoveBody { force: args.force };
    let path = format!("/runs/{}/remove", args.run);
    let removed: RemovedRun = context.operator()?.post_long(&path, &body).await?;
    if context.json {
        return output::json(&removed);
    }
    let RemovedRun { run, name, entries, head } = removed;
    output::line(format!(
        "run {run} {name} is removed; its journal had {entries} entries and ended with {head}"
    ));
    Ok(())
}
