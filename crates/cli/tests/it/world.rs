//! A directory of one test, and the program run in it: commands, a server, sites, plans, data.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sheaf_tensor::{Dtype, ParamSet, Shape, Tensor, TensorSpec, safetensors};
use tempfile::TempDir;

use crate::process::{Process, eventually};

/// Handwritten digits: 64 pixels from 0 to 16 and a label.
const DIGITS: &str = include_str!("../../../../data/digits/digits.csv");

/// A directory of one test.
pub(crate) struct World(TempDir);

impl World {
    pub(crate) fn new() -> World {
        World(tempfile::Builder::new().prefix("sheaf-it-").tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// A command in this directory, without the caller's settings.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path());
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("SHEAF_") || name.to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(&variable);
            }
        }
        command
    }

    /// The program with arguments, separated by white space.
    pub(crate) fn sheaf(&self, arguments: &str) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_sheaf"));
        command.args(arguments.split_whitespace());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &str) -> Output {
        self.sheaf(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs it, expects success and gives what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sheaf {arguments}: {}: {error}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it with `--json` and gives the one document it printed.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &str) -> Value {
        let printed = self.ok(&format!("{arguments} --json"));
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("sheaf {arguments}: {error}: {printed}"))
    }

    /// Runs it, expects the exit code and gives what it said about it.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, arguments: &str) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "sheaf {arguments}: {error}");
        error
    }

    /// Starts the program and lets it go on.
    pub(crate) fn start(&self, name: &str, arguments: &str) -> Process {
        Process::start(self.sheaf(arguments), &self.path(format!("{name}.log")))
    }

    /// Starts a server on `sheaf-data`, where the operator's commands look by themselves, and waits until it listens.
    #[track_caller]
    pub(crate) fn serve(&self, arguments: &str) -> Process {
        self.serve_with(self.sheaf(&format!("serve --listen 127.0.0.1:0 {arguments}")))
    }

    /// Starts a server again where it listened before, so that sites find it.
    #[track_caller]
    pub(crate) fn serve_again(&self, arguments: &str) -> Process {
        let address = self.read("sheaf-data/operator/address");
        self.serve_with(self.sheaf(&format!("serve --listen {} {arguments}", address.trim())))
    }

    #[track_caller]
    pub(crate) fn serve_with(&self, command: Command) -> Process {
        let address = self.path("sheaf-data/operator/address");
        std::fs::remove_file(&address).ok();
        let mut server = Process::start(command, &self.path("server.log"));
        server.says("listening");
        eventually("the server says where it listens", || address.exists().then_some(()));
        server
    }

    /// Invites a site and starts it with more arguments; returns once it takes part.
    #[track_caller]
    pub(crate) fn site(&self, name: &str, arguments: &str) -> Process {
        let mut site = self.enrol(name, arguments);
        site.says("takes part");
        site
    }

    /// Invites a site where it has no kit yet, and starts it.
    #[track_caller]
    pub(crate) fn enrol(&self, name: &str, arguments: &str) -> Process {
        if !self.path(format!("{name}.kit")).exists() {
            self.ok(&format!("invite {name}"));
        }
        self.start(name, &format!("join {name}.kit {arguments}"))
    }

    /// Three sites with a built-in trainer on digits, over both transports and both ways to prove who they are.
    #[track_caller]
    pub(crate) fn three_sites(&self, trainer: &str) -> [Process; 3] {
        let start = |idx: usize, more: &str| {
            let name = ["ada", "bo", "cy"][idx];
            self.digits(&format!("{name}.csv"), 3 * idx + 20, idx * 100);
            let data = format!("--data {name}.csv --classes 10 --scale 0.0625");
            self.site(name, &format!("{data} --trainer {trainer} {more}"))
        };
        [start(0, ""), start(1, "--transport https"), start(2, "--transport https --auth signed")]
    }

    /// Writes some digits as a CSV.
    pub(crate) fn digits(&self, name: &str, count: usize, skip: usize) {
        let rows: Vec<&str> = DIGITS.lines().skip(skip).take(count).collect();
        self.write(name, rows.join("\n") + "\n");
    }

    /// Waits until a run is over and gives its state.
    #[track_caller]
    pub(crate) fn over(&self, run: &str) -> Value {
        self.status_until(run, "it is over", |status| status["phase"] != "running")
    }

    /// Waits until a run has finished well and gives its state.
    #[track_caller]
    pub(crate) fn finished(&self, run: &str) -> Value {
        let status = self.over(run);
        assert_eq!(status["phase"], "finished", "{status}");
        status
    }

    /// Waits until the state of a run is as wanted.
    #[track_caller]
    pub(crate) fn status_until(&self, run: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{run}: {what}"), || {
            let output = self.run(&format!("status {run} --json"));
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            wanted(&status).then_some(status)
        })
    }

    /// The journal of a run, or the federation's.
    #[track_caller]
    pub(crate) fn journal(&self, run: &str) -> Vec<Value> {
        let printed = self.ok(&format!("logs {run} --json"));
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until a journal has an entry of this kind and gives its body.
    #[track_caller]
    pub(crate) fn entry(&self, run: &str, kind: &str) -> Value {
        eventually(&format!("{run} has an entry {kind}"), || {
            let entries = self.journal(run);
            entries.iter().find(|entry| entry["kind"] == kind).map(body)
        })
    }

    /// A model of one f32 tensor in a file.
    pub(crate) fn model(&self, name: &str, values: &[f32]) {
        let spec = TensorSpec {
            name: "w".to_owned(),
            dtype: Dtype::F32,
            shape: Shape::new(vec![values.len() as u64]).unwrap(),
        };
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let model = ParamSet::new(vec![Tensor::new(spec, bytes.into()).unwrap()]).unwrap();
        let mut file = std::fs::File::create(self.path(name)).unwrap();
        safetensors::write(&model, &Default::default(), &mut file).unwrap();
    }
}

/// The body of a journal entry.
pub(crate) fn body(entry: &Value) -> Value {
    serde_json::from_str(entry["body"].as_str().unwrap()).unwrap()
}

/// A plan that trains the digits; `more` replaces or adds sections at its end.
pub(crate) fn digits_plan(name: &str, rounds: u32, min: u32, trainer: &str, more: &str) -> String {
    format!(
        "[run]\nname = \"{name}\"\nrounds = {rounds}\nkeep_updates = \"run\"\n[model]\ninit = \"trainer\"\n\
         [strategy]\nkind = \"fedavg\"\n[cohort]\nmin = {min}\nquorum = 1.0\n[task]\ntrainer = \"{trainer}\"\n\
         [task.train]\nepochs = 1\nbatch_size = 8\nlearning_rate = 0.1\n{more}"
    )
}

/// A plan over a model from a file, without evaluation.
pub(crate) fn file_plan(name: &str, rounds: u32, min: u32, init: &str, more: &str) -> String {
    format!(
        "[run]\nname = \"{name}\"\nrounds = {rounds}\n[model]\ninit = \"{init}\"\n[strategy]\nkind = \"fedavg\"\n\
         [cohort]\nmin = {min}\nquorum = 1.0\n{more}"
    )
}
