//! `sheaf nodes`: the sites, whether they are present, and what they work on.

use sheaf_coordinator::SiteOverview;
use sheaf_runtime::SystemClock;

use super::Context;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn nodes(_args: Args, context: &Context) -> anyhow::Result<()> {
    let sites: Vec<SiteOverview> = context.operator()?.get("/sites").await?;
    if context.json {
        return output::json(&sites);
    }
    let now = SystemClock::shared().now();
    let rows = sites.iter().map(|site| {
        vec![
            site.name.to_string(),
            site.state.clone(),
            if site.present { "present" } else { "absent" }.to_owned(),
            site.last_seen.map(|at| output::ago(now, at)).unwrap_or_default(),
            site.certificate_not_after.map(output::utc).unwrap_or_default(),
            site.key_fingerprint.map(|digest| digest.short()).unwrap_or_default(),
            site.working.len().to_string(),
            site.last_error.clone().unwrap_or_default(),
        ]
    });
    output::table(
        &["site", "state", "presence", "seen", "certificate until (utc)", "key", "tasks", "last error"],
        rows,
    );
    Ok(())
}
