//! What is to be started: the program, what it is given, and what it may reach.
//!
//! A plan or a peer never names any of this; it is put together by the server from its configuration.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use sheaf_domain::{ByteSize, Span};

use crate::{Error, Secret};

/// Bytes of one placed file at most.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Placed files at most; with [`FILE_BYTES_MAX`] they fit an order to the confiner.
const FILES_MAX: usize = 8;
/// Arguments, variables and paths of each kind at most.
const ENTRIES_MAX: usize = 1024;
/// Variables that follow from the directory and cannot be set.
const OWN_VARIABLES: [&str; 2] = ["HOME", "TMPDIR"];

/// A program of somebody else, to be started once.
///
/// Its environment is empty but for `PATH`, `LANG=C.UTF-8`, `HOME` and `TMPDIR` (both its directory), and what `environment` adds.
/// It inherits no descriptor but 0 (`/dev/null`), 1 and 2 (its log).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// The file to execute, absolute. The Python environment it lies in becomes readable by itself.
    pub executable: PathBuf,
    /// Its arguments, without its name. Other users of the machine see them: no secret belongs here.
    pub args: Vec<String>,
    /// A directory made for this start with mode 0700, absolute; it must not exist, its parent must.
    pub directory: PathBuf,
    /// Where standard output and error are appended, absolute and outside `directory`, so that the program cannot put something
    /// else in its place.
    pub log: PathBuf,
    /// Further variables.
    pub environment: BTreeMap<String, String>,
    /// Files put into `directory` with mode 0600.
    pub files: Vec<PlacedFile>,
    /// Paths it may read and execute besides the system's own.
    pub readable: Vec<PathBuf>,
    /// Paths it may also write, besides `directory`.
    pub writable: Vec<PathBuf>,
    /// Paths it must not be able to open: the data directory, keys. The start is refused when it could. None of them needs to exist.
    pub hidden: Vec<PathBuf>,
    /// Where it may connect to.
    pub network: Network,
    /// What it may use up.
    pub limits: Limits,
}

/// A file given to a program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlacedFile {
    /// Its name in the program's directory.
    pub name: String,
    /// Its content, 1 MiB at most.
    pub content: Secret,
}

/// Where a program may connect to. Holds where Landlock has network rules (ABI 4 and later; UDP from ABI 10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Anywhere.
    Open,
    /// TCP to these ports, of any address; it can listen nowhere.
    Connect(Vec<u16>),
}

/// What a program may use up. None means that the server's own limit stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Address space of each process.
    pub address_space: Option<ByteSize>,
    /// Size of each file it writes; what the log reaches in the whole life of the program counts, freed or not.
    pub file: Option<ByteSize>,
    /// Open descriptors of each process.
    pub open_files: Option<u64>,
    /// Processes and threads. The kernel counts by account: what the account already runs is added, and root is never held.
    pub processes: Option<u64>,
    /// How much it stands back for others, 0 to 19.
    pub nice: u8,
    /// How long it may run. Whoever watches the process holds it to this with [`Process::time_left`](crate::Process::time_left).
    pub wall: Option<Span>,
}

impl Default for Limits {
    /// 64 GiB a file, 1024 descriptors, 1024 processes, nice 5; no bound of address space, as Python reserves much more than
    /// it uses; no bound of time.
    fn default() -> Limits {
        Limits {
            address_space: None,
            file: Some(ByteSize::from_mib(64 * 1024)),
            open_files: Some(1024),
            processes: Some(1024),
            nice: 5,
            wall: None,
        }
    }
}

impl Program {
    /// A program with nothing but what it needs to run, no network ports and the usual limits.
    pub fn new(
        executable: impl Into<PathBuf>,
        directory: impl Into<PathBuf>,
        log: impl Into<PathBuf>,
    ) -> Program {
        Program {
            executable: executable.into(),
            args: Vec::new(),
            directory: directory.into(),
            log: log.into(),
            environment: BTreeMap::new(),
            files: Vec::new(),
            readable: Vec::new(),
            writable: Vec::new(),
            hidden: Vec::new(),
            network: Network::Connect(Vec::new()),
            limits: Limits::default(),
        }
    }

