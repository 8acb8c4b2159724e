//! `sheaf login`: operators who use the `flwr` command from other machines.

use clap::Subcommand;
use sheaf_admin_api::LoginBody;
use sheaf_coordinator::LoginOverview;
use sheaf_domain::{SiteName, Span};

use super::Context;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Let in whoever sees this code, as `flwr login` shows it; only if you know who that is.
    Approve(ApproveArgs),
    /// List who is logged in.
    Ls,
    /// End a login: its token counts for nothing from now on.
    End {
        /// Whose login.
        name: SiteName,
    },
}

#[derive(Debug, clap::Args)]
struct ApproveArgs {
    /// The code.
    code: String,
    /// What to call the operator; a login of that name before it ends.
    name: SiteName,
    /// How long the login lasts.
    #[arg(long = "for", value_name = "DURATION", default_value = "30d")]
    validity: Span,
}

pub(crate) async fn login(args: Args, context: &Context) -> anyhow::Result<()> {
    match args.action {
        Action::Approve(args) => approve(args, context).await,
        Action::Ls => ls(context).await,
        Action::End { name } => end(&name, context).await,
    }
}

async fn approve(args: ApproveArgs, context: &Context) -> anyhow::Result<()> {
    // A code is made of letters, with a hyphen for the eye: anything else would be another path.
    let code: String = args.code.chars().filter(char::is_ascii_alphanumeric).collect();
    let body = LoginBody { name: args.name, validity: args.validity };
    let path = format!("/logins/{code}/approve");
    let login: LoginOverview = context.operator()?.post(&path, &body).await?;
    if context.json {
        return output::json(&login);
    }
    output::line(format!("{} may log in, until {}", login.name, output::utc(login.ends_at)));
    Ok(())
}

async fn ls(context: &Context) -> anyhow::Result<()> {
    let logins: Vec<LoginOverview> = context.operator()?.get("/logins").await?;
    if context.json {
        return output::json(&logins);
    }
    let rows = logins.iter().map(|login| {
        let times = [login.begun_at, login.ends_at].map(output::utc);
        [login.name.to_string(), login.by.to_string()].into_iter().chain(times).collect()
    });
    output::table(&["operator", "approved by", "since (utc)", "until (utc)"], rows);
    Ok(())
}

async fn end(name: &SiteName, context: &Context) -> anyhow::Result<()> {
    context.operator()?.tell(&format!("/logins/{name}/end"), &serde_json::json!({})).await?;
    if context.json {
        return output::json(&serde_json::json!({ "operator": name, "ended": true }));
    }
    output::line(format!("{name} is logged out"));
    Ok(())
}
