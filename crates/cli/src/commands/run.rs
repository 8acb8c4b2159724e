//! `sheaf run PLAN`: starts a run, warm-starts one from another, or extends one.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use sheaf_admin_api::{CreateRunBody, CreatedRun, ExtendBody, PlanBody, PlanSummary};
use sheaf_domain::plan::{Init, PLAN_LEN_MAX, Plan};
use sheaf_domain::{Digest, ErrorKind, Manifest, PIECE_LEN_DEFAULT, RunId, RunStatus};
use sheaf_runtime::{Entropy as _, OsEntropy};
use sheaf_tensor::{ParamSet, npz, raw, safetensors};
use sheaf_wire_flower::fab;

use super::Context;
use crate::exit::Failure;
use crate::follow::{Follower, Hold, describe, status};
use crate::operator::Operator;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plan (TOML).
    #[arg(required_unless_present = "extend", value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Start from the newest model (and optimiser state) of this run.
    #[arg(long, value_name = "RUN", conflicts_with = "extend")]
    from: Option<String>,
    /// Add rounds to this run instead of starting one.
    #[arg(long, value_name = "RUN", requires = "rounds", conflicts_with = "plan")]
    extend: Option<String>,
    /// How many rounds to add.
    #[arg(long, value_name = "N", requires = "extend")]
    rounds: Option<u32>,
    /// Say what would happen and stop.
    #[arg(long)]
    dry_run: bool,
    /// Follow the run until it ends.
    #[arg(short, long)]
    follow: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    if let (Some(run), Some(rounds)) = (&args.extend, args.rounds) {
        let status: RunStatus =
            context.operator()?.post(&format!("/runs/{run}/extend"), &ExtendBody { rounds }).await?;
        return announce(context, &mut context.operator()?, status.run, args.follow).await;
    }
    let path = args.plan.as_deref().ok_or_else(|| Failure::usage("name a plan"))?;
    let text = read_plan(path)?;
    let plan = Plan::parse(&text).with_context(|| path.display().to_string())?;
    if args.dry_run {
        return dry_run(context, &plan, text).await;
    }
    let mut operator = context.operator()?;
    let run = start(&mut operator, path, &plan, text, args.from).await?;
    announce(context, &mut operator, run, args.follow).await
}

/// Starts the run of a plan; the first model's file is uploaded where the plan names one.
pub(crate) async fn start(
    operator: &mut Operator,
    path: &Path,
    plan: &Plan,
    text: String,
    from: Option<String>,
) -> anyhow::Result<RunId> {
    let mut body = CreateRunBody { plan: text, init: None, upload: None, app: None, from };
    if let (Init::File(file), None) = (&plan.init, &body.from) {
        // Beside the plan, so that a plan and its model can be moved together.
        let file = path.parent().unwrap_or_else(|| Path::new(".")).join(file);
        let (manifest, upload) = upload_model(operator, &file).await?;
        body.init = Some(manifest);
        body.upload = Some(upload);
    }
    if let Some(app) = &plan.app {
        let source = path.parent().unwrap_or_else(|| Path::new(".")).join(&app.source);
        let bundle = bundle_of(&source)?;
        let upload = match body.upload.take() {
            Some(upload) => upload,
            None => upload_name()?,
        };
        let digest = Digest::of(&bundle);
        operator.put(&format!("/uploads/{upload}/pieces/{digest}"), bundle).await?;
        body.app = Some(digest);
        body.upload = Some(upload);
    }
    let created: CreatedRun = operator.post("/runs", &body).await?;
    Ok(created.run)
}

async fn dry_run(context: &Context, plan: &Plan, text: String) -> anyhow::Result<()> {
    // Without a server in reach the plan alone is told.
    let checked: Option<PlanSummary> = match context.operator() {
        Ok(mut operator) => operator.post("/plans/check", &PlanBody { plan: text }).await.ok(),
        Err(_) => None,
    };
    let summary = checked.unwrap_or_else(|| PlanSummary {
        summary: plan.summary(),
        waits: vec!["no server was reached, so who is present is not known".to_owned()],
    });
    if context.json {
        return output::json(&summary);
    }
    output::line(summary.summary.trim_end());
    if summary.waits.is_empty() {
        output::line("it would begin at once: enough participants are present");
    }
    for wait in summary.waits {
        output::line(wait);
    }
    Ok(())
}

