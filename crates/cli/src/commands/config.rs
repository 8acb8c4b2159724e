//! `sheaf config show`: the settings the server would run by, and where each comes from.

use clap::Subcommand;

use super::Context;
use super::serve::ConfigArgs;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every setting, its value, and where that comes from.
    Show(ConfigArgs),
}

pub(crate) fn config(args: Args, context: &Context) -> anyhow::Result<()> {
    let ConfigCommand::Show(args) = args.command;
    let resolved = args.resolve()?;
    if context.json {
        let of = |(key, (value, origin)): (&String, &(toml::Value, sheaf_server::Origin))| {
            (key.clone(), serde_json::json!({ "value": value, "origin": origin.to_string() }))
        };
        return output::json(&resolved.origins.iter().map(of).collect::<std::collections::BTreeMap<_, _>>());
    }
    let rows = resolved
        .origins
        .iter()
        .map(|(key, (value, origin))| vec![key.clone(), value.to_string(), origin.to_string()]);
    output::table(&["setting", "value", "from"], rows);
    Ok(())
}
