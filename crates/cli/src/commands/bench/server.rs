//! The processes of a bench: the server as it is shipped, and the load beside it.
//!
//! Both are this program again, each with a log of its own. Settings of the caller's own server are not the bench's.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::future::try_join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use sheaf_admin_api::{InviteBody, KitBody};
use sheaf_bench::limits::Sealing;
use sheaf_bench::load::Job;
use sheaf_bench::process::{self, Usage};
use sheaf_domain::{ErrorKind, SiteName, Span};
use sheaf_runtime::SystemClock;
use tokio::process::{Child, ChildStdin, Command};

use super::place::Place;
use crate::exit::Failure;
use crate::operator::{Operator, OperatorArgs};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Invitations under way at once, each over a connection of its own.
const INVITING_AT_ONCE: usize = 32;
/// The load makes and frees pieces without end: the system's allocator keeps their memory instead of fetching fresh pages for each,
/// which took a tenth of the load's CPU time (mallopt(3), `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD`, in bytes).
const KEEP_FREED: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "268435456")];

/// A running server.
pub(super) struct Server {
    child: Child,
    _stdin: Option<ChildStdin>,
    dir: PathBuf,
    pid: u32,
    sealing: Sealing,
}

impl Server {
    /// Starts `sheaf serve` below `place` with these settings (environment variables) and waits until it listens.
    pub(super) async fn start(
        place: &Place,
        sealing: Sealing,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Server> {
        let dir = place.make("server")?;
        let mut command = this_program(place, "server")?;
        command.args(["serve", "--until-stdin-ends", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&dir);
        command.args(["--log", "warn"]);
        command
            // All participants of a load enrol at once from one address.
            .env("SHEAF_IDENTITY__ENROLMENTS_PER_MINUTE_AND_ADDRESS", "10000000")
            .env("SHEAF_IDENTITY__ENROLMENTS_PER_MINUTE", "10000000")
            // A participant that waits for a busy machine is not lost.
            .env("SHEAF_LIMITS__LIVENESS", "30m")
            .stdin(Stdio::piped())
            .envs(settings.iter().map(|(name, value)| (name, value)));
        if sealing == Sealing::Plain {
            command.env("SHEAF_LISTEN__PLAINTEXT", "127.0.0.1:0");
        }
        let mut child = command.spawn().context("cannot start the server")?;
        let stdin = child.stdin.take();
        let pid = child.id().ok_or_else(|| anyhow!("the server ended at once"))?;
        let mut server = Server { child, _stdin: stdin, dir, pid, sealing };
        server.ready(place).await?;
        Ok(server)
    }

    async fn ready(&mut self, place: &Place) -> anyhow::Result<()> {
        let ready = self.operator_dir().join(sheaf_server::OPERATOR_ADDRESS_FILE);
        let clock = SystemClock::shared();
        let started = clock.monotonic();
        while !ready.exists() {
            if let Some(status) = self.child.try_wait()? {
                let log = last_words(place, "server");
                let message = format!("the server did not start ({status}): {log}");
                return Err(Failure::new(ErrorKind::Internal, message).into());
            }
            if clock.monotonic().saturating_sub(started) > READY_WITHIN {
                return Err(anyhow!("the server is not ready after {READY_WITHIN:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it listens without TLS, if the bench goes that way.
    pub(super) fn plaintext(&self) -> anyhow::Result<Option<String>> {
        if self.sealing == Sealing::Tls {
            return Ok(None);
        }
        let file = self.operator_dir().join(sheaf_server::PLAINTEXT_ADDRESS_FILE);
        let address =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Some(address.trim().to_owned()))
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.dir
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        Ok(process::usage(self.pid)?)
    }

    pub(super) fn operator(&self) -> anyhow::Result<Operator> {
        Operator::open(&OperatorArgs { operator: self.operator_dir(), server: None })
    }

    fn operator_dir(&self) -> PathBuf {
        self.dir.join(sheaf_server::OPERATOR_DIR)
    }

    /// Invites so many sites and writes their kits.
    pub(super) async fn invite(&self, place: &Place, sites: u32) -> anyhow::Result<Vec<PathBuf>> {
        let dir = place.make("kits")?;
        let names = (1..=sites).map(|idx| SiteName::new(format!("bench-{idx:05}")));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let share = names.len().div_ceil(INVITING_AT_ONCE).max(1);
        let shares = names.chunks(share).map(|names| {
            let dir = &dir;
            async move {
                let mut operator = self.operator()?;
                for site in names {
                    let body =
                        InviteBody { site: site.clone(), ttl: Span::from_secs(24 * 3600), approve: false };
                    let kit = dir.join(format!("{site}.kit"));
                    let made: KitBody = operator.post("/invites", &body).await?;
                    keep_kit(&kit, &made)?;
                }
                anyhow::Ok(())
            }
        });
        try_join_all(shares).await?;
        Ok(names.iter().map(|site| dir.join(format!("{site}.kit"))).collect())
    }

    /// Asks it to drain and waits for that.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // One that has just ended needs no signal.
            kill_process(pid, Signal::TERM).ok();
        }
        match tokio::time::timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => Err(anyhow!("the server ended with {status:?}")),
            Err(_) => Err(anyhow!("the server did not drain in {STOP_WITHIN:?}")),
        }
    }
}

/// Writes a kit for the load, which uses it at once: nobody misses it after a crash.
fn keep_kit(file: &Path, kit: &KitBody) -> anyhow::Result<()> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = made.and_then(|mut made| made.write_all(kit.kit.as_bytes()));
    written.with_context(|| format!("cannot write {}", file.display()))
}

/// Runs a load in a process of its own and takes its report.
pub(super) async fn run_load<T: DeserializeOwned>(place: &Place, job: &Job) -> anyhow::Result<T> {
    let file = place.dir().join("job.json");
    std::fs::write(&file, serde_json::to_vec(job)?)?;
    let mut command = this_program(place, "load")?;
    command.args(["bench", "load"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::piped());
    command.envs(KEEP_FREED);
    let output = command.spawn().context("cannot start the load")?.wait_with_output().await?;
    if !output.status.success() {
        let message = format!("the load failed ({}): {}", output.status, last_words(place, "load"));
        return Err(Failure::new(ErrorKind::Internal, message).into());
    }
    serde_json::from_slice(&output.stdout).context("the load's report")
}

/// This program again, in its own process group: a Ctrl-C reaches the bench alone.
fn this_program(place: &Place, name: &str) -> anyhow::Result<Command> {
    let log = File::create(log_of(place, name))?;
    let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
    command.stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("SHEAF_") {
            command.env_remove(variable);
        }
    }
    Ok(command)
}

fn log_of(place: &Place, name: &str) -> PathBuf {
    place.dir().join(format!("{name}.log"))
}

/// The end of a process's log, for a failure.
fn last_words(place: &Place, name: &str) -> String {
    let log = std::fs::read_to_string(log_of(place, name)).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(3).collect();
    last.into_iter().rev().collect::<Vec<_>>().join(" / ")
}
