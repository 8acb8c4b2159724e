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

use crate::Error;

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
    /// [`Error::Locked`], [`Error::Format`], [`Error::File`].
    pub fn open(path: &Path) -> Result<DataDir, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
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
            let mut new = File::create(&file).map_err(failed)?;
            writeln!(new, "{DATA_FORMAT}").map_err(failed)?;
            new.sync_all().map_err(failed)?;
            Ok(true)
        }
        Err(error) => Err(failed(error)),
    }
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
    fn another_format_is_refused_by_both_names() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FORMAT_FILE), "sheaf data 99\n").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("sheaf data 99") && error.contains(DATA_FORMAT), "{error}");
    }
}
