//! One run of a command: started in a group of its own, waited for, and ended with everything it started.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::contract::Files;
use super::log::{Log, Stream, prune};
use super::{Error, ExecTrainer, TrainJob};

/// Runs the command of `trainer` for `job`; success is exit status 0 in time.
///
/// Cancel safety: dropped, the whole group is killed at once.
pub(super) async fn run(trainer: &ExecTrainer, job: &TrainJob, files: &Files) -> Result<(), Error> {
    let log = create_log(trainer, job)?;
    let mut child = command(trainer, files).spawn().map_err(Error::file("run", &trainer.program))?;
    let group = Group::of(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let taken_in = async {
        let output = async {
            if let Some(stdout) = stdout {
                log.take_in(stdout, Stream::Output).await;
            }
        };
        let error = async {
            if let Some(stderr) = stderr {
                log.take_in(stderr, Stream::Error).await;
            }
        };
        tokio::join!(output, error);
    };
    let ended = CancellationToken::new();
    let waited = async {
        let status = wait(trainer, &mut child, &group).await;
        // What the command left running would hold its outputs open.
        group.signal(Signal::KILL);
        ended.cancel();
        status
    };
    // A process that fled its group cannot hold up the job.
    let abandoned = async {
        ended.cancelled().await;
        tokio::time::sleep(trainer.spec.grace.as_duration()).await;
    };
    let taken_in = async {
        tokio::select! {
            () = taken_in => {}
            () = abandoned => {}
        }
    };
    let (status, ()) = tokio::join!(waited, taken_in);
    let status = status?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { status: status.to_string(), last_lines: log.last_lines() })
}

fn command(trainer: &ExecTrainer, files: &Files) -> Command {
    let mut command = Command::new(&trainer.program);
    command
        .args(&trainer.arguments)
        .current_dir(&trainer.workdir)
        .env_clear()
        .envs(trainer.variables.iter().map(|(name, value)| (name, value)))
        .env("SHEAF_JOB", &files.job)
        .env("SHEAF_SCRATCH", &files.scratch)
        .env("SHEAF_MODEL_OUT", &files.model_out)
        .env("SHEAF_METRICS_OUT", &files.metrics_out)
        .envs(files.model_in.iter().map(|path| ("SHEAF_MODEL_IN", path)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn wait(trainer: &ExecTrainer, child: &mut Child, group: &Group) -> Result<ExitStatus, Error> {
    let spec = &trainer.spec;
    let failed = |error| Error::file("wait for", &trainer.program)(error);
    if let Ok(status) = tokio::time::timeout(spec.timeout.as_duration(), child.wait()).await {
        return status.map_err(failed);
    }
    group.signal(Signal::TERM);
    if tokio::time::timeout(spec.grace.as_duration(), child.wait()).await.is_err() {
        group.signal(Signal::KILL);
        child.wait().await.map_err(failed)?;
    }
    Err(Error::TimedOut { after: spec.timeout })
}

fn create_log(trainer: &ExecTrainer, job: &TrainJob) -> Result<Log, Error> {
    let path = log_path(trainer, job);
    if let Some(dir) = &trainer.log_dir {
        std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        prune(dir).map_err(Error::file("prune", dir))?;
    }
    Log::create(&path, trainer.spec.log_max.as_bytes()).map_err(Error::file("create", path))
}

fn log_path(trainer: &ExecTrainer, job: &TrainJob) -> PathBuf {
    match &trainer.log_dir {
        // A run's id and a stage's name are safe in a file's name; a run's name is anybody's text.
        Some(dir) => dir.join(format!("{}-{:06}-{}-{}.log", job.run, job.round, job.stage, job.site)),
        None => job.scratch.join("trainer.log"),
    }
}

/// The process group of a command; killed when dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // That nobody is left in it is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
