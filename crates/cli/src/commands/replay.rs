//! `sheaf replay RUN`: the chain checked, every model rebuilt whose inputs are kept.

use sheaf_coordinator::{ReplayReport, ReplayVerdict};
use sheaf_domain::ErrorKind;

use super::Context;
use crate::exit::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id, beginning of an id, or name.
    run: String,
}

pub(crate) async fn replay(args: Args, context: &Context) -> anyhow::Result<()> {
    let path = format!("/runs/{}/replay", args.run);
    let report: ReplayReport = context.operator()?.post_long(&path, &serde_json::json!({})).await?;
    let different =
        report.rounds.iter().filter(|r| matches!(r.verdict, ReplayVerdict::Different { .. })).count();
    if context.json {
        output::json(&report)?;
    } else {
        print(&report);
    }
    if different > 0 {
        let message =
            format!("{different} of {} models are not what their updates make", report.rounds.len());
        return Err(Failure::new(ErrorKind::Internal, message).into());
    }
    Ok(())
}

fn print(report: &ReplayReport) {
    output::line(format!(
        "run {}: {} entries, the chain holds up to {}",
        report.run, report.entries, report.head
    ));
    let rows = report.rounds.iter().map(|round| {
        let verdict = match &round.verdict {
            ReplayVerdict::Same => "rebuilt, the same".to_owned(),
            ReplayVerdict::Different { rebuilt } => format!("rebuilt as {}: DIFFERENT", rebuilt.short()),
            ReplayVerdict::NotKept { reason } => format!("not rebuilt: {reason}"),
        };
        vec![round.round.to_string(), round.digest.short(), verdict]
    });
    output::table(&["round", "model", "verdict"], rows);
}