    /// Holds what can be checked without looking at the disk.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.check_paths()?;
        self.check_files()?;
        self.check_environment()?;
        let bad_arg = self.args.iter().any(|arg| arg.contains('\0'));
        require(
            !bad_arg && self.args.len() <= ENTRIES_MAX,
            "an argument holds a zero byte, or there are too many",
        )?;
        require(self.limits.nice <= 19, "nice goes from 0 to 19")
    }

    fn check_paths(&self) -> Result<(), Error> {
        let lists = [&self.readable, &self.writable, &self.hidden];
        require(lists.iter().all(|list| list.len() <= ENTRIES_MAX), "there are too many paths")?;
        let single = [&self.executable, &self.directory, &self.log];
        for path in single.into_iter().chain(lists.into_iter().flatten()) {
            require(is_plain(path), "a path is not absolute, or goes up with `..`")?;
        }
        require(!self.log.starts_with(&self.directory), "the log lies in the program's own directory")
    }

    fn check_files(&self) -> Result<(), Error> {
        require(self.files.len() <= FILES_MAX, "there are too many files to place")?;
        for file in &self.files {
            let mut parts = Path::new(&file.name).components();
            let single = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == file.name.as_str());
            require(single && !file.name.contains('\0'), "a placed file's name is not a single name")?;
            require(file.content.expose().len() <= FILE_BYTES_MAX, "a placed file is larger than 1 MiB")?;
        }
        Ok(())
    }

    fn check_environment(&self) -> Result<(), Error> {
        require(self.environment.len() <= ENTRIES_MAX, "there are too many variables")?;
        for (name, value) in &self.environment {
            let well_formed = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
            require(well_formed, "a variable is not well formed")?;
            require(!OWN_VARIABLES.contains(&name.as_str()), "HOME and TMPDIR are the program's directory")?;
        }
        Ok(())
    }

    /// All variables the program gets.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let directory = self.directory.to_string_lossy().into_owned();
        let beside =
            self.executable.parent().unwrap_or_else(|| Path::new("/usr/bin")).to_string_lossy().into_owned();
        let mut variables = BTreeMap::from([
            ("PATH".to_owned(), format!("{beside}:/usr/local/bin:/usr/bin:/bin")),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ]);
        variables.extend(self.environment.clone());
        variables.extend(OWN_VARIABLES.map(|name| (name.to_owned(), directory.clone())));
        variables
    }
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.to_str().is_some_and(|text| !text.contains('\0'))
        && !path.components().any(|part| part == Component::ParentDir)
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::BadProgram(otherwise)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        Program::new("/bin/true", "/tmp/run", "/tmp/run.log")
    }

    #[test]
    fn a_program_that_contradicts_itself_is_refused() {
        assert!(program().check().is_ok());
        let wrong: [fn(&mut Program); 9] = [
            |it| it.executable = "true".into(),
            |it| it.directory = "/tmp/../etc".into(),
            |it| it.log = "/tmp/run/log".into(),
            |it| it.hidden = vec!["data".into()],
            |it| it.args = vec!["a\0b".to_owned()],
            |it| it.files = vec![PlacedFile { name: "../token".to_owned(), content: Secret::new("") }],
            |it| it.files = vec![PlacedFile { name: "a/".to_owned(), content: Secret::new("") }],
            |it| it.environment = BTreeMap::from([("A=B".to_owned(), String::new())]),
            |it| it.environment = BTreeMap::from([("HOME".to_owned(), "/".to_owned())]),
        ];
        for (idx, spoil) in wrong.iter().enumerate() {
            let mut spoilt = program();
            spoil(&mut spoilt);
            assert!(matches!(spoilt.check(), Err(Error::BadProgram(_))), "case {idx} was accepted");
        }
    }

    #[test]
    fn the_environment_is_a_short_list() {
        let mut program = program();
        program.environment.insert("FLWR_HOME".to_owned(), "/tmp/run/flwr".to_owned());
        let variables = program.variables();
        let names: Vec<&str> = variables.keys().map(String::as_str).collect();
        assert_eq!(names, ["FLWR_HOME", "HOME", "LANG", "PATH", "TMPDIR"]);
        assert_eq!(variables.get("TMPDIR").map(String::as_str), Some("/tmp/run"));
    }
}
