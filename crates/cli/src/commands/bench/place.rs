//! The directory of a bench: what it needs is said before it starts, and is refused where there is not enough.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sheaf_bench::limits::disk::free_bytes;
use sheaf_domain::ErrorKind;
use tempfile::TempDir;

use super::PlaceArgs;
use crate::exit::Failure;
use crate::output;

/// What is left free in any case, in bytes.
const SPARE: u64 = 256 << 20;

/// A directory of a bench's own.
pub(super) struct Place {
    dir: PathBuf,
    /// Removed with everything in it, unless the caller chose the directory.
    _temporary: Option<TempDir>,
}

impl Place {
    /// Takes the directory; says what disk is needed, and refuses when there is less.
    ///
    /// Talk goes to standard error.
    pub(super) fn take(args: &PlaceArgs, need_bytes: u64) -> anyhow::Result<Place> {
        let place = match &args.data_dir {
            Some(asked) => Place { dir: fresh(asked)?, _temporary: None },
            None => {
                let made = tempfile::Builder::new().prefix("sheaf-bench-").tempdir()?;
                Place { dir: made.path().to_owned(), _temporary: Some(made) }
            }
        };
        let free = free_bytes(&place.dir)?;
        let (need, have, dir) = (output::bytes(need_bytes), output::bytes(free), place.dir.display());
        eprintln!("needs {need} of disk in {dir}; {have} are free");
        if free < need_bytes.saturating_add(SPARE) {
            let message = format!(
                "{need} and {} to spare are needed in {dir}, {have} are free; name another disk with --data-dir",
                output::bytes(SPARE)
            );
            return Err(Failure::new(ErrorKind::Exhausted, message).into());
        }
        Ok(place)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory in it, made if it is not there.
    pub(super) fn make(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir)
    }
}

fn fresh(asked: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(asked).with_context(|| format!("cannot make {}", asked.display()))?;
    if std::fs::read_dir(asked)?.next().is_some() {
        let message = format!("{} is not empty; a bench needs a directory of its own", asked.display());
        return Err(Failure::new(ErrorKind::Conflict, message).into());
    }
    Ok(std::path::absolute(asked)?)
}
