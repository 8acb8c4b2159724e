//! The confiner: a process that sets itself up as ordered, waits for a go, and becomes the program.
//!
//! It is our own program, executed anew, so that none of this runs between a fork and an execution in a process with threads.
//! Refuses to go on after any step that failed, and ends when its launcher does before the go.
//!
//! Source: setsid(2); setrlimit(2); close_range(2).

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};

use crate::order::{GO, Order, Refusal, Report};
use crate::{Limits, Program, Protection, kernel, walls};

/// Becomes the program that standard input orders; to be called before the process has threads or anything open.
///
/// Returns only when nothing was started.
pub fn confine_main() -> ExitCode {
    let Ok(report) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3).map(File::from) else {
        return ExitCode::FAILURE;
    };
    let mut input = std::io::stdin().lock();
    let Ok(order) = Order::read(&mut input) else { return ExitCode::FAILURE };
    if let Err(refusal) = confine(&order, &mut input, &report) {
        say(&report, &Report::Refused(refusal));
    }
    ExitCode::FAILURE
}

/// Returns when nothing was started: with the reason, or without one when the launcher did not want it any more.
fn confine(order: &Order, input: &mut impl Read, report: &File) -> Result<(), Refusal> {
    let Order { program, protection } = order;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    make_directory(program)?;
    let log = open_log(program)?;
    let nothing = File::open("/dev/null").map_err(|error| Refusal::step("open /dev/null", error))?;
    rustix::process::setsid().map_err(|error| Refusal::step("begin a session", error))?;
    std::env::set_current_dir(&program.directory)
        .map_err(|error| Refusal::step("enter the directory", error))?;
    limit(&program.limits, protection)?;
    walls::raise(program, protection)?;

    say(report, &Report::Ready);
    let mut go = [0];
    if input.read_exact(&mut go).is_err() || go != [GO] {
        program.files.iter().for_each(|file| drop(std::fs::remove_file(&file.name)));
        return Ok(());
    }
    rustix::stdio::dup2_stdin(&nothing)
        .and_then(|()| rustix::stdio::dup2_stdout(&log))
        .and_then(|()| rustix::stdio::dup2_stderr(&log))
        .map_err(|error| Refusal::step("open its log as its output", error))?;
    kernel::close_others_on_exec().map_err(|error| Refusal::step("close what is inherited", error))?;
    let error =
        Command::new(&program.executable).args(&program.args).env_clear().envs(program.variables()).exec();
    Err(Refusal::step(format!("execute {}", program.executable.display()), error))
}

/// A line of JSON; a launcher that is gone hears nothing.
fn say(mut report: &File, what: &Report) {
    let mut line = serde_json::to_vec(what).unwrap_or_default();
    line.push(b'\n');
    drop(report.write_all(&line));
}

fn make_directory(program: &Program) -> Result<(), Refusal> {
    let directory = &program.directory;
    let made = DirBuilder::new().mode(0o700).create(directory);
    made.map_err(|error| Refusal::step(format!("make {}", directory.display()), error))?;
    for file in &program.files {
        let path = directory.join(&file.name);
        let placed = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        placed
            .and_then(|mut placed| placed.write_all(file.content.expose()))
            .map_err(|error| Refusal::step(format!("place {}", path.display()), error))?;
    }
    Ok(())
}

/// Opens the log before the walls are up; the program itself can open it no more.
fn open_log(program: &Program) -> Result<File, Refusal> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(i32::from_ne_bytes(flags.bits().to_ne_bytes()))
        .open(&program.log)
        .map_err(|error| Refusal::step(format!("open {}", program.log.display()), error))?;
    let is_file = log.metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file { Ok(log) } else { Err(Refusal::step("open the log", "it is not a file")) }
}

fn limit(limits: &Limits, protection: &Protection) -> Result<(), Refusal> {
    // It never stands back less than we do ourselves.
    let nice = rustix::process::getpriority_process(None).map_or(0, |ours| ours.max(i32::from(limits.nice)));
    rustix::process::setpriority_process(None, nice)
        .map_err(|error| Refusal::step("lower its priority", error))?;
    // When memory runs out, the program goes before the server does. A kernel that refuses changes nothing else.
    drop(std::fs::write("/proc/self/oom_score_adj", "500"));
    let uid = protection.account().map_or_else(|| rustix::process::getuid().as_raw(), |account| account.uid);
    let processes = limits.processes.map(|processes| processes.saturating_add(tasks_of(uid)));
    let wanted = [
        (Resource::Core, Some(0)),
        (Resource::Fsize, limits.file.map(|size| size.as_bytes())),
        (Resource::Nofile, limits.open_files),
        (Resource::Nproc, processes),
        (Resource::As, limits.address_space.map(|size| size.as_bytes())),
    ];
    for (resource, most) in wanted {
        let Some(most) = most else { continue };
        // A hard limit that stands already is never raised.
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|error| Refusal::step(format!("set the limit {resource:?}"), error))?;
    }
    Ok(())
}

/// Threads that an account runs at this moment.
fn tasks_of(uid: u32) -> u64 {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let is_number = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let numbered = processes.flatten().filter(|entry| is_number(&entry.file_name()));
    let statuses = numbered.filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok());
    statuses.filter_map(|status| threads_of(&status, uid)).sum()
}

fn threads_of(status: &str, uid: u32) -> Option<u64> {
    let field = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()
    };
    (field("Uid:")?.parse() == Ok(uid)).then(|| field("Threads:").and_then(|count| count.parse().ok()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted_for_their_account_only() {
        let status = "Name:\tsheaf\nUid:\t812\t812\t812\t812\nThreads:\t7\n";
        assert_eq!(threads_of(status, 812), Some(7));
        assert_eq!(threads_of(status, 8), None);
        assert!(tasks_of(rustix::process::getuid().as_raw()) >= 1);
    }
}
