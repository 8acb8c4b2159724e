//! The walls, raised by the confiner around itself before it becomes the program, and then tried.
//!
//! Invariant: what an [`Program::hidden`] path holds cannot be opened afterwards, or nothing is started. No step can be undone:
//! each holds for this thread, the program it executes and all its children.
//!
//! Source: landlock(7); capabilities(7); setresuid(2).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Compatible as _, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::fs::{Access, Mode, OFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::order::Refusal;
use crate::{Account, Network, Program, Protection, paths};

/// The newest interface whose rights we ask for; an older kernel gives what it has.
const ASKED: ABI = ABI::V10;

/// Gives up all privileges and shuts the program in its directory, as far as `protection` goes.
pub(crate) fn raise(program: &Program, protection: &Protection) -> Result<(), Refusal> {
    let readable = readable(program);
    refuse_overlap(program, &readable)?;
    let bounded = drop_bounding_set();
    if let Some(account) = protection.account() {
        switch_to(account, program)?;
    }
    drop_capabilities(bounded)?;
    rustix::thread::set_no_new_privs(true).map_err(|error| Refusal::step("give up privileges", error))?;
    if protection.landlock_abi().is_some() {
        shut_in(program, &readable).map_err(|error| Refusal::step("restrict itself with Landlock", error))?;
    }
    if protection.protects() { try_out(program, protection) } else { Ok(()) }
}

/// What may be read and executed.
fn readable(program: &Program) -> Vec<PathBuf> {
    let mut readable: Vec<PathBuf> = paths::SYSTEM.iter().map(PathBuf::from).collect();
    readable.extend(paths::environment_of(&program.executable));
    readable.extend(program.readable.clone());
    readable
}

/// Refuses a path that is opened and hidden at once, whichever contains the other. The program's own directory may lie in what is
/// hidden, as the data directory's other parts stay shut.
fn refuse_overlap(program: &Program, readable: &[PathBuf]) -> Result<(), Refusal> {
    let own = real(&program.directory);
    for hidden in &program.hidden {
        let real_hidden = real(hidden);
        let overlaps = |path: &Path| path.starts_with(&real_hidden) || real_hidden.starts_with(path);
        let opened =
            readable.iter().chain(&program.writable).map(|path| real(path)).find(|path| overlaps(path));
        if let Some(opened) = opened {
            let reason = format!("{} is opened to it", opened.display());
            return Err(Refusal::WallsOpen { path: hidden.clone(), reason });
        }
        if real_hidden.starts_with(&own) {
            let reason = "it lies in its directory".to_owned();
            return Err(Refusal::WallsOpen { path: hidden.clone(), reason });
        }
    }
    Ok(())
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// Empties the set that a root program's capabilities come from. False when that is not ours to do.
fn drop_bounding_set() -> bool {
    (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)).all(|capability| {
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(capability).is_ok(),
            // Not in the set, or beyond the last one this kernel knows.
            Ok(false) | Err(_) => true,
        }
    })
}

fn switch_to(account: &Account, program: &Program) -> Result<(), Refusal> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let placed = program.files.iter().map(|file| program.directory.join(&file.name));
    for path in placed.chain([program.directory.clone()]) {
        rustix::fs::chown(&path, Some(uid), Some(gid))
            .map_err(|error| Refusal::step(format!("give {} to {}", path.display(), account.name), error))?;
    }
    rustix::thread::set_thread_groups(&[])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|error| Refusal::step(format!("become {}", account.name), error))
}

fn drop_capabilities(bounded: bool) -> Result<(), Refusal> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::clear_ambient_capability_set()
        .and_then(|()| rustix::thread::set_capabilities(None, sets))
        .map_err(|error| Refusal::step("give up capabilities", error))?;
    // Another account gains none by executing a program; root gains all that the bounding set leaves.
    if !bounded && rustix::process::geteuid().is_root() {
        return Err(Refusal::step("give up root's capabilities", "CAP_SETPCAP is missing"));
    }
    Ok(())
}

fn shut_in(program: &Program, readable: &[PathBuf]) -> Result<(), Box<dyn std::error::Error>> {
    let everything = AccessFs::from_all(ASKED);
    let mut ruleset = Ruleset::default()
        .set_compatibility(landlock::CompatLevel::BestEffort)
        .handle_access(everything)?
        .scope(Scope::from_all(ASKED))?;
    if let Network::Connect(_) = program.network {
        ruleset = ruleset.handle_access(AccessNet::from_all(ASKED))?;
    }
    let nodes = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let mut created = ruleset
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::from_read(ASKED)))?
        .add_rules(path_beneath_rules(paths::NOWHERE, device))?
        .add_rules(path_beneath_rules(&program.writable, everything & !nodes))?
        .add_rule(PathBeneath::new(PathFd::new(&program.directory)?, everything & !nodes))?;
    if let Network::Connect(ports) = &program.network {
        let rules =
            ports.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
        created = created.add_rules(rules)?;
    }
    let status = created.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("the kernel enforces nothing".into());
    }
    Ok(())
}

/// Tries the walls from inside: the directory opens, nothing hidden does.
fn try_out(program: &Program, protection: &Protection) -> Result<(), Refusal> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opens = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
    opens(&program.directory).map_err(|error| {
        let whose = protection.account().map_or("the program", |account| account.name.as_str());
        Refusal::step(format!("open {} as {whose}", program.directory.display()), error)
    })?;
    // Landlock judges opening alone; modes also let one pass through a directory that cannot be listed.
    let by_mode_only = protection.landlock_abi().is_none();
    for hidden in &program.hidden {
        let passes = by_mode_only && rustix::fs::access(hidden, Access::EXEC_OK).is_ok();
        if passes || opens(hidden).is_ok() {
            let reason = "it opened when the walls were up".to_owned();
            return Err(Refusal::WallsOpen { path: hidden.clone(), reason });
        }
    }
    Ok(())
}
