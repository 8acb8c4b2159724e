//! The demo's processes and its directory.
//!
//! ```text
//! server.pid         the server's process id
//! plan.toml          the run's plan
//! server/            the server's data directory
//! sites/SITE/        a site's kit, shard, key and certificate
//! logs/              one file a process
//! model.safetensors  the final model
//! metrics.json       every closed stage of every round
//! journal.jsonl      the run's journal with its signed end
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use sheaf_domain::{ErrorKind, SiteName};
use sheaf_runtime::Clock;
use tokio::process::{Child, ChildStdin, Command};

use super::shards::{CLASSES, SCALE, Shards, csv};
use super::{LOOK_EVERY, READY_WITHIN};
use crate::exit::Failure;

/// How long a child may take to drain before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How often a process may die before the demo gives up.
const DEATHS_MAX: u32 = 20;

/// Where everything lies.
#[derive(Debug, Clone)]
pub(super) struct Layout(PathBuf);

impl Layout {
    pub(super) fn new(root: PathBuf) -> Layout {
        Layout(root)
    }
    pub(super) fn root(&self) -> &Path {
        &self.0
    }
    pub(super) fn plan(&self) -> PathBuf {
        self.0.join("plan.toml")
    }
    pub(super) fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }
    pub(super) fn metrics(&self) -> PathBuf {
        self.0.join("metrics.json")
    }
    pub(super) fn journal(&self) -> PathBuf {
        self.0.join("journal.jsonl")
    }
    pub(super) fn server(&self) -> PathBuf {
        self.0.join("server")
    }
    pub(super) fn operator(&self) -> PathBuf {
        self.server().join(sheaf_server::OPERATOR_DIR)
    }
    pub(super) fn kit(&self, site: &SiteName) -> PathBuf {
        self.site(site).join("site.kit")
    }
    fn site(&self, site: &SiteName) -> PathBuf {
        self.0.join("sites").join(site.as_str())
    }
    fn pid(&self) -> PathBuf {
        self.0.join("server.pid")
    }
    fn log(&self, name: &str) -> PathBuf {
        self.0.join("logs").join(format!("{name}.log"))
    }

    /// Makes the directories and every site's shard.
    pub(super) fn make(&self, shards: &Shards) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.0.join("logs"))?;
        for (site, shard) in shards.sites() {
            let dir = self.site(site);
            std::fs::create_dir_all(&dir)?;
            std::fs::write(dir.join("shard.csv"), csv(shard))?;
        }
        Ok(())
    }
}

/// A process and the pipe whose end tells it that its supervisor is gone.
struct Process {
    name: String,
    child: Child,
    _stdin: Option<ChildStdin>,
    deaths: u32,
}

/// The processes of the demo.
pub(super) struct Children {
    layout: Layout,
    transport: String,
    /// The server's address, kept over its deaths.
    address: Option<String>,
    server: Option<Process>,
    sites: Vec<(SiteName, Process)>,
}

impl Children {
    pub(super) fn new(layout: Layout, transport: String) -> Children {
        Children { layout, transport, address: None, server: None, sites: Vec::new() }
    }

