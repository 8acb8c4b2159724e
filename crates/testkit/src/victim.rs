//! A test that starts itself again as a process to be killed, and reads what that process acknowledged until then.
//!
//! The child says one line for each thing it was told is durable; a line reaches the pipe whole or not at all. What it said
//! before it was killed is what the parent may hold the files to.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Names the directory or file to the child; a test plays the child when it is set.
const PLACE: &str = "SHEAF_TEST_VICTIM";

/// What every line of the child begins with; the harness prints others.
const SAID: &str = "victim: ";

/// Where this process is to work until it is killed, if it is a child.
pub fn place() -> Option<OsString> {
    std::env::var_os(PLACE)
}

/// Says a line to the parent, past the harness's capture.
pub fn say(line: &str) {
    // The harness may have left a line of its own unfinished.
    std::io::stdout().lock().write_all(format!("\n{SAID}{line}\n").as_bytes()).unwrap();
}

/// Starts the test `name` of this binary as a child that works at `place`, kills it once it has said `lines` lines, and gives
/// all it said.
#[track_caller]
pub fn run_and_kill(name: &str, place: &Path, lines: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([OsStr::new("--exact"), OsStr::new(name), OsStr::new("--nocapture")])
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        said.extend(line.strip_prefix(SAID).map(str::to_owned));
        if said.len() == lines {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(said.len() >= lines && !status.success(), "the child ended by itself ({status}): {said:?}");
    said
}
