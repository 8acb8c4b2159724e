//! Starting a program in two steps, so that a journal can name the process before it does anything.
//!
//! [`Launcher::hold`] brings the confiner to the last step before the program; [`Held::start`] lets it go on. A process that was
//! never let go ends by itself when the `Held` is dropped or this process dies, so that none runs that no journal knows.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Take};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};

use crate::order::{CONFINE, GO, Order, Report};
use crate::{Error, Identity, Process, Program, Protection};

/// How long the confiner may take for a step; it takes milliseconds.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of what the confiner says at most.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// Whether programs may be started when nothing protects from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwalled {
    /// No: starting is refused.
    Refused,
    /// Yes, the operator said so by name.
    Allowed,
}

/// What starts programs, with the walls this machine has.
#[derive(Debug, Clone)]
pub struct Launcher {
    confiner: PathBuf,
    args: Vec<OsString>,
    protection: Protection,
}

/// A program about to be executed; its process exists and waits.
#[derive(Debug)]
pub struct Held {
    identity: Identity,
    child: Child,
    stdin: ChildStdin,
    report: BufReader<Take<ChildStderr>>,
}

impl Launcher {
    /// A launcher whose confiner is the program that runs: its `main` hands over to [`crate::confine_main`] when its first argument is
    /// [`CONFINE`]. It is the very same file even when that was replaced on the disk meanwhile.
    ///
    /// # Errors
    /// [`Error::NoWalls`] when nothing protects and that is not allowed.
    pub fn new(protection: Protection, unwalled: Unwalled) -> Result<Launcher, Error> {
        if !protection.protects() && unwalled == Unwalled::Refused {
            return Err(Error::NoWalls);
        }
        Ok(Launcher { confiner: PathBuf::from("/proc/self/exe"), args: vec![CONFINE.into()], protection })
    }

    /// The same with another way to the confiner.
    pub fn through(self, confiner: impl Into<PathBuf>, args: impl IntoIterator<Item = OsString>) -> Launcher {
        Launcher { confiner: confiner.into(), args: args.into_iter().collect(), ..self }
    }

    /// What protects from the programs it starts.
    pub fn protection(&self) -> &Protection {
        &self.protection
    }

    /// Makes the program's directory, raises the walls, tries them, and stops there.
    ///
    /// # Errors
    /// [`Error::BadProgram`], [`Error::WallsOpen`] and [`Error::NotStarted`]; nothing runs then. The directory may have been made.
    /// # Cancel safety
    /// Safe: the process ends by itself when the future is dropped; the directory may have been made.
    pub async fn hold(&self, program: &Program) -> Result<Held, Error> {
        program.check()?;
        let order = Order::encode(program, &self.protection)?;
        let mut child = self.spawn()?;
        let identity = child.id().and_then(Identity::of).ok_or_else(|| confiner("ended at once"))?;
        let (Some(mut stdin), Some(stderr)) = (child.stdin.take(), child.stderr.take()) else {
            return Err(confiner("has no pipes"));
        };
        let mut report = BufReader::new(stderr.take(REPORT_BYTES_MAX));
        let said = within_time(async {
            // A confiner that ended while it was told says why on the other pipe.
            drop(stdin.write_all(&order).await);
            let mut line = String::new();
            report.read_line(&mut line).await.map(|_| line)
        });
        match serde_json::from_str(&said.await?) {
            Ok(Report::Ready) => Ok(Held { identity, child, stdin, report }),
            Ok(Report::Refused(refusal)) => Err(refusal.into()),
            Err(_) => Err(confiner("gave no answer")),
        }
    }

    fn spawn(&self) -> Result<Child, Error> {
        Command::new(&self.confiner)
            .arg0("sheaf")
            .args(&self.args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::NotStarted {
                step: "start a process".to_owned(),
                reason: error.to_string(),
            })
    }
}

impl Held {
    /// Who the program will be: for the journal, before it runs.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Lets the process become the program.
    ///
    /// # Errors
    /// [`Error::NotStarted`] when the file cannot be executed.
    /// # Cancel safety
    /// Not safe: when the future is dropped, the program may run or not; [`Process::adopt`] tells.
    pub async fn start(mut self) -> Result<Process, Error> {
        // From here on a handle exists: whatever happens, the process can be followed.
        let process = Process::of_child(self.identity.clone(), self.child)?;
        let said = within_time(async {
            drop(self.stdin.write_all(&[GO]).await);
            drop(self.stdin.flush().await);
            let mut said = String::new();
            self.report.read_to_string(&mut said).await.map(|_| said)
        });
        let said = said.await?;
        if said.is_empty() {
            return Ok(process);
        }
        match serde_json::from_str(&said) {
            Ok(Report::Refused(refusal)) => Err(refusal.into()),
            Ok(Report::Ready) | Err(_) => Err(confiner("gave no answer")),
        }
    }
}

async fn within_time(said: impl Future<Output = std::io::Result<String>>) -> Result<String, Error> {
    match tokio::time::timeout(STEP_TIME_MAX, said).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(_)) => Err(confiner("cannot be heard")),
        Err(_) => Err(confiner("took too long")),
    }
}

fn confiner(what: &'static str) -> Error {
    Error::Confiner { what }
}
