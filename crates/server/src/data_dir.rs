//! The data directory: one server at a time, one format, known places.
//!
//! ```text
//! LOCK            held by the running server
//! FORMAT          "sheaf data 1"
//! state.sqlite    journals, sites, mail
//! blobs/          bytes of models and updates
//! pki/            the CA and the key that signs journals; private
//! operator/       a credential for this machine's operator; private
//! ```

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use sheaf_coordinator::{BLOBS_DIR, STATE_FILE};
use sheaf_pki::CA_KEY_FILE;

use crate::Error;
use crate::tls::JOURNAL_KEY_FILE;

/// The format this binary reads and writes.
pub const DATA_FORMAT: &str = "sheaf data 1";
/// The directory of the CA and the journal key.
pub const PKI_DIR: &str = "pki";
/// The directory of the local operator's credential.
pub const OPERATOR_DIR: &str = "operator";
const LOCK_FILE: &str = "LOCK";
const FORMAT_FILE: &str = "FORMAT";

/// A data directory held by this process; let go when dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    is_new: bool,
    _lock: File,
}

impl DataDir {
    /// Opens a data directory, making it if there is none, and locks out other servers.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Format`], [`Error::Missing`], [`Error::File`].
    pub fn open(path: &Path) -> Result<DataDir, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        make_private(path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Locked { path: path.to_owned() }),
            Err(errno) => return Err(failed(errno.into())),
        }
        let is_new = check_format(path)?;
        check_whole(path)?;
        Ok(DataDir { path: path.to_owned(), is_new, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no server used it before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// A place in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes the directory where there is none, for this user alone: it holds raw updates and keys.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Refuses a directory that was in use and has lost a part: made anew, that part would orphan models, sites or signatures.
fn check_whole(path: &Path) -> Result<(), Error> {
    // The bytes' directory is the last thing a first start makes.
    if !path.join(BLOBS_DIR).exists() {
        return Ok(());
    }
    let pki = path.join(PKI_DIR);
    let parts = [path.join(STATE_FILE), pki.join(CA_KEY_FILE), pki.join(JOURNAL_KEY_FILE)];
    match parts.into_iter().find(|part| !part.exists()) {
        Some(missing) => Err(Error::Missing { path: path.to_owned(), missing }),
        None => Ok(()),
    }
}

/// Checks the format, or writes it down; returns whether it was not there.
fn check_format(path: &Path) -> Result<bool, Error> {
    let file = path.join(FORMAT_FILE);
    let failed = |source| Error::File { path: file.clone(), source };
    match std::fs::read_to_string(&file) {
        Ok(found) if found.trim_end() == DATA_FORMAT => Ok(false),
        Ok(found) => Err(Error::Format {
            path: path.to_owned(),
            found: found.trim_end().chars().take(64).collect(),
            supported: DATA_FORMAT.to_owned(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_format(path, &file).map_err(failed)?;
            Ok(true)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes the format down, whole or not at all: an empty file would be another format.
fn write_format(dir: &Path, file: &Path) -> std::io::Result<()> {
    let new = dir.join("FORMAT.new");
    let mut written = File::create(&new)?;
    writeln!(written, "{DATA_FORMAT}")?;
    written.sync_all()?;
    std::fs::rename(&new, file)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_locked_out_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(Error::Locked { .. })));
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_that_lost_a_part_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        std::fs::create_dir_all(dir.path().join(PKI_DIR)).unwrap();
        std::fs::create_dir(dir.path().join(BLOBS_DIR)).unwrap();
        for part in [STATE_FILE, "pki/ca.key.pem", "pki/journal.key"] {
            let error = DataDir::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("restore"), "{error}");
            std::fs::write(dir.path().join(part), "").unwrap();
        }
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn what_a_crash_left_of_a_first_start_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("FORMAT.new"), "sheaf d").unwrap();
        assert!(DataDir::open(dir.path()).unwrap().is_new());
        assert!(!DataDir::open(dir.path()).unwrap().is_new());
        assert!(!dir.path().join("FORMAT.new").exists());
    }

    #[test]
    fn another_format_is_refused_by_both_names() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FORMAT_FILE), "sheaf data 99\n").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("sheaf data 99") && error.contains(DATA_FORMAT), "{error}");
    }
}
