//! A directory with something to hide, a place for a program, and a launcher that goes through this binary.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use sheaf_sandbox::{CONFINE, Held, Launcher, Process, Program, Protection, Unwalled};
use tempfile::TempDir;

/// What nobody may read.
pub(crate) const KEY: &str = "the key of the federation";

pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    /// A directory `data` with a `key` in it, and a free name `run` beside it.
    pub(crate) fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        std::fs::write(directory.path().join("data/key"), KEY).unwrap();
        Place { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// A shell script in `run` that logs to `log`.
    pub(crate) fn shell(&self, script: &str) -> Program {
        let mut program = Program::new("/bin/sh", self.path("run"), self.path("log"));
        program.args = vec!["-ec".to_owned(), script.to_owned()];
        program.hidden = vec![self.path("data")];
        program
    }

    /// A Python script in `run`, whose arguments are the number of this process, `data`, and the log.
    pub(crate) fn python(&self, script: &str) -> Program {
        let mut program = self.shell("");
        program.executable = python();
        let (data, log) = (self.path("data"), self.path("log"));
        program.args = vec![
            "-c".to_owned(),
            script.to_owned(),
            std::process::id().to_string(),
            data.to_str().unwrap().to_owned(),
            log.to_str().unwrap().to_owned(),
        ];
        program
    }
}

/// What this machine's kernel offers, without an account.
pub(crate) fn landlock() -> Protection {
    Protection::probe(None).unwrap()
}

/// A launcher with these walls, or with none.
pub(crate) fn launcher(protection: Protection) -> Launcher {
    let args = ["--exact", "place::the_confiner_is_this_binary", "--nocapture", CONFINE].map(OsString::from);
    Launcher::new(protection, Unwalled::Allowed).unwrap().through("/proc/self/exe", args)
}

pub(crate) async fn hold(program: &Program) -> Held {
    launcher(landlock()).hold(program).await.unwrap()
}

pub(crate) async fn start(program: &Program) -> Process {
    hold(program).await.start().await.unwrap()
}

/// Lets a program go on that reads from the named pipe `gate` in its directory.
pub(crate) fn open_gate(place: &Place) {
    std::fs::write(place.path("run/gate"), "go\n").unwrap();
}

/// A Python behind all shims.
fn python() -> PathBuf {
    let named = std::env::var_os("SHEAF_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let said = Command::new(named).args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    Path::new(String::from_utf8(said.stdout).unwrap().trim()).to_owned()
}

/// As a test it does nothing; with the confiner's argument this binary is one.
#[test]
fn the_confiner_is_this_binary() {
    if std::env::args().any(|arg| arg == CONFINE) {
        let code = sheaf_sandbox::confine_main();
        std::process::exit(i32::from(code == std::process::ExitCode::FAILURE));
    }
}
