//! `sheaf bench load`: the load of another bench. Reads its job from a file and prints one report; not for people.

use std::path::PathBuf;

use anyhow::Context as _;
use sheaf_bench::load::{Job, exchange, polls};

use crate::output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to do, as JSON.
    job: PathBuf,
}

pub(super) fn load(args: &Args) -> anyhow::Result<()> {
    let text = std::fs::read(&args.job).with_context(|| format!("cannot read {}", args.job.display()))?;
    let job: Job = serde_json::from_slice(&text).context("the job")?;
    super::super::block_on(Box::pin(async move {
        match job {
            Job::Exchange(job) => output::json(&exchange::run(job).await?),
            Job::Polls(job) => output::json(&polls::run(job).await?),
        }
    }))
}
