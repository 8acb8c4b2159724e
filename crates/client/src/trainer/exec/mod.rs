//! Any command as a trainer: files in, files out, no shell between.
//!
//! The command, its directory, its environment and its limits come from the site's configuration alone. It runs in a
//! process group of its own, with an environment that is empty but for the variables the site lists and those of the
//! contract, and nothing of it outlives its job. What it leaves is checked before it is believed. The contract is in
//! `docs/trainers.md`.

mod contract;
mod log;
mod process;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sheaf_domain::{ByteSize, Span};
use sheaf_runtime::Compute;

use super::{Error, TrainJob, TrainResult, Trainer};
use contract::Expect;
pub use contract::{parse_metrics, parse_model};

/// A command as a trainer; the site's own configuration. Paths are relative to the configuration's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecSpec {
    /// The program and its arguments. A program without a slash is looked for in the participant's own `PATH`, one with
    /// a slash is relative to `workdir`.
    pub command: Vec<String>,
    /// The directory it runs in; default where the configuration's file is.
    #[serde(default = "here")]
    pub workdir: PathBuf,
    /// The variables of the participant's environment that are handed on; default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The time a job may take, default one hour.
    #[serde(default = "an_hour")]
    pub timeout: Span,
    /// The time between asking it to end and killing it, default ten seconds.
    #[serde(default = "ten_seconds")]
    pub grace: Span,
    /// The longest model it may leave, default 4 GiB.
    #[serde(default = "four_gib")]
    pub output_max: ByteSize,
    /// The most of its output that is kept of a job, default 1 MiB.
    #[serde(default = "one_mib")]
    pub log_max: ByteSize,
    /// Where its output is kept, one file a job, the newest hundred; in the job's scratch directory where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_dir: Option<PathBuf>,
}

impl ExecSpec {
    /// A command with every other setting at its default.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> ExecSpec {
        ExecSpec {
            command: command.into_iter().map(Into::into).collect(),
            workdir: here(),
            env: Vec::new(),
            timeout: an_hour(),
            grace: ten_seconds(),
            output_max: four_gib(),
            log_max: one_mib(),
            log_dir: None,
        }
    }
}

/// A command as a trainer, its settings checked.
#[derive(Clone)]
pub struct ExecTrainer {
    program: PathBuf,
    arguments: Vec<String>,
    workdir: PathBuf,
    variables: Vec<(String, OsString)>,
    log_dir: Option<PathBuf>,
    spec: Arc<ExecSpec>,
    compute: Compute,
}

impl ExecTrainer {
    /// Checks `spec` and reads the variables it hands on; `base` is where its relative paths begin.
    ///
    /// # Errors
    /// [`Error::Setting`], naming the setting: no command, a program or directory that is not there, a variable of the
    /// contract or with an impossible name, no time at all.
    pub fn new(spec: ExecSpec, base: &Path, compute: Compute) -> Result<ExecTrainer, Error> {
        let base = std::path::absolute(base).map_err(Error::file("resolve", base))?;
        let workdir = base.join(&spec.workdir);
        if !workdir.is_dir() {
            return Err(Error::setting("workdir", format!("{} is not a directory", workdir.display())));
        }
        let Some((program, arguments)) = spec.command.split_first() else {
            return Err(Error::setting(
                "command",
                "it is empty; write command = [\"python3\", \"train.py\"]",
            ));
        };
        if spec.command.iter().any(|word| word.contains('\0')) || program.is_empty() {
            return Err(Error::setting("command", "it has an empty program or a NUL"));
        }
        if spec.timeout.as_millis() == 0 {
            return Err(Error::setting("timeout", "it is no time at all"));
        }
        Ok(ExecTrainer {
            program: find_program(program, &workdir)?,
            arguments: arguments.to_vec(),
            variables: variables(&spec.env)?,
            log_dir: spec.log_dir.as_ref().map(|dir| base.join(dir)),
            workdir,
            spec: Arc::new(spec),
            compute,
        })
    }

    async fn run(&self, job: &TrainJob, expect: Expect) -> Result<TrainResult, Error> {
        if expect != Expect::FirstModel && job.model.is_none() {
            return Err(Error::NoModel { stage: job.stage.to_string() });
        }
        let files = contract::Files::of(job)?;
        let (written, order) = (files.clone(), job.clone());
        self.compute.run(move || written.write(&order)).await??;
        process::run(self, job, &files).await?;
        let (model, output_max) = (job.model.clone(), self.spec.output_max.as_bytes());
        self.compute.run(move || files.read(expect, model.as_ref(), output_max)).await?
    }
}

#[async_trait]
impl Trainer for ExecTrainer {
    async fn init(&self, job: &TrainJob) -> Result<TrainResult, Error> {
        self.run(job, Expect::FirstModel).await
    }

    async fn train(&self, job: &TrainJob) -> Result<TrainResult, Error> {
        self.run(job, Expect::Model).await
    }

    async fn evaluate(&self, job: &TrainJob) -> Result<TrainResult, Error> {
        self.run(job, Expect::Metrics).await
    }
}

impl std::fmt::Debug for ExecTrainer {
    /// Without the values of variables: they may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecTrainer").field("program", &self.program).finish_non_exhaustive()
    }
}

fn find_program(program: &str, workdir: &Path) -> Result<PathBuf, Error> {
    let missing =
        |place: String| Error::setting("command", format!("there is no program {program:?} {place}"));
    if program.contains('/') {
        let path = workdir.join(program);
        return if path.is_file() { Ok(path) } else { Err(missing(format!("from {}", workdir.display()))) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| missing("in PATH".to_owned()))
}

fn variables(names: &[String]) -> Result<Vec<(String, OsString)>, Error> {
    let mut variables = Vec::new();
    for name in names {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::setting(
                "env",
                format!("{name:?} is no name of a variable; values are not given here"),
            ));
        }
        if name.starts_with("SHEAF_") {
            return Err(Error::setting(
                "env",
                format!("{name:?} is not handed on: SHEAF_ names belong to the contract"),
            ));
        }
        // A variable that is not set is not set for the command either.
        variables.extend(std::env::var_os(name).map(|value| (name.clone(), value)));
    }
    Ok(variables)
}

fn here() -> PathBuf {
    PathBuf::from(".")
}

fn an_hour() -> Span {
    Span::from_secs(3_600)
}

fn ten_seconds() -> Span {
    Span::from_secs(10)
}

fn four_gib() -> ByteSize {
    ByteSize::from_mib(4 * 1024)
}

fn one_mib() -> ByteSize {
    ByteSize::from_mib(1)
}
