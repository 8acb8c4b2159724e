//! Who a process is, beyond its number: a number is given again, this is not.
//!
//! Source: proc_pid_stat(5), fields 3 and 22.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A process of one boot of one machine. What a journal keeps of a program that runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    pid: u32,
    /// When it was started, in the kernel's ticks since the boot.
    start_ticks: u64,
    /// Which boot, as the kernel names it.
    boot: String,
}

impl Identity {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Identity> {
        let now = Now::of(pid)?;
        Some(Identity { pid, start_ticks: now.start_ticks, boot: boot()? })
    }

    /// Its number: while it lives, also the number of its process group and session.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it runs. A process that has ended and was not collected yet does not.
    pub fn is_alive(&self) -> bool {
        self.is_of_this_boot() && Now::of(self.pid).is_some_and(|now| now.is(self) && !now.has_ended)
    }

    /// Whether its number still means it or nothing: then its group's number does too, as the kernel keeps a number that a
    /// group has.
    pub(crate) fn keeps_its_number(&self) -> bool {
        self.is_of_this_boot() && Now::of(self.pid).is_none_or(|now| now.is(self))
    }

    /// How long ago it was started, asleep or not. The kernel's clock on both sides: it is what start times are told in.
    pub fn age(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0));
        let ticks_per_s = rustix::param::clock_ticks_per_second().max(1);
        let part = Duration::from_secs(self.start_ticks % ticks_per_s).as_nanos() / u128::from(ticks_per_s);
        let started = Duration::from_secs(self.start_ticks / ticks_per_s)
            + Duration::from_nanos(u64::try_from(part).unwrap_or(0));
        now.saturating_sub(started)
    }

    fn is_of_this_boot(&self) -> bool {
        boot().as_deref() == Some(self.boot.as_str())
    }
}

/// What the kernel says of a number at this moment.
struct Now {
    start_ticks: u64,
    has_ended: bool,
}

impl Now {
    fn of(pid: u32) -> Option<Now> {
        // The name may hold anything but ends the last parenthesis, so it is read as bytes.
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Now::parse(&String::from_utf8_lossy(&stat))
    }

    fn parse(stat: &str) -> Option<Now> {
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_whitespace();
        let state = fields.next()?;
        // Field 3 was the first after the name; 22 is the nineteenth after it.
        let start_ticks = fields.nth(18)?.parse().ok()?;
        Some(Now { start_ticks, has_ended: matches!(state, "Z" | "X" | "x") })
    }

    fn is(&self, identity: &Identity) -> bool {
        self.start_ticks == identity.start_ticks
    }
}

fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_tricks_does_not_move_the_fields() {
        let stat = "57 (a) R 1 (b)) S 1 57 57 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2";
        let now = Now::parse(stat).unwrap();
        assert_eq!((now.start_ticks, now.has_ended), (98765, false));
        assert!(Now::parse(&stat.replace(") S ", ") Z ")).unwrap().has_ended);
        assert!(Now::parse("57 (cut) S 1 2 3").is_none());
    }

    #[test]
    fn a_number_given_again_or_another_boot_is_another_process() {
        let ours = Identity::of(std::process::id()).unwrap();
        assert!(ours.is_alive() && ours.keeps_its_number());
        let earlier = Identity { start_ticks: ours.start_ticks - 1, ..ours.clone() };
        let rebooted = Identity { boot: "another".to_owned(), pid: ours.pid, start_ticks: ours.start_ticks };
        for other in [earlier, rebooted] {
            assert!(!other.is_alive() && !other.keeps_its_number(), "{other:?}");
        }
        let text = serde_json::to_string(&ours).unwrap();
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), ours);
    }
}
