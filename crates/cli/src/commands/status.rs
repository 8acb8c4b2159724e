//! `sheaf status [RUN]`: what a run is doing, the reason for every wait, the last error of every site.

use sheaf_domain::{RoundRecord, RunPhase, RunStatus, Wait};

use super::Context;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id, beginning of an id, or name; without it, every run that goes on.
    run: Option<String>,
}

pub(crate) async fn status(args: Args, context: &Context) -> anyhow::Result<()> {
    let mut operator = context.operator()?;
    let runs: Vec<RunStatus> = match &args.run {
        Some(run) => vec![operator.get(&format!("/runs/{run}")).await?],
        None => {
            let mut runs: Vec<RunStatus> = operator.get("/runs").await?;
            runs.retain(|run| !run.phase.is_over() || matches!(run.phase, RunPhase::Broken { .. }));
            runs
        }
    };
    if context.json {
        return match (&args.run, runs.first()) {
            (Some(_), Some(run)) => output::json(run),
            _ => output::json(&runs),
        };
    }
    if runs.is_empty() {
        output::line("no run goes on; `sheaf ls` lists all of them");
    }
    for run in &runs {
        print(run);
    }
    Ok(())
}

fn print(run: &RunStatus) {
    output::line(format!("run {}  {}", run.run, run.name));
    let reason = run.phase.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
    output::line(format!("  {}{reason}, round {} of {}", run.phase.name(), run.round, run.rounds));
    for notice in &run.notices {
        output::line(format!("  notice: {notice}"));
    }
    for wait in &run.waits {
        output::line(format!("  {wait}"));
        if let Wait::Submissions { deadline: Some(deadline), .. } = wait {
            output::line(format!("    closes at the latest {} UTC", output::utc(*deadline)));
        }
    }
    if let Some(model) = &run.model {
        output::line(format!("  model {model}"));
    }
    if let Some((round, value)) = run.best {
        output::line(format!("  best model: round {round} ({value:.4})"));
    }
    if let Some(last) = run.history.last() {
        output::line(format!("  last closed: {}", record(last)));
    }
    let rows = run.sites.iter().map(|site| {
        vec![
            format!("  {}", site.site),
            site.presence.clone(),
            site.accepted.to_string(),
            site.refused.to_string(),
            site.last_error.clone().unwrap_or_default(),
        ]
    });
    output::table(&["  site", "presence", "accepted", "refused", "last error"], rows);
}

/// One line for people about a closed stage.
pub(crate) fn record(record: &RoundRecord) -> String {
    let metrics: Vec<String> =
        record.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
    format!(
        "round {} {} with {} of {} sites{}{}",
        record.round,
        record.stage,
        record.accepted.len(),
        record.cohort,
        if metrics.is_empty() { "" } else { ", " },
        metrics.join(", ")
    )
}
