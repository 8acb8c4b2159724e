//! What comes of a federation that nobody disturbs, and how any federation is held against it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::ROUNDS;
use super::federation::{Federation, SITES};
use super::ledger::{journals_of, submissions};
use crate::process::eventually;

/// The name of the run.
pub(super) const RUN: &str = "digits";
/// How many bytes more a disturbed data directory may have: rolled-back pages and a longer write-ahead log.
const SLACK_BYTES: u64 = 8 << 20;

/// How an undisturbed federation ends.
#[derive(Debug)]
pub(super) struct Calm {
    /// How long updates are kept.
    pub(super) keep: &'static str,
    /// The digest of the final model.
    pub(super) model: Value,
    /// How many results count.
    pub(super) submissions: usize,
    /// Stored objects and their bytes.
    pub(super) stored: (Value, Value),
    /// What lies in the data directory.
    files: Files,
}

/// What lies in a data directory.
#[derive(Debug)]
struct Files {
    names: BTreeSet<String>,
    count: usize,
    bytes: u64,
}

impl Calm {
    /// Drives a federation to its end.
    pub(super) fn of(program: &Path, keep: &'static str) -> Calm {
        let mut federation = Federation::new(program);
        assert!(federation.start_server(None), "an undisturbed server starts");
        for (idx, site) in SITES.iter().enumerate() {
            federation.ask(&format!("invite {site}")).unwrap();
            federation.start_site(idx, None);
        }
        eventually("all sites take part", || takes_part(&federation).then_some(()));
        write_plan(&federation, keep);
        federation.ask("run plan.toml").unwrap();
        let status = eventually("the run is over", || over(&federation));
        let files = Files::of(&federation.data());
        let report = federation.ask("backup calm").unwrap();
        federation.drain();
        let journals = journals_of(&federation.data());
        Calm {
            keep,
            model: status["model"].clone(),
            submissions: submissions(&journals, "undisturbed").len(),
            stored: (report["objects"].clone(), report["bytes"].clone()),
            files,
        }
    }

    /// A data directory with a server that has just started has no file that an undisturbed one does not have, and is no
    /// larger.
    pub(super) fn check_files(&self, data: &Path, context: &str) {
        let found = Files::of(data);
        let strange: Vec<&String> = found.names.difference(&self.files.names).collect();
        assert!(strange.is_empty(), "{context}: files are left: {strange:?}");
        assert!(found.count <= self.files.count, "{context}: {found:?}, undisturbed: {:?}", self.files);
        let bytes_max = self.files.bytes + SLACK_BYTES;
        assert!(found.bytes <= bytes_max, "{context}: {} bytes, at most {bytes_max} are right", found.bytes);
    }
}

/// The plan of the run, beside the data directory.
pub(super) fn write_plan(federation: &Federation, keep: &str) {
    let plan = format!(
        "[run]\nname = \"{RUN}\"\nrounds = {ROUNDS}\nseed = 1\nkeep_updates = \"{keep}\"\n\
         [model]\ninit = \"trainer\"\n[strategy]\nkind = \"fedavg\"\n\
         [cohort]\nmin = {sites}\nfraction = 1.0\nquorum = 1.0\n[task]\ntrainer = \"softmax\"\n\
         [task.train]\nepochs = 1\nbatch_size = 8\nlearning_rate = 0.1\n\
         [task.evaluate]\nevery = 2\nmetric = \"accuracy\"\nbetter = \"higher\"\n",
        sites = SITES.len()
    );
    std::fs::write(federation.path("plan.toml"), plan).unwrap();
}

/// Whether every site has said that it is in.
pub(super) fn takes_part(federation: &Federation) -> bool {
    SITES.iter().all(|site| {
        let log = std::fs::read_to_string(federation.path(&format!("{site}.log"))).unwrap_or_default();
        log.contains("takes part")
    })
}

/// The state of the run once it is over; it must have finished well.
pub(super) fn over(federation: &Federation) -> Option<Value> {
    let status = federation.ask(&format!("status {RUN}")).ok()?;
    match status["phase"].as_str() {
        Some("running") => None,
        Some("finished") => Some(status),
        _ => panic!("the run ended early: {status}\n{}", federation.logs()),
    }
}

impl Files {
    fn of(data: &Path) -> Files {
        let mut files = Files { names: BTreeSet::new(), count: 0, bytes: 0 };
        files.walk(data, "");
        files
    }

    fn walk(&mut self, dir: &Path, prefix: &str) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            // One that goes while it is looked at is gone.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                self.walk(&entry.path(), &format!("{name}/"));
                continue;
            }
            self.bytes += metadata.len();
            self.count += 1;
            // Spool files are numbered on.
            let name =
                name.split_once("/spool-").map_or_else(|| name.clone(), |(dir, _)| format!("{dir}/spool"));
            self.names.insert(name);
        }
    }
}
