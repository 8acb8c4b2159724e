//! `sheaf pki init` and `sheaf pki show`: the federation's keys, before a server runs or without one.

use std::path::PathBuf;

use clap::Subcommand;
use sheaf_domain::ErrorKind;

use super::Context;
use crate::exit::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(Debug, Subcommand)]
enum PkiCommand {
    /// Make the CA, the journal key and an operator's credential in a data directory; `serve` does it too where they are missing.
    Init {
        /// The data directory.
        #[arg(long, value_name = "DIR", default_value = "sheaf-data")]
        data_dir: PathBuf,
        /// The federation's name in certificates.
        #[arg(long, value_name = "NAME", default_value = "sheaf")]
        trust_domain: String,
    },
    /// Print what a certificate says.
    Show {
        /// A certificate (PEM).
        file: PathBuf,
    },
}

pub(crate) fn pki(args: Args, context: &Context) -> anyhow::Result<()> {
    match args.command {
        PkiCommand::Init { data_dir, trust_domain } => {
            if data_dir.join(sheaf_server::PKI_DIR).join(sheaf_pki::CA_KEY_FILE).exists() {
                let message = format!("{} has a CA already; it is not replaced", data_dir.display());
                return Err(Failure::new(ErrorKind::Conflict, message).into());
            }
            let pin = sheaf_server::init_pki(&data_dir, &trust_domain)?;
            if context.json {
                return output::json(&serde_json::json!({ "data_dir": data_dir, "ca_pin": pin }));
            }
            output::line(format!("made the CA of {trust_domain:?} in {}", data_dir.display()));
            output::line(format!("its pin is {pin}"));
            Ok(())
        }
        PkiCommand::Show { file } => {
            let bytes = std::fs::read(&file).map_err(|error| {
                Failure::new(ErrorKind::NotFound, format!("cannot read {}: {error}", file.display()))
            })?;
            let facts = sheaf_pki::certificate_facts(&bytes)?;
            if context.json {
                return output::json(&serde_json::json!({
                    "serial": facts.serial, "key_fingerprint": facts.key_fingerprint,
                    "not_before": facts.not_before, "not_after": facts.not_after,
                }));
            }
            output::line(format!("serial      {}", facts.serial));
            output::line(format!("key         {}", facts.key_fingerprint));
            output::line(format!("valid from  {} UTC", output::utc(facts.not_before)));
            output::line(format!("valid until {} UTC", output::utc(facts.not_after)));
            Ok(())
        }
    }
}
