//! `sheaf invite`, `sheaf approve`, `sheaf revoke`: who may take part.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use sheaf_admin_api::{ApproveBody, InviteBody, KitBody, ReasonBody};
use sheaf_domain::{Digest, SiteName, Span};

use super::Context;
use crate::operator::Operator;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The site's name; it is what its certificate will say.
    site: SiteName,
    /// How long the kit may be used, such as 7d.
    #[arg(long, default_value = "7d", value_name = "DURATION")]
    ttl: Span,
    /// Wait for `sheaf approve` before a certificate is issued.
    #[arg(long)]
    approve: bool,
    /// Where the kit goes [default: SITE.kit].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    /// The site that waits.
    site: SiteName,
    /// The fingerprint of its key, as the site reads it out.
    fingerprint: Digest,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// The site to shut out.
    site: SiteName,
    /// Why, for the journal.
    #[arg(long, default_value = "")]
    reason: String,
}

pub(crate) async fn invite(args: Args, context: &Context) -> anyhow::Result<()> {
    let file = args.output.unwrap_or_else(|| PathBuf::from(format!("{}.kit", args.site)));
    let body = InviteBody { site: args.site.clone(), ttl: args.ttl, approve: args.approve };
    write_kit(&mut context.operator()?, &body, &file).await?;
    if context.json {
        return output::json(&serde_json::json!({ "site": args.site, "kit": file, "ttl": args.ttl }));
    }
    output::line(format!("wrote {}; it holds a secret that works once, for {}", file.display(), args.ttl));
    output::line(format!(
        "give it to {} over a channel you trust, to be used as: sheaf join {}",
        args.site,
        file.display()
    ));
    Ok(())
}

/// Makes an invitation and writes its kit to a new private file.
pub(crate) async fn write_kit(
    operator: &mut Operator,
    body: &InviteBody,
    file: &std::path::Path,
) -> anyhow::Result<()> {
    // The file is made first: a token must not come into being without a place to put it.
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot make {}", file.display()))?;
    let kit: KitBody = match operator.post("/invites", body).await {
        Ok(kit) => kit,
        Err(error) => {
            std::fs::remove_file(file).ok();
            return Err(error);
        }
    };
    out.write_all(kit.kit.as_bytes())?;
    out.sync_all()?;
    Ok(())
}

pub(crate) async fn approve(args: ApproveArgs, context: &Context) -> anyhow::Result<()> {
    let body = ApproveBody { fingerprint: args.fingerprint };
    context.operator()?.tell(&format!("/sites/{}/approve", args.site), &body).await?;
    if context.json {
        return output::json(&serde_json::json!({ "site": args.site, "approved": true }));
    }
    output::line(format!("{} may come in", args.site));
    Ok(())
}

pub(crate) async fn revoke(args: RevokeArgs, context: &Context) -> anyhow::Result<()> {
    let body = ReasonBody { reason: args.reason };
    context.operator()?.tell(&format!("/sites/{}/revoke", args.site), &body).await?;
    if context.json {
        return output::json(&serde_json::json!({ "site": args.site, "revoked": true }));
    }
    output::line(format!("{} is shut out", args.site));
    Ok(())
}
