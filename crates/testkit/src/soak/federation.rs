//! The processes of one life and what is asked of them.
//!
//! A server may die under every question: the answer is then that it is away, never a panic.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use sheaf_runtime::crash;
use tempfile::TempDir;

use crate::process::{Process, eventually, look_for, signal};

/// The sites of a federation.
pub(super) const SITES: [&str; 3] = ["ada", "bo", "cy"];
/// Handwritten digits: 64 pixels from 0 to 16 and a label.
const DIGITS: &str = include_str!("../../../../data/digits/digits.csv");
/// What the program says when something is not possible now.
const EXIT_AWAY: i32 = 5;
/// How a process ends that was killed.
pub(super) const KILLED: i32 = -9;

/// A command that could not be carried out because the server is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Away;

/// A kill that is on its way. Dropped, it is taken back, or is over.
struct Fuse {
    called_off: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fuse {
    fn lit(pid: u32, after: Duration) -> Fuse {
        let called_off = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&called_off);
        let thread = std::thread::spawn(move || {
            // The process is reaped only after this thread has ended, so that its id stays its own.
            if look_for(after, || watched.load(Ordering::SeqCst).then_some(())).is_none() {
                signal(pid, Signal::KILL);
            }
        });
        Fuse { called_off, thread: Some(thread) }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.called_off.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A directory, a server, sites.
pub(super) struct Federation {
    program: PathBuf,
    dir: TempDir,
    address: String,
    server: Option<Process>,
    fuse: Option<Fuse>,
    pub(super) sites: Vec<Option<Process>>,
}

impl Federation {
    pub(super) fn new(program: &Path) -> Federation {
        let dir = tempfile::Builder::new().prefix("sheaf-soak-").tempdir().unwrap();
        for (idx, site) in SITES.iter().enumerate() {
            let rows: Vec<&str> = DIGITS.lines().skip(idx * 100).take(20 + 3 * idx).collect();
            std::fs::write(dir.path().join(format!("{site}.csv")), rows.join("\n") + "\n").unwrap();
        }
        let address = "127.0.0.1:0".to_owned();
        Federation {
            program: program.to_owned(),
            dir,
            address,
            server: None,
            fuse: None,
            sites: SITES.map(|_| None).into(),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The server's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The program in this directory, without the caller's settings; killed at `place` where one is given.
    fn command(&self, arguments: &str, place: Option<&str>) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(self.dir.path()).args(arguments.split_whitespace());
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("SHEAF_") || name.to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(&variable);
            }
        }
        if let Some(place) = place {
            command.arg("--crash-points").env(crash::VARIABLE, place);
        }
        command
    }

    /// Starts the server and waits until it listens or has died; true when it listens.
    pub(super) fn start_server(&mut self, place: Option<&str>) -> bool {
        assert!(self.server.is_none(), "one server at a time");
        let mut command =
            self.command(&format!("serve --data-dir data --listen {} --log info", self.address), place);
        // All sites enrol at once from one address, and again after every crash.
        command
            .env("SHEAF_IDENTITY__ENROLMENTS_PER_MINUTE_AND_ADDRESS", "6000")
            .env("SHEAF_IDENTITY__ENROLMENTS_PER_MINUTE", "6000");
        let server = Process::start(command, &self.path("server.log"));
        let listens = eventually("the server listens or dies", || {
            let died = server.has_ended();
            let listens = server.log().contains("listening address=");
            (died || listens).then_some(!died)
        });
        self.server = Some(server);
        if listens {
            let address = std::fs::read_to_string(self.data().join("operator/address")).unwrap();
            self.address = address.trim().to_owned();
        } else {
            self.bury_server();
        }
        listens
    }

    /// Whether the server has died; then it is taken away, and must have been killed.
    pub(super) fn server_died(&mut self) -> bool {
        let died = self.has_server_ended();
        if died {
            self.bury_server();
        }
        died
    }

    /// Whether the server has died; it stays where it is.
    pub(super) fn has_server_ended(&self) -> bool {
        self.server.as_ref().is_none_or(Process::has_ended)
    }

    fn bury_server(&mut self) {
        self.fuse = None;
        if let Some(mut server) = self.server.take() {
            let code = server.ended();
            assert_eq!(code, KILLED, "the server ended by itself; its log:\n{}", server.log());
        }
    }

    /// Kills the server now.
    pub(super) fn kill_server(&mut self) {
        self.fuse = None;
        if let Some(server) = self.server.take() {
            server.crash();
        }
    }

    /// Kills the server after a while, whatever is going on then.
    pub(super) fn kill_server_in(&mut self, after: Duration) {
        self.fuse = self.server.as_ref().map(|server| Fuse::lit(server.pid(), after));
    }

    /// Starts a site in the directory it has or makes.
    pub(super) fn start_site(&mut self, idx: usize, place: Option<&str>) {
        let site = SITES[idx];
        let arguments = format!(
            "join {site}.kit --dir sites/{site} --data {site}.csv --classes 10 --scale 0.0625 --trainer softmax"
        );
        let command = self.command(&arguments, place);
        self.sites[idx] = Some(Process::start(command, &self.path(&format!("{site}.log"))));
    }

    /// Runs a command of the operator's to its end.
    ///
    /// # Errors
    /// [`Away`] when the server was not there or went during it. Any other failure is a panic.
    pub(super) fn ask(&self, arguments: &str) -> Result<Value, Away> {
        let mut command = self.command(&format!("--operator data/operator --json {arguments}"), None);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let (printed, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        match output.status.code() {
            Some(0) => {
                // A command that only does something may print nothing.
                let document = if printed.trim().is_empty() { "null" } else { &printed };
                let parsed = serde_json::from_str(document);
                Ok(parsed.unwrap_or_else(|error| panic!("sheaf {arguments}: {error}: {printed}")))
            }
            Some(EXIT_AWAY) => Err(Away),
            code => panic!("sheaf {arguments} ended with {code:?}: {error}"),
        }
    }

    /// Runs a command that must be refused with `code`.
    pub(super) fn refused(&self, arguments: &str, code: i32) {
        let output = self.command(arguments, None).stdin(Stdio::null()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "sheaf {arguments}: {error}");
    }

    /// Ends everything in good order.
    pub(super) fn drain(&mut self) {
        for site in &mut self.sites {
            if let Some(site) = site.take() {
                assert_eq!(site.drain(), 0, "a site drains");
            }
        }
        self.fuse = None;
        if let Some(server) = self.server.take() {
            assert_eq!(server.drain(), 0, "the server drains");
        }
    }

    /// What a failed check needs to be understood.
    pub(super) fn logs(&self) -> String {
        let names = std::iter::once("server").chain(SITES);
        let tail = |name: &str| {
            let log = std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n"))
        };
        names.map(tail).collect()
    }
}
