//! `sheaf model get`: a model of a run as safetensors or npz, checked against its digest.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use sheaf_admin_api::ModelBody;
use sheaf_domain::{ErrorKind, ModelHasher};
use sheaf_tensor::{npz, safetensors};

use super::Context;
use crate::exit::Failure;
use crate::operator::Operator;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Fetch a model.
    Get {
        /// Id, beginning of an id, or name of the run.
        run: String,
        /// The model evaluated best.
        #[arg(long, group = "which")]
        best: bool,
        /// The newest model (the default).
        #[arg(long, group = "which")]
        last: bool,
        /// The model a round made; 0 is the first.
        #[arg(long, group = "which", value_name = "N")]
        round: Option<u32>,
        /// Where to; the ending says the format: .safetensors or .npz.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

pub(crate) async fn model(args: Args, context: &Context) -> anyhow::Result<()> {
    let ModelCommand::Get { run, best, last: _, round, output } = args.command;
    let which = match (best, round) {
        (true, _) => "best".to_owned(),
        (false, Some(round)) => round.to_string(),
        (false, None) => "last".to_owned(),
    };
    let model = fetch(&mut context.operator()?, &run, &which, &output).await?;
    if context.json {
        return output::json(&model);
    }
    output::line(format!(
        "{}: round {} of run {}, {} tensors, {}, digest {}",
        output.display(),
        model.version.version,
        model.version.run,
        model.tensors.len(),
        output::bytes(model.bytes),
        model.digest
    ));
    Ok(())
}

/// Fetches a model into a file of either format; the file appears whole or not at all.
pub(crate) async fn fetch(
    operator: &mut Operator,
    run: &str,
    which: &str,
    file: &Path,
) -> anyhow::Result<ModelBody> {
    let ending = check_ending(file)?;
    let path = format!("/runs/{run}/models/{which}");
    let model: ModelBody = operator.get(&path).await?;
    // From here on the version is fixed: a newer one made meanwhile changes nothing.
    let path = format!("/runs/{}/models/{}", model.version.run, model.version.version);
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut raw = tempfile::tempfile_in(dir).with_context(|| format!("cannot write in {}", dir.display()))?;
    let mut got = 0;
    while got < model.bytes {
        let part =
            operator.stream(&format!("{path}/bytes?offset={got}"), |bytes| Ok(raw.write_all(bytes)?)).await?;
        if part == 0 {
            return Err(Failure::new(ErrorKind::Unavailable, "the server stopped sending the model").into());
        }
        got += part;
    }
    raw.seek(SeekFrom::Start(0))?;
    write_model(&model, &mut raw, &ending, dir, file)?;
    Ok(model)
}

/// The ending that says a file's format.
pub(crate) fn check_ending(file: &Path) -> anyhow::Result<String> {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_owned();
    if !["safetensors", "npz"].contains(&ending.as_str()) {
        return Err(
            Failure::usage(format!("{} ends neither in .safetensors nor in .npz", file.display())).into()
        );
    }
    Ok(ending)
}

fn write_model(
    model: &ModelBody,
    raw: &mut std::fs::File,
    ending: &str,
    dir: &Path,
    file: &Path,
) -> anyhow::Result<()> {
    let mut target = tempfile::NamedTempFile::new_in(dir)?;
    let mut hasher = ModelHasher::new();
    if ending == "npz" {
        let mut archive = npz::Writer::new(std::io::BufWriter::new(target.as_file_mut()));
        for spec in &model.tensors {
            archive.start(spec)?;
            hasher.tensor(spec);
            copy(raw, spec.byte_len(), |bytes| {
                hasher.bytes(bytes);
                Ok(archive.write(bytes)?)
            })?;
        }
        archive.finish()?.flush()?;
    } else {
        let metadata = std::iter::once(("sheaf.digest".to_owned(), model.digest.to_string())).collect();
        target.write_all(&safetensors::header(&model.tensors, &metadata)?)?;
        for spec in &model.tensors {
            hasher.tensor(spec);
            copy(raw, spec.byte_len(), |bytes| {
                hasher.bytes(bytes);
                Ok(target.write_all(bytes)?)
            })?;
        }
    }
    let digest = hasher.finish();
    if digest != model.digest {
        let message = format!("the bytes received have the digest {digest}, the model has {}", model.digest);
        return Err(Failure::new(ErrorKind::Internal, message).into());
    }
    target.as_file().sync_all()?;
    target.persist(file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}

fn copy(
    from: &mut std::fs::File,
    len: u64,
    mut sink: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    use std::io::Read as _;
    let mut left = len;
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..want).unwrap_or_default();
        from.read_exact(part)?;
        sink(part)?;
        left -= want as u64;
    }
    Ok(())
}
