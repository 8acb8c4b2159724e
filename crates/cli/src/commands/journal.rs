//! `sheaf journal export` and `sheaf journal check`: a journal as JSON lines, with the signature of its end.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use sheaf_admin_api::{CheckedExport, HeadBody, HeadLine, JournalBody, check_export};
use sheaf_pki::PublicKey;

use super::Context;
use crate::exit::Failure;
use crate::follow::journal_of;
use crate::operator::Operator;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Debug, Subcommand)]
enum JournalCommand {
    /// Write a journal as JSON lines; the last line is its signed end.
    Export {
        /// Id, beginning of an id, or name of a run; or `federation`.
        run: String,
        /// Where to; standard output without it.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check an exported journal: its chain and its signature, without a server.
    Check {
        /// The exported file.
        file: PathBuf,
        /// The server's public key (PEM); without it, the one in the file is used and told.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
}

pub(crate) async fn journal(args: Args, context: &Context) -> anyhow::Result<()> {
    match args.command {
        JournalCommand::Export { run, output } => export(&run, output, context).await,
        JournalCommand::Check { file, key } => check(&file, key.as_deref(), context),
    }
}

async fn export(run: &str, file: Option<PathBuf>, context: &Context) -> anyhow::Result<()> {
    let mut operator = context.operator()?;
    match file {
        Some(path) => {
            let entries = export_to(&mut operator, run, &path).await?;
            if context.json {
                return output::json(&serde_json::json!({ "entries": entries, "file": path }));
            }
            eprintln!("{entries} entries in {}", path.display());
        }
        None => {
            write(&mut operator, run, &mut std::io::stdout()).await?;
        }
    }
    Ok(())
}

/// Exports a journal into a file; returns the number of its entries.
pub(crate) async fn export_to(operator: &mut Operator, run: &str, path: &Path) -> anyhow::Result<u64> {
    let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = std::io::BufWriter::new(file);
    let entries = write(operator, run, &mut out).await?;
    out.into_inner()?.sync_all()?;
    Ok(entries)
}

async fn write(
    operator: &mut Operator,
    run: &str,
    out: &mut (dyn std::io::Write + Send),
) -> anyhow::Result<u64> {
    // The head is asked for first: entries that come later are beyond it and not exported.
    let run = journal_of(operator, run).await?;
    let head: HeadBody = operator.get(&format!("/journals/{run}/head")).await?;
    let mut after = 0;
    while after < head.seq {
        let page: JournalBody = operator.get(&format!("/journals/{run}?after={after}&limit=256")).await?;
        if page.entries.is_empty() {
            break;
        }
        for entry in page.entries.iter().filter(|entry| entry.seq <= head.seq) {
            writeln!(out, "{}", serde_json::to_string(entry)?)?;
            after = entry.seq;
        }
    }
    let seq = head.seq;
    writeln!(out, "{}", serde_json::to_string(&HeadLine { head })?)?;
    out.flush()?;
    Ok(seq)
}

fn check(file: &Path, key: Option<&Path>, context: &Context) -> anyhow::Result<()> {
    let open = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let given = match key {
        Some(path) => {
            let pem =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Some(PublicKey::from_pem(&pem)?)
        }
        None => None,
    };
    let CheckedExport { head, key: used } = check_export(std::io::BufReader::new(open), given)
        .map_err(|error| Failure::new(error.kind(), format!("{}: {error}", file.display())))?;
    if context.json {
        return output::json(&serde_json::json!({
            "journal": head.journal, "entries": head.seq, "hash": head.hash, "key": used.fingerprint(),
        }));
    }
    let whose =
        if key.is_some() { "the key given" } else { "the key in the file (compare it with the server's)" };
    output::line(format!("{} entries, the chain holds, signed by {whose}: {}", head.seq, used.fingerprint()));
    Ok(())
}
