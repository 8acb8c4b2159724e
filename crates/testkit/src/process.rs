//! A process of a test: its log, its end, and that it does not outlive the test.
//!
//! Nothing waits for a time: a condition is looked at until it holds, within a generous bound.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sheaf_runtime::SystemClock;

/// How often a condition is looked at, and for how long before the test fails.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOK_FOR: Duration = Duration::from_secs(60);
/// How long a supervisor may take to end its children when a test is over.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Looks at a condition until it yields something or the time is over.
pub fn look_for<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let clock = SystemClock::shared();
    let started = clock.monotonic();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if clock.monotonic().saturating_sub(started) > within {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Looks at a condition until it yields something.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_for(LOOK_FOR, look).unwrap_or_else(|| panic!("it did not come about: {what}"))
}

/// Whether a process is there and not merely waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit(')').next().map(|rest| !rest.trim_start().starts_with('Z')))
        .unwrap_or(false)
}

/// The children of a process.
pub fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
        .collect()
}

/// Sends a signal to a process; one that has just gone is no fault.
pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).ok();
}

/// A process that writes what it says to a file.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; standard output and error go to `log`, which begins anew.
    pub fn start(mut command: Command, log: &Path) -> Process {
        std::fs::remove_file(log).ok();
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Process { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self::signal(self.pid(), signal);
    }

    /// Whether it has ended; it is not reaped by being asked.
    pub fn has_ended(&self) -> bool {
        !is_alive(self.pid())
    }

    /// Ends it as a crash does.
    pub fn crash(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Asks it to drain and gives its exit code.
    #[track_caller]
    pub fn drain(mut self) -> i32 {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Its exit code, once it ends by itself; minus the signal's number when one ended it.
    #[track_caller]
    pub fn ended(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let status = look_for(LOOK_FOR, || self.child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("it did not end; its log:\n{}", self.log()));
        status.code().unwrap_or_else(|| -status.signal().unwrap_or_default())
    }

    /// Waits until its log has a text.
    #[track_caller]
    pub fn says(&mut self, text: &str) {
        let said = look_for(LOOK_FOR, || {
            // Looked at first: what it said before it ended is in the log then.
            let ended = self.child.try_wait().unwrap().is_some();
            if self.log().contains(text) { Some(true) } else { ended.then_some(false) }
        });
        assert_eq!(said, Some(true), "it did not say {text:?}; its log:\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A supervisor takes its children along when it is asked to; it is given the time.
            let has_children = !children_of(self.pid()).is_empty();
            if has_children {
                self.signal(Signal::TERM);
                look_for(END_WITHIN, || (!matches!(self.child.try_wait(), Ok(None))).then_some(()));
            }
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
