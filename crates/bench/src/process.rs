//! What a process has used: CPU time and resident memory, as the kernel tells them.
//!
//! # Source
//! proc(5): `/proc/PID/stat` fields 14 and 15 (CPU time in ticks, usually 10 ms each), `/proc/PID/status` lines `VmRSS` and
//! `VmHWM`.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What a process has used since it began.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time of all its threads, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory now, in bytes.
    pub rss_bytes: u64,
    /// The most resident memory it ever had, in bytes (`VmHWM`).
    pub peak_rss_bytes: u64,
}

/// What the process `pid` has used.
///
/// # Errors
/// [`Error::Io`] when there is no such process or its files are not as expected.
pub fn usage(pid: u32) -> Result<Usage, Error> {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(Error::io("read a process's usage"))
    };
    let (stat, status) = (read("stat")?, read("status")?);
    let ticks = ticks_of(&stat).ok_or_else(|| Error::unexpected("/proc/PID/stat is not as expected"))?;
    #[expect(clippy::cast_precision_loss, reason = "ticks of a run are far below 2^53")]
    let cpu_seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let bytes = |name: &str| kib_of(&status, name).map_or(0, |kib| kib.saturating_mul(1024));
    Ok(Usage { cpu_seconds, rss_bytes: bytes("VmRSS:"), peak_rss_bytes: bytes("VmHWM:") })
}

/// What this process has used.
///
/// # Errors
/// As [`usage`].
pub fn own_usage() -> Result<Usage, Error> {
    usage(std::process::id())
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of all threads of this process.
pub fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How much others use the machine: the load average of the last minute.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// Cores this process may run on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Lets this process open as many files and connections as the system allows; returns how many that is.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, the present limit stands and is what is returned.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = if raised.is_ok() { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

fn ticks_of(stat: &str) -> Option<u64> {
    // The command's name may hold anything, also spaces and parentheses; the fields begin after its last one.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(system))
}

fn kib_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0 1 0";
        assert_eq!(ticks_of(stat), Some(154));
        assert_eq!(ticks_of("7 (a"), None);
        assert_eq!(kib_of("Name:\tx\nVmHWM:\t   12 kB\n", "VmHWM:"), Some(12));
    }

    #[test]
    fn this_process_has_used_something() {
        let used = own_usage().unwrap();
        assert!(used.peak_rss_bytes >= used.rss_bytes && used.rss_bytes > 0, "{used:?}");
        assert!(process_cpu() >= Duration::from_nanos(1));
        assert!(cores() >= 1);
    }
}
