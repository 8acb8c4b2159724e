//! Opening a directory: what the index says is checked against the spool files before anything is changed.
//!
//! Refuses spool files without an index (starting afresh would give up their objects), and objects that lie outside
//! their file or over one another. Files that were never finished are removed only after the index was read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::OpenOptions;
use super::committer::{Committer, DiskTable, records};
use super::header;
use super::index::{self, INDEX_NAME, INDEX_NEW_NAME, Index, Loaded};
use super::spool::Spool;
use crate::Error;
use crate::files::{Files, Lock};
use crate::table::Table;

const LOCK_NAME: &str = "lock";

/// An open directory.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) table: Arc<Mutex<DiskTable>>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) committer: Committer,
    pub(crate) lock: Box<dyn Lock>,
    /// Whether spool files go past the page cache.
    pub(crate) direct: bool,
}

pub(crate) fn open(files: Arc<dyn Files>, dir: &Path, options: &OpenOptions) -> Result<Opened, Error> {
    files.create_dir(dir).map_err(|source| Error::io("create", dir, source))?;
    let lock_path = dir.join(LOCK_NAME);
    let lock = files.lock(&lock_path).map_err(|source| Error::io("lock", &lock_path, source))?;
    let lock = lock.ok_or_else(|| Error::Locked { path: lock_path.clone() })?;
    // Spool files may be used through the page cache as well, so a question that cannot be answered is no obstacle.
    let direct = files.is_direct(&lock_path).unwrap_or(false) && options.direct_io;
    let names = files.list(dir).map_err(|source| Error::io("list", dir, source))?;
    let spool = Spool::new(Arc::clone(&files), dir.to_owned(), options);
    let unfinished = adopt_files(dir, &names, &spool)?;
    let (table, index) = if names.iter().any(|name| name == INDEX_NAME) {
        load_index(&files, dir, &spool)?
    } else if spool.spool_bytes() > 0 {
        let what = "it is missing, but there are spool files";
        return Err(Error::Corrupt { path: dir.join(INDEX_NAME), offset: 0, what });
    } else {
        (Table::default(), Index::create(Arc::clone(&files), dir, std::iter::empty())?)
    };
    let new = names.iter().any(|name| name == INDEX_NEW_NAME).then(|| dir.join(INDEX_NEW_NAME));
    for path in unfinished.into_iter().chain(new) {
        remove_if_there(&*files, &path)?;
    }
    spool.trim()?;
    let table = Arc::new(Mutex::new(table));
    let committer = Committer::new(Arc::clone(&table), index);
    Ok(Opened { table, spool, committer, lock, direct })
}

/// Takes over the spool files; returns those that were never finished.
fn adopt_files(dir: &Path, names: &[String], spool: &Spool) -> Result<Vec<PathBuf>, Error> {
    let mut unfinished = Vec::new();
    for name in names {
        let Some(id) = header::file_id(name) else { continue };
        let path = dir.join(name);
        let raw = spool.open_file(&path).map_err(|source| Error::io("open", &path, source))?;
        match header::read(&*raw, &path, id)? {
            Some(len) => spool.adopt(id, path, raw, len),
            None => unfinished.push(path),
        }
    }
    Ok(unfinished)
}

/// Reads the index, takes the room of its objects, and leaves the index without garbage where the disk allows it.
fn load_index(files: &Arc<dyn Files>, dir: &Path, spool: &Arc<Spool>) -> Result<(DiskTable, Index), Error> {
    let Loaded { table, tail, last_seq, records: read } = index::load(&**files, dir)?;
    let table = table
        .try_map(|place, len| spool.take_at(place.file, place.offset, len).map(Arc::new))
        .map_err(|what| Error::Corrupt { path: dir.join(INDEX_NAME), offset: 0, what })?;
    if read > table.pairs() {
        match Index::create(Arc::clone(files), dir, records(&table).into_iter()) {
            Err(error) if error.is_disk_full() => tracing::warn!(%error, "the index is not compacted"),
            index => return Ok((table, index?)),
        }
    }
    let index = Index::resume(Arc::clone(files), dir, tail, last_seq)?;
    Ok((table, index))
}

fn remove_if_there(files: &dyn Files, path: &Path) -> Result<(), Error> {
    match files.remove(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, source)),
        _ => {
            tracing::info!(?path, "what an earlier process left unfinished is removed");
            Ok(())
        }
    }
}
