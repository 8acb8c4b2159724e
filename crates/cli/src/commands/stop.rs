//! `sheaf stop RUN`

use sheaf_admin_api::ReasonBody;
use sheaf_domain::RunStatus;

use super::Context;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id, beginning of an id, or name.
    run: String,
    /// Why, for the journal.
    #[arg(long, default_value = "")]
    reason: String,
}

pub(crate) async fn stop(args: Args, context: &Context) -> anyhow::Result<()> {
    let body = ReasonBody { reason: args.reason };
    let status: RunStatus = context.operator()?.post(&format!("/runs/{}/stop", args.run), &body).await?;
    if context.json {
        return output::json(&status);
    }
    output::line(format!("run {} {} is stopped after round {}", status.run, status.name, status.round));
    Ok(())
}