async fn announce(
    context: &Context,
    operator: &mut Operator,
    run: RunId,
    follow: bool,
) -> anyhow::Result<()> {
    if !follow {
        if context.json {
            return output::json(&CreatedRun { run });
        }
        output::line(run);
        return Ok(());
    }
    eprintln!("run {run}");
    let status = self::follow(operator, run).await?;
    ended(context, &status)
}

/// Tells what happens in a run on standard error until it has ended.
pub(crate) async fn follow(operator: &mut Operator, run: RunId) -> anyhow::Result<RunStatus> {
    let mut follower = Follower::new(run.to_string());
    loop {
        for entry in follower.next(operator, Hold::Long).await? {
            eprintln!("{}", describe(&entry));
        }
        let now = status(operator, run).await;
        if let Ok(now) = now
            && now.phase.is_over()
        {
            // The end may have come with entries that are not told yet.
            loop {
                let rest = follower.next(operator, Hold::None).await?;
                if rest.is_empty() {
                    return Ok(now);
                }
                rest.iter().for_each(|entry| eprintln!("{}", describe(entry)));
            }
        }
    }
}

fn ended(context: &Context, status: &RunStatus) -> anyhow::Result<()> {
    if context.json {
        output::json(status)?;
    } else {
        output::line(format!(
            "{} {}: {}",
            status.run,
            status.phase.name(),
            status.phase.reason().unwrap_or_default()
        ));
    }
    match &status.phase {
        sheaf_domain::RunPhase::Failed { reason } | sheaf_domain::RunPhase::Broken { reason } => {
            Err(Failure::new(ErrorKind::Internal, reason.clone()).into())
        }
        _ => Ok(()),
    }
}

pub(crate) fn read_plan(path: &Path) -> anyhow::Result<String> {
    let len = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if len > PLAN_LEN_MAX as u64 {
        return Err(Failure::usage(format!(
            "{} has {len} bytes, a plan at most {PLAN_LEN_MAX}",
            path.display()
        ))
        .into());
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The bundle of an app: a file that is one, or what a directory comes to.
fn bundle_of(source: &Path) -> anyhow::Result<Bytes> {
    let unread = || format!("cannot read the app {}", source.display());
    let bundle = if std::fs::metadata(source).with_context(unread)?.is_dir() {
        fab::build(source).map_err(|error| Failure::usage(format!("{}: {error}", source.display())))?
    } else {
        std::fs::read(source).with_context(unread)?
    };
    // Told here, before anything is sent; the server checks it again.
    fab::check(&bundle)
        .map_err(|error| Failure::usage(format!("{} is no app: {error}", source.display())))?;
    Ok(bundle.into())
}

/// A name of this command's own: another that hands in the same model at the same time has its own upload.
fn upload_name() -> anyhow::Result<String> {
    let mut name = [0; 16];
    OsEntropy.fill(&mut name)?;
    Ok(hex::encode(name))
}

/// Hands in the model of a file: its manifest, and the name its pieces were uploaded under.
pub(crate) async fn upload_model(operator: &mut Operator, file: &Path) -> anyhow::Result<(Manifest, String)> {
    let bytes = Bytes::from(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
    let unread =
        |error: sheaf_tensor::Error| Failure::usage(format!("{} is not a model: {error}", file.display()));
    let model: ParamSet = match file.extension().and_then(|ending| ending.to_str()) {
        Some("safetensors") => safetensors::read(bytes).map_err(unread)?,
        Some("npz") => npz::read(bytes, npz::Limits::default()).map_err(unread)?,
        _ => {
            return Err(Failure::usage(format!(
                "{} ends neither in .safetensors nor in .npz",
                file.display()
            ))
            .into());
        }
    };
    let stream = Bytes::from(raw::join(&model));
    let upload = upload_name()?;
    let piece_len = usize::try_from(PIECE_LEN_DEFAULT)?;
    let mut pieces = Vec::new();
    for start in (0..stream.len()).step_by(piece_len) {
        let piece = stream.slice(start..(start + piece_len).min(stream.len()));
        let digest = Digest::of(&piece);
        operator.put(&format!("/uploads/{upload}/pieces/{digest}"), piece).await?;
        pieces.push(digest);
    }
    Ok((Manifest::over_pieces(model.specs(), PIECE_LEN_DEFAULT, &pieces)?, upload))
}
