//! A program that runs, whether we started it or a former life of ours did: whether it lives, how it ended, how to end it.
//!
//! Invariant: no signal is sent unless the number still means the process that was meant. When the program ends, what is left of its process
//! group is killed. A process that has left the group, by a session of its own, is not followed.
//!
//! Source: pidfd_open(2); setsid(2); kill(2).

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use sheaf_domain::Span;
use sheaf_runtime::TaskScope;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

use crate::{Error, Identity, kernel};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is gone; only its parent is told more, and that was a former life of ours.
    Unknown,
}

/// A program that runs or has ended. Dropping it leaves the program alone; a child that ends later is still collected.
#[derive(Debug)]
pub struct Process {
    identity: Identity,
    pidfd: AsyncFd<OwnedFd>,
    /// Of those we started ourselves.
    child: Option<Child>,
    ended: Option<Exit>,
}

impl Process {
    /// Takes up a process again that was started before a restart of ours; none when it is gone.
    ///
    /// To be called within the runtime.
    ///
    /// # Errors
    /// [`Error::Process`] when the kernel does not let it be watched.
    pub fn adopt(identity: &Identity) -> Result<Option<Process>, Error> {
        let Some(pidfd) = open(identity)? else { return Ok(None) };
        // Looked at after it was opened: the descriptor is this process's, or its number has been given again.
        if !identity.is_alive() {
            return Ok(None);
        }
        Process::watched(identity.clone(), pidfd, None).map(Some)
    }

    /// A child of ours; whatever its state, its number is its own until it is collected here.
    pub(crate) fn of_child(identity: Identity, child: Child) -> Result<Process, Error> {
        let gone = || failed("watch", &identity)(Errno::SRCH);
        let pidfd = open(&identity)?.ok_or_else(gone)?;
        Process::watched(identity, pidfd, Some(child))
    }

    fn watched(identity: Identity, pidfd: OwnedFd, child: Option<Child>) -> Result<Process, Error> {
        let pidfd = kernel::watched(pidfd).map_err(|source| Error::Process {
            action: "watch",
            pid: identity.pid(),
            source,
        })?;
        Ok(Process { identity, pidfd, child, ended: None })
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.ended.is_none() && self.identity.is_alive()
    }

    /// What is left of the time it may run; counted from its start, restarts of ours or not.
    pub fn time_left(&self, wall: Span) -> Duration {
        wall.as_duration().saturating_sub(self.identity.age())
    }

    /// Resolves when it has ended; what is left of its group is killed then.
    ///
    /// # Errors
    /// [`Error::Process`] when it cannot be watched or collected.
    /// # Cancel safety
    /// Safe: it may be called again.
    pub async fn gone(&mut self) -> Result<Exit, Error> {
        if let Some(exit) = self.ended {
            return Ok(exit);
        }
        let watching = self.pidfd.readable().await;
        watching
            .map_err(|source| Error::Process { action: "watch", pid: self.identity.pid(), source })?
            .retain_ready();
        self.signal_group(Signal::KILL)?;
        let exit = match &mut self.child {
            None => Exit::Unknown,
            Some(child) => {
                let status = child.wait().await;
                let action = "collect";
                let status =
                    status.map_err(|source| Error::Process { action, pid: self.identity.pid(), source })?;
                status
                    .code()
                    .map(Exit::Code)
                    .or_else(|| status.signal().map(Exit::Signal))
                    .unwrap_or(Exit::Unknown)
            }
        };
        self.ended = Some(exit);
        Ok(exit)
    }

    /// The same, or none when `scope` is cancelled first; the program runs on then.
    ///
    /// # Errors
    /// As [`Process::gone`].
    /// # Cancel safety
    /// Safe.
    pub async fn wait_gone(&mut self, scope: &TaskScope) -> Result<Option<Exit>, Error> {
        tokio::select! {
            biased;
            () = scope.cancelled() => Ok(None),
            exit = self.gone() => exit.map(Some),
        }
    }

    /// Asks the whole group to end, kills it after `grace`, and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::Process`] when it may not be signalled.
    /// # Cancel safety
    /// Safe to repeat: it begins anew with asking.
    pub async fn terminate(&mut self, grace: Duration) -> Result<Exit, Error> {
        if self.ended.is_none() {
            self.signal_group(Signal::TERM)?;
        }
        if let Ok(exit) = tokio::time::timeout(grace, self.gone()).await {
            return exit;
        }
        tracing::warn!(pid = self.identity.pid(), ?grace, "the program did not end when asked and is killed");
        self.signal_group(Signal::KILL)?;
        self.gone().await
    }

    fn signal_group(&self, signal: Signal) -> Result<(), Error> {
        // A child not collected yet keeps its number; of others it is looked up.
        if !self.identity.keeps_its_number() {
            return Ok(());
        }
        let Some(group) = number(&self.identity) else { return Ok(()) };
        match rustix::process::kill_process_group(group, signal) {
            // Nobody is left.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(failed("signal", &self.identity)(errno)),
        }
    }
}

/// A descriptor of whoever has the number now; none when nobody has.
fn open(identity: &Identity) -> Result<Option<OwnedFd>, Error> {
    let Some(pid) = number(identity) else { return Ok(None) };
    match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(failed("watch", identity)(errno)),
    }
}

/// The number as the kernel takes it. 1 and below would mean everybody, or the machine's first process.
fn number(identity: &Identity) -> Option<Pid> {
    i32::try_from(identity.pid()).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw)
}

fn failed(action: &'static str, identity: &Identity) -> impl FnOnce(Errno) -> Error {
    let pid = identity.pid();
    move |errno| Error::Process { action, pid, source: errno.into() }
}
