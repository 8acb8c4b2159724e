//! `sheaf journal export` and `sheaf journal check`: a journal as JSON lines, with the signature of its end.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use sheaf_admin_api::{HeadBody, JournalBody};
use sheaf_domain::{ErrorKind, GENESIS, JournalEntry, JournalId};
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
    writeln!(out, "{}", serde_json::to_string(&serde_json::json!({ "head": head }))?)?;
    out.flush()?;
    Ok(head.seq)
}

/// The last line of an exported journal.
#[derive(serde::Deserialize)]
struct HeadLine {
    head: HeadBody,
}

fn check(file: &std::path::Path, key: Option<&std::path::Path>, context: &Context) -> anyhow::Result<()> {
    let open = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines: Vec<String> = std::io::BufReader::new(open).lines().collect::<Result<_, _>>()?;
    let broken =
        |message: String| Failure::new(ErrorKind::Conflict, format!("{}: {message}", file.display()));
    let Some((last, entries)) = lines.split_last() else {
        return Err(broken("it is empty".to_owned()).into());
    };
    let HeadLine { head } =
        serde_json::from_str(last).map_err(|_| broken("its last line is no signed end".to_owned()))?;
    let journal: JournalId = head.journal.parse()?;
    let mut end = (0, GENESIS);
    for line in entries {
        let entry: JournalEntry = serde_json::from_str(line).map_err(|error| broken(error.to_string()))?;
        entry.check_follows(journal, end).map_err(|error| broken(error.to_string()))?;
        end = (entry.seq, entry.hash);
    }
    if end != (head.seq, head.hash) {
        return Err(broken("its end is not the one that was signed".to_owned()).into());
    }
    let pem = match key {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => head.public_key.clone(),
    };
    let public_key = PublicKey::from_pem(&pem)?;
    let signature =
        hex::decode(&head.signature).map_err(|_| broken("its signature is not hexadecimal".to_owned()))?;
    sheaf_pki::verify_head(&public_key, journal, head.seq, &head.hash, &signature)
        .map_err(|error| broken(error.to_string()))?;
    if context.json {
        return output::json(&serde_json::json!({
            "journal": head.journal, "entries": head.seq, "hash": head.hash, "key": public_key.fingerprint(),
        }));
    }
    let whose =
        if key.is_some() { "the key given" } else { "the key in the file (compare it with the server's)" };
    output::line(format!(
        "{} entries, the chain holds, signed by {whose}: {}",
        head.seq,
        public_key.fingerprint()
    ));
    Ok(())
}
