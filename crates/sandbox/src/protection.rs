//! What can wall a program in on this machine: Landlock, an account of its own, or both.
//!
//! Source: landlock(7); passwd(5).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, kernel};

/// The first interface of Landlock with rules for TCP ports.
const ABI_WITH_TCP: u32 = 4;
/// The first one that holds signals and abstract sockets.
const ABI_WITH_SCOPES: u32 = 6;
/// The first one that holds sockets with a path.
const ABI_WITH_SOCKET_PATHS: u32 = 9;
/// The first one with rules for UDP ports.
const ABI_WITH_UDP: u32 = 10;

/// What protects us from a program that is started. `Display` is the sentence for the start-up log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    landlock_abi: Option<u32>,
    account: Option<Account>,
}

/// An account of the machine, which programs run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name, or the numbers as they were configured.
    pub name: String,
    /// The user's number, never 0.
    pub uid: u32,
    /// The group's number, never 0; the program is in no other group.
    pub gid: u32,
}

impl Protection {
    /// What this machine offers, with the account that is configured (a name of `/etc/passwd` or `UID:GID`).
    ///
    /// An account is used wherever it is given, Landlock or not.
    ///
    /// # Errors
    /// [`Error::BadAccount`] for one that does not exist, is root, or cannot be switched to because we are not root.
    pub fn probe(account: Option<&str>) -> Result<Protection, Error> {
        let account = account.map(Account::named).transpose()?;
        if let Some(account) = &account {
            let may_switch = rustix::process::geteuid().is_root();
            if !may_switch {
                let reason = "the server is not root and cannot switch accounts";
                return Err(Error::BadAccount { name: account.name.clone(), reason });
            }
        }
        Ok(Protection { landlock_abi: kernel::landlock_abi(), account })
    }

    /// The same without Landlock, as a kernel without it would answer.
    pub fn without_landlock(self) -> Protection {
        Protection { landlock_abi: None, ..self }
    }

    /// Whether anything protects.
    pub fn protects(&self) -> bool {
        self.landlock_abi.is_some() || self.account.is_some()
    }

    /// The version of Landlock's interface, if there is any.
    pub fn landlock_abi(&self) -> Option<u32> {
        self.landlock_abi
    }

    /// The account programs run as, if one is configured.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Whether a program is held to the TCP ports it is given.
    pub fn holds_tcp(&self) -> bool {
        self.landlock_abi >= Some(ABI_WITH_TCP)
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(abi) = self.landlock_abi {
            let held = [
                (1, "files"),
                (ABI_WITH_TCP, "TCP"),
                (ABI_WITH_SCOPES, "signals"),
                (ABI_WITH_SOCKET_PATHS, "Unix sockets"),
                (ABI_WITH_UDP, "UDP"),
            ];
            let (holds, open): (Vec<_>, Vec<_>) = held.iter().partition(|(since, _)| abi >= *since);
            let names = |list: Vec<&(u32, &'static str)>| {
                list.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
            };
            let mut text = format!("landlock abi {abi} (holds {}", names(holds));
            if !open.is_empty() {
                text.push_str(&format!("; not {}", names(open)));
            }
            parts.push(text + ")");
        }
        parts.extend(self.account.as_ref().map(|account| format!("user {}", account.name)));
        if parts.is_empty() { f.write_str("none") } else { f.write_str(&parts.join(" and ")) }
    }
}

impl Account {
    fn named(name: &str) -> Result<Account, Error> {
        let refuse = |reason| Error::BadAccount { name: name.chars().take(64).collect(), reason };
        let numbers = match name.split_once(':') {
            Some((uid, gid)) => numbers(uid, gid),
            None => {
                let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
                in_passwd(&passwd, name)
            }
        };
        let (uid, gid) = numbers.ok_or_else(|| refuse("it is neither in /etc/passwd nor UID:GID"))?;
        if uid == 0 || gid == 0 {
            return Err(refuse("root is held by no file's mode"));
        }
        Ok(Account { name: name.to_owned(), uid, gid })
    }
}

fn in_passwd(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [login, _, uid, gid, ..] if *login == name => numbers(uid, gid),
            _ => None,
        }
    })
}

fn numbers(uid: &str, gid: &str) -> Option<(u32, u32)> {
    // The largest number stands for "leave it as it is" in the kernel's calls.
    let number = |text: &str| text.parse().ok().filter(|number| *number != u32::MAX);
    Some((number(uid)?, number(gid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_a_name_or_two_numbers_and_never_root() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nflower:x:812:813::/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(in_passwd(passwd, "flower"), Some((812, 813)));
        assert_eq!(in_passwd(passwd, "flow"), None);
        assert_eq!(Account::named("70:71").unwrap().gid, 71);
        for refused in ["0:5", "5:0", "4294967295:5", "root", "no such account", "1:"] {
            assert!(matches!(Account::named(refused), Err(Error::BadAccount { .. })), "{refused}");
        }
    }

    #[test]
    fn the_sentence_says_what_is_held_and_what_is_not() {
        let mut protection = Protection { landlock_abi: Some(7), account: None };
        assert_eq!(
            protection.to_string(),
            "landlock abi 7 (holds files, TCP, signals; not Unix sockets, UDP)"
        );
        protection.account = Some(Account::named("70:71").unwrap());
        assert_eq!(protection.clone().without_landlock().to_string(), "user 70:71");
        protection.account = None;
        assert_eq!(protection.without_landlock().to_string(), "none");
    }
}
