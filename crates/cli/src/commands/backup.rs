//! `sheaf backup` and `sheaf restore`: a copy of a running server, and a data directory made of one.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sheaf_admin_api::BackupBody;
use sheaf_coordinator::{BackupReport, COMPLETE_FILE};
use sheaf_domain::ErrorKind;

use super::Context;
use crate::exit::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// The directory to make, on the server's machine.
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// A finished backup.
    backup: PathBuf,
    /// The data directory to make; it must not exist.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub(crate) async fn backup(args: BackupArgs, context: &Context) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir)?;
    let report: BackupReport = context.operator()?.post_long("/backups", &BackupBody { dir }).await?;
    if context.json {
        return output::json(&report);
    }
    output::line(format!(
        "{}: {} objects, {}; keep it as private as the data directory, it holds the same keys",
        report.dir.display(),
        report.objects,
        output::bytes(report.bytes)
    ));
    Ok(())
}

pub(crate) fn restore(args: &RestoreArgs, context: &Context) -> anyhow::Result<()> {
    if !args.backup.join(COMPLETE_FILE).is_file() {
        let message = format!("{} is not a finished backup", args.backup.display());
        return Err(Failure::new(ErrorKind::InvalidArgument, message).into());
    }
    if args.data_dir.exists() {
        let message = format!("{} exists; restore into a directory that does not", args.data_dir.display());
        return Err(Failure::new(ErrorKind::Conflict, message).into());
    }
    // Copied beside its place and renamed, so that a half-restored directory is never taken for a whole one.
    let parent =
        args.data_dir.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let partial = tempfile::Builder::new().prefix(".sheaf-restore-").tempdir_in(parent)?;
    copy_tree(&args.backup, partial.path())?;
    std::fs::remove_file(partial.path().join(COMPLETE_FILE))?;
    std::fs::rename(partial.keep(), &args.data_dir)
        .with_context(|| format!("cannot make {}", args.data_dir.display()))?;
    if context.json {
        return output::json(&serde_json::json!({ "data_dir": args.data_dir }));
    }
    output::line(format!(
        "restored into {}; start it with: sheaf serve --data-dir {0}",
        args.data_dir.display()
    ));
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            std::fs::set_permissions(&target, entry.metadata()?.permissions())?;
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