    /// Starts the server and waits until it listens.
    pub(super) async fn start_server(&mut self, clock: &dyn Clock) -> anyhow::Result<()> {
        let ready = self.layout.operator().join(sheaf_server::OPERATOR_ADDRESS_FILE);
        // A server that died left this behind; only the new one may say that it is ready.
        std::fs::remove_file(&ready).ok();
        let listen = self.address.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let mut command = self.command("server")?;
        command
            .args(["serve", "--until-stdin-ends", "--listen", &listen, "--data-dir"])
            .arg(self.layout.server())
            // All sites of a demo enrol at once from one address.
            .env("SHEAF_IDENTITY__ENROLMENTS_PER_MINUTE_AND_ADDRESS", "6000")
            .env("SHEAF_IDENTITY__ENROLMENTS_PER_MINUTE", "6000");
        let deaths = self.server.as_ref().map_or(0, |server| server.deaths);
        let server = self.server.insert(spawn("server", command, deaths)?);
        if let Some(pid) = server.child.id() {
            std::fs::write(self.layout.pid(), format!("{pid}\n"))?;
        }
        let started = clock.monotonic();
        loop {
            if let Some(status) = server.child.try_wait()? {
                let log = self.layout.log("server");
                let message = format!("the server did not start ({status}); its log is {}", log.display());
                return Err(Failure::new(ErrorKind::Internal, message).into());
            }
            if let Ok(address) = std::fs::read_to_string(&ready) {
                self.address = Some(address.trim().to_owned());
                return Ok(());
            }
            if clock.monotonic().saturating_sub(started) > READY_WITHIN {
                return Err(anyhow!("the server is not ready after {READY_WITHIN:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Starts a site's participant.
    pub(super) fn start_site(&mut self, site: &SiteName) -> anyhow::Result<()> {
        let process = self.site_process(site, 0)?;
        self.sites.push((site.clone(), process));
        Ok(())
    }

    fn site_process(&self, site: &SiteName, deaths: u32) -> anyhow::Result<Process> {
        let dir = self.layout.site(site);
        let mut command = self.command(site.as_str())?;
        command
            .args(["join", "--until-stdin-ends", "--transport", &self.transport, "--trainer", "mlp"])
            .args(["--label", "label", "--classes", &CLASSES.to_string(), "--scale", &SCALE.to_string()])
            .arg("--data")
            .arg(dir.join("shard.csv"))
            .arg("--dir")
            .arg(&dir)
            .arg(self.layout.kit(site));
        spawn(site.as_str(), command, deaths)
    }

    /// Starts again what has died, and says so.
    pub(super) async fn bring_back(&mut self, clock: &dyn Clock) -> anyhow::Result<()> {
        if let Some(server) = &mut self.server
            && let Some(status) = server.child.try_wait()?
        {
            server.deaths += 1;
            give_up(server)?;
            let address = self.address.clone().unwrap_or_default();
            eprintln!("\nthe server died ({status}); starting it again on {address}");
            self.start_server(clock).await?;
        }
        for idx in 0..self.sites.len() {
            let Some((site, process)) = self.sites.get_mut(idx) else { continue };
            let Some(status) = process.child.try_wait()? else { continue };
            process.deaths += 1;
            give_up(process)?;
            eprintln!("\n{site} died ({status}); starting it again");
            let (site, deaths) = (site.clone(), process.deaths);
            let again = self.site_process(&site, deaths)?;
            if let Some(slot) = self.sites.get_mut(idx) {
                slot.1 = again;
            }
        }
        Ok(())
    }

    /// Asks everything to drain, sites first, and waits for it.
    pub(super) async fn stop(self) {
        let mut sites: Vec<Process> = self.sites.into_iter().map(|(_, process)| process).collect();
        for process in &sites {
            terminate(&process.child);
        }
        for process in &mut sites {
            end(process).await;
        }
        if let Some(mut server) = self.server {
            terminate(&server.child);
            end(&mut server).await;
        }
        std::fs::remove_file(self.layout.pid()).ok();
    }

    /// This program again, with its own log and process group: a Ctrl-C reaches the supervisor alone.
    fn command(&self, name: &str) -> anyhow::Result<Command> {
        let log = File::options().create(true).append(true).open(self.layout.log(name))?;
        let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
        command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        // Settings of the caller's own server and operator are not the demo's.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("SHEAF_") {
                command.env_remove(variable);
            }
        }
        Ok(command)
    }
}

fn spawn(name: &str, mut command: Command, deaths: u32) -> anyhow::Result<Process> {
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let stdin = child.stdin.take();
    Ok(Process { name: name.to_owned(), child, _stdin: stdin, deaths })
}

fn give_up(process: &Process) -> anyhow::Result<()> {
    if process.deaths > DEATHS_MAX {
        return Err(anyhow!("{} died {} times; see its log", process.name, process.deaths));
    }
    Ok(())
}

fn terminate(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // One that has just ended needs no signal.
        kill_process(pid, Signal::TERM).ok();
    }
}

async fn end(process: &mut Process) {
    match tokio::time::timeout(STOP_WITHIN, process.child.wait()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(status) => eprintln!("{} ended with {status:?}", process.name),
        Err(_) => {
            eprintln!("{} did not drain in {STOP_WITHIN:?}; it is killed", process.name);
            process.child.kill().await.ok();
        }
    }
}
