//! The index: an append-only log of what the table went through, made durable before anyone is told.
//!
//! A frame that could not be written is cut off again before the next one; after a failed flush nobody knows what the
//! file holds, so it is given up and a new one is written from the table, which holds what was acknowledged and no
//! more. The byte layout is drawn in the module above.

mod frame;
mod load;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheaf_runtime::crash::{self, Point};

use crate::Error;
use crate::disk::header::FORMAT_VERSION;
use crate::files::{Files, RawFile};

pub(crate) use load::{Loaded, load};
pub(crate) use record::Record;

/// The name of the index in its directory.
pub(crate) const INDEX_NAME: &str = "index";
/// What it is called while it is written anew.
pub(crate) const INDEX_NEW_NAME: &str = "index.new";

const MAGIC: &[u8; 8] = b"SHEAFIDX";
const HEADER_LEN: u64 = 24;
/// When a frame of a new index is ended, in bytes of its body.
const REWRITE_FRAME_LEN: usize = 1024 * 1024;
/// The index is written anew when it is longer than twice what it would be, and this much, in bytes.
const GARBAGE_MIN: u64 = 1024 * 1024;

/// The open index.
#[derive(Debug)]
pub(crate) struct Index {
    files: Arc<dyn Files>,
    dir: PathBuf,
    log: Log,
    /// How long it may get before it is written anew.
    rewrite_at: u64,
    state: State,
}

/// An index file and where the next frame goes.
#[derive(Debug)]
struct Log {
    raw: Box<dyn RawFile>,
    tail: u64,
    next_seq: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sound,
    /// A flush failed: it must be written anew before anything is appended.
    GivenUp,
}

impl Index {
    /// Writes a new index holding `records` in the place of what was there.
    pub(crate) fn create(
        files: Arc<dyn Files>,
        dir: &Path,
        records: impl Iterator<Item = Record>,
    ) -> Result<Index, Error> {
        let log = prepare(&*files, dir, records)?;
        install(&*files, dir)?;
        Ok(Index::over(files, dir, log))
    }

    /// Continues the index in `dir` behind its last whole frame, which ends at `tail` and is numbered `last_seq`.
    pub(crate) fn resume(
        files: Arc<dyn Files>,
        dir: &Path,
        tail: u64,
        last_seq: u64,
    ) -> Result<Index, Error> {
        let path = dir.join(INDEX_NAME);
        let raw = files.open(&path).map_err(|source| Error::io("open", &path, source))?;
        raw.truncate(tail).map_err(|source| Error::io("cut", &path, source))?;
        raw.sync().map_err(|source| Error::io("flush", &path, source))?;
        Ok(Index::over(files, dir, Log { raw, tail, next_seq: last_seq + 1 }))
    }

    fn over(files: Arc<dyn Files>, dir: &Path, log: Log) -> Index {
        let rewrite_at = rewrite_at(log.tail);
        Index { files, dir: dir.to_owned(), log, rewrite_at, state: State::Sound }
    }

    /// Whether a flush failed, so that [`Index::rewrite`] must come before [`Index::append`].
    pub(crate) fn is_given_up(&self) -> bool {
        self.state == State::GivenUp
    }

    /// Whether most of the index is about what is gone.
    pub(crate) fn is_mostly_garbage(&self) -> bool {
        self.log.tail > self.rewrite_at
    }

    /// Writes the index anew from `records`. When it fails half-way the index is given up: which one a restart would
    /// find is not known.
    pub(crate) fn rewrite(&mut self, records: impl Iterator<Item = Record>) -> Result<(), Error> {
        // A rewrite that fails is not tried again at once.
        self.rewrite_at = rewrite_at(self.log.tail);
        let log = prepare(&*self.files, &self.dir, records)?;
        self.state = State::GivenUp;
        install(&*self.files, &self.dir)?;
        self.rewrite_at = rewrite_at(log.tail);
        self.log = log;
        self.state = State::Sound;
        Ok(())
    }

    /// Appends one frame and makes it durable. An error with the index not given up has changed nothing.
    pub(crate) fn append(&mut self, body: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(INDEX_NAME);
        if self.is_given_up() {
            return Err(Error::Poisoned { path });
        }
        let (raw, tail) = (&self.log.raw, self.log.tail);
        let bytes = frame::encode(self.log.next_seq, body);
        if let Err(source) = raw.write_at(&bytes, tail) {
            if let Err(error) = raw.truncate(tail).and_then(|()| raw.sync()) {
                tracing::error!(?path, %error, "a torn frame could not be cut off the index");
                self.state = State::GivenUp;
            }
            return Err(Error::io("append to", &path, source));
        }
        if let Err(source) = raw.sync() {
            self.state = State::GivenUp;
            return Err(Error::io("flush", &path, source));
        }
        self.log.tail += bytes.len() as u64;
        self.log.next_seq += 1;
        Ok(())
    }
}

fn rewrite_at(len: u64) -> u64 {
    GARBAGE_MIN.max(len.saturating_mul(2))
}

/// Writes an index beside the present one and makes it durable, or leaves nothing behind.
fn prepare(files: &dyn Files, dir: &Path, records: impl Iterator<Item = Record>) -> Result<Log, Error> {
    let new = dir.join(INDEX_NEW_NAME);
    write_new(files, &new, records).inspect_err(|_| {
        if let Err(error) = files.remove(&new)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = ?new, %error, "an unfinished index stays until it is written anew");
        }
    })
}

/// Puts the index that [`prepare`] wrote in its place.
fn install(files: &dyn Files, dir: &Path) -> Result<(), Error> {
    let (new, path) = (dir.join(INDEX_NEW_NAME), dir.join(INDEX_NAME));
    crash::reached(Point::IndexPrepared);
    files.rename(&new, &path).map_err(|source| Error::io("rename", &new, source))?;
    crash::reached(Point::IndexReplaced);
    files.sync_dir(dir).map_err(|source| Error::io("flush", dir, source))
}

fn write_new(files: &dyn Files, path: &Path, records: impl Iterator<Item = Record>) -> Result<Log, Error> {
    let failed = |action| move |source| Error::io(action, path, source);
    let raw = files.create(path).map_err(failed("create"))?;
    let mut log = Log { raw, tail: HEADER_LEN, next_seq: 1 };
    let mut body = Vec::new();
    for record in records {
        record.encode(&mut body);
        if body.len() >= REWRITE_FRAME_LEN {
            log.write_frame(&body).map_err(failed("write"))?;
            body.clear();
        }
    }
    if !body.is_empty() {
        log.write_frame(&body).map_err(failed("write"))?;
    }
    log.raw.write_at(&encode_header(log.tail), 0).map_err(failed("write"))?;
    log.raw.sync().map_err(failed("flush"))?;
    Ok(log)
}

impl Log {
    /// Writes a frame without making it durable.
    fn write_frame(&mut self, body: &[u8]) -> std::io::Result<()> {
        let bytes = frame::encode(self.next_seq, body);
        self.raw.write_at(&bytes, self.tail)?;
        self.tail += bytes.len() as u64;
        self.next_seq += 1;
        Ok(())
    }
}

/// The index's header; the first `sealed_len` bytes were durable before anything was appended.
fn encode_header(sealed_len: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&sealed_len.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests;
