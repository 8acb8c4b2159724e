//! How fast the disk below a directory takes and gives bytes: a new file of 4 MiB blocks past the page cache, and small synced appends.
//!
//! Where the file system has no direct input and output, the page cache is used and the figure says so.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, OFlags};
use serde::{Deserialize, Serialize};
use sheaf_runtime::{Clock, SystemClock};

use super::gb;
use crate::Error;

const BLOCK: usize = 4 << 20;
/// Direct input and output needs memory at a multiple of this.
const ALIGNMENT: usize = 4096;
/// How many small appends are synced, at most, and for how long.
const SYNCS_MAX: u32 = 2_000;
const SYNC_FOR: Duration = Duration::from_secs(2);

/// What the disk does, in wall time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Writing a new file in order and syncing it, GB per second.
    pub disk_write_gb_per_s: f64,
    /// Reading it in order, GB per second.
    pub disk_read_gb_per_s: f64,
    /// Whether both went past the page cache.
    pub disk_is_direct: bool,
    /// Appending 4 KiB and syncing it, milliseconds, the mean.
    pub fdatasync_ms: f64,
}

/// Measures the disk below `dir` with `bytes` (at least one block). Blocks; leaves nothing behind.
///
/// # Errors
/// [`Error::Io`] when files there cannot be written and read.
pub fn rates(dir: &Path, bytes: u64) -> Result<Rates, Error> {
    let probe = Probe(dir.join(".sheaf-bench-probe"));
    let clock = SystemClock::shared();
    let blocks = bytes.div_ceil(BLOCK as u64).max(1);
    let total = gb(blocks * BLOCK as u64);
    let (disk_is_direct, written) = write(&probe.0, blocks, &*clock)?;
    let read = read(&probe.0, blocks, disk_is_direct, &*clock)?;
    Ok(Rates {
        disk_write_gb_per_s: total / written.as_secs_f64(),
        disk_read_gb_per_s: total / read.as_secs_f64(),
        disk_is_direct,
        fdatasync_ms: 1e3 / synced_appends_per_s(dir)?,
    })
}

/// Appends of 4 KiB that are synced one by one, per second: what a journal without group commit could do. Blocks.
///
/// # Errors
/// [`Error::Io`].
pub fn synced_appends_per_s(dir: &Path) -> Result<f64, Error> {
    let probe = Probe(dir.join(".sheaf-bench-appends"));
    let file = OpenOptions::new().create_new(true).write(true).open(&probe.0);
    let file = file.map_err(Error::io("make a file to append to"))?;
    let clock = SystemClock::shared();
    let record = [7; 4096];
    let started = clock.monotonic();
    let mut done = 0;
    while done < SYNCS_MAX && clock.monotonic().saturating_sub(started) < SYNC_FOR {
        file.write_all_at(&record, u64::from(done) * 4096).map_err(Error::io("append"))?;
        file.sync_data().map_err(Error::io("sync an append"))?;
        done += 1;
    }
    Ok(f64::from(done) / clock.monotonic().saturating_sub(started).as_secs_f64())
}

/// Tells the kernel to drop what it keeps of a file, so that the next reader reads the disk.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened.
pub fn forget_cached(path: &Path) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::io("open a file"))?;
    file.sync_all().map_err(Error::io("sync a file"))?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).map_err(Error::errno("drop a file from memory"))
}

/// Bytes free for us on the disk of `dir`.
///
/// # Errors
/// [`Error::Io`] when there is no such directory.
pub fn free_bytes(dir: &Path) -> Result<u64, Error> {
    let stat = rustix::fs::statvfs(dir).map_err(Error::errno("tell how much of the disk is free"))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A file that goes when the measurement is over.
struct Probe(PathBuf);

impl Drop for Probe {
    fn drop(&mut self) {
        // It may not have come into being.
        std::fs::remove_file(&self.0).ok();
    }
}

fn write(path: &Path, blocks: u64, clock: &dyn Clock) -> Result<(bool, Duration), Error> {
    let options = || {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true);
        options
    };
    let direct = options().custom_flags(direct_flag()).open(path);
    let is_direct = direct.is_ok();
    let file = match direct {
        Ok(file) => file,
        Err(_) => options().open(path).map_err(Error::io("make a probe file"))?,
    };
    let block = Block::new();
    let started = clock.monotonic();
    for idx in 0..blocks {
        file.write_all_at(block.bytes(), idx * BLOCK as u64).map_err(Error::io("write a probe file"))?;
    }
    file.sync_data().map_err(Error::io("sync a probe file"))?;
    Ok((is_direct, clock.monotonic().saturating_sub(started)))
}

fn read(path: &Path, blocks: u64, is_direct: bool, clock: &dyn Clock) -> Result<Duration, Error> {
    let mut options = OpenOptions::new();
    options.read(true);
    if is_direct {
        options.custom_flags(direct_flag());
    } else {
        forget_cached(path)?;
    }
    let file = options.open(path).map_err(Error::io("open a probe file"))?;
    let mut block = Block::new();
    let started = clock.monotonic();
    for idx in 0..blocks {
        file.read_exact_at(block.bytes_mut(), idx * BLOCK as u64).map_err(Error::io("read a probe file"))?;
    }
    Ok(clock.monotonic().saturating_sub(started))
}

fn direct_flag() -> i32 {
    i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0)
}

/// One aligned block.
struct Block {
    bytes: Vec<u8>,
    start: usize,
}

impl Block {
    fn new() -> Block {
        let bytes = vec![7; BLOCK + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Block { bytes, start }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..self.start + BLOCK).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.start + BLOCK).unwrap_or_default()
    }
}
