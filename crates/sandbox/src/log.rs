//! The log a program writes: read as it grows, and kept from filling the disk.
//!
//! A position is an offset in all that was ever written, across restarts of ours: [`trim`] gives the oldest blocks back to the disk as a hole
//! and leaves the positions of what follows. Reading is bounded for each piece, and skips holes, whoever made them. While nobody
//! trims, the log grows to [`Limits::file`](crate::Limits::file) at most.
//!
//! Refuses to follow a link, or to read what is no file.
//!
//! Source: fallocate(2), `FALLOC_FL_PUNCH_HOLE`; lseek(2), `SEEK_DATA`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;
use sheaf_domain::ByteSize;
use sheaf_runtime::Compute;
use tokio::sync::Notify;

use crate::Error;

/// Bytes of one piece at most.
pub const LOG_READ_BYTES_MAX: usize = 64 * 1024;

/// Holes begin and end at multiples of this, so that no block is half a hole.
const BLOCK_BYTES: u64 = 64 * 1024;

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins. Not where the one before ended when something between was trimmed, or the program cut its log short.
    pub from: u64,
    /// Its bytes; a line may be cut.
    pub bytes: Vec<u8>,
}

impl Chunk {
    /// Where the next one begins, if nothing is trimmed until then.
    pub fn end(&self) -> u64 {
        self.from.saturating_add(self.bytes.len() as u64)
    }
}

/// What trimming came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trimmed {
    /// The log is within its bound.
    Whole,
    /// All before this position was given back.
    To(u64),
    /// The file system cannot do it: the program is to be ended when its log is too large.
    Unsupported,
}

/// A reader of a log that grows.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    compute: Compute,
}

impl Tail {
    /// Reads `path` from `offset` on; the reading itself is done by `compute`.
    pub fn from_offset(path: impl Into<PathBuf>, offset: u64, compute: &Compute) -> Tail {
        Tail { path: path.into(), offset, compute: compute.clone() }
    }

    /// Where the next piece begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece, at most [`LOG_READ_BYTES_MAX`] long; empty at the end.
    ///
    /// # Errors
    /// [`Error::Log`] when the log cannot be read.
    /// # Cancel safety
    /// Safe: a piece that was not returned is read again.
    pub async fn read(&mut self) -> Result<Chunk, Error> {
        let (path, offset) = (self.path.clone(), self.offset);
        let chunk = self.compute.run(move || read(&path, offset)).await.map_err(|_| Error::CutOff)??;
        self.offset = chunk.end();
        Ok(chunk)
    }

    /// The next piece that is not empty; looks whenever it is woken, and `every` so often.
    ///
    /// # Errors
    /// [`Error::Log`] when the log cannot be read.
    /// # Cancel safety
    /// Safe: a piece that was not returned is read again.
    pub async fn next(&mut self, woken: &Notify, every: Duration) -> Result<Chunk, Error> {
        loop {
            let mut wake = std::pin::pin!(woken.notified());
            // Before the look, so that what is told during it counts.
            wake.as_mut().enable();
            let chunk = self.read().await?;
            if !chunk.bytes.is_empty() {
                return Ok(chunk);
            }
            // It was not woken in time, so it looks by itself: no error.
            drop(tokio::time::timeout(every, wake).await);
        }
    }
}

/// Gives the oldest part of a log back to the disk when more than `kept` is there; about `kept` of the newest stays.
///
/// # Errors
/// [`Error::Log`] when the log cannot be opened or changed.
/// # Cancel safety
/// Safe: it is done or not.
pub async fn trim(path: &Path, kept: ByteSize, compute: &Compute) -> Result<Trimmed, Error> {
    let owned = path.to_path_buf();
    compute.run(move || punch(&owned, kept.as_bytes())).await.map_err(|_| Error::CutOff)?
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options.custom_flags(i32::from_ne_bytes(flags.bits().to_ne_bytes())).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn read(path: &Path, offset: u64) -> Result<Chunk, Error> {
    let failed = |source| Error::Log { action: "read", path: path.to_path_buf(), source };
    let file = open(path, OpenOptions::new().read(true)).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    // A log that was cut short by its program goes on at its new end.
    let from = next_byte(&file, offset.min(len)).map_err(failed)?.unwrap_or(len);
    let wanted = usize::try_from(len.saturating_sub(from)).unwrap_or(usize::MAX).min(LOG_READ_BYTES_MAX);
    let mut bytes = vec![0; wanted];
    let got = file.read_at(&mut bytes, from).map_err(failed)?;
    bytes.truncate(got);
    Ok(Chunk { from, bytes })
}

/// The first byte at or after `offset` that is not in a hole; none when only a hole follows, or nothing.
fn next_byte(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
        Err(errno) => Err(errno.into()),
    }
}

fn punch(path: &Path, kept: u64) -> Result<Trimmed, Error> {
    /// The unit of `st_blocks`, whatever the file system's own is.
    const SECTOR_BYTES: u64 = 512;
    let failed = |source| Error::Log { action: "trim", path: path.to_path_buf(), source };
    let file = open(path, OpenOptions::new().write(true)).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let to = metadata.len().saturating_sub(kept) / BLOCK_BYTES * BLOCK_BYTES;
    let there = metadata.blocks().saturating_mul(SECTOR_BYTES);
    if to == 0 || there <= kept.saturating_add(BLOCK_BYTES) {
        return Ok(Trimmed::Whole);
    }
    match rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, to) {
        Ok(()) => Ok(Trimmed::To(to)),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Trimmed::Unsupported),
        Err(errno) => Err(failed(errno.into())),
    }
}
