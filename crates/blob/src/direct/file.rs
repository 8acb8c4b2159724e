//! A file opened twice: through the page cache, and past it where the filesystem allows that.
//!
//! A call whose address, offset and length are aligned goes past the cache, any other one through it; the kernel keeps both
//! views of a file the same as long as two calls on one stretch do not overlap in time, which extents see to. Direct writes
//! are no more durable than others: [`RawFile::sync`] makes them so.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use super::ALIGN;
use crate::files::{RawFile, allocate};

/// A file for large aligned reads and writes.
#[derive(Debug)]
pub(crate) struct DirectFile {
    cached: File,
    direct: Option<File>,
    /// Set once the filesystem took the flag but refused a call.
    refused: AtomicBool,
}

/// Whether the filesystem of `path`, a file that is there, lets it be opened past the page cache.
pub(crate) fn is_allowed(path: &Path) -> io::Result<bool> {
    match open_direct(path) {
        Ok(_) => Ok(true),
        Err(error) if is_refusal(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

impl DirectFile {
    /// Takes `cached`, which is open on `path`, and opens it a second time past the cache.
    pub(crate) fn over(cached: File, path: &Path) -> DirectFile {
        let direct = open_direct(path)
            .inspect_err(|error| tracing::debug!(?path, %error, "a file is used through the page cache"))
            .ok();
        DirectFile { cached, direct, refused: AtomicBool::new(false) }
    }

    /// The descriptor for a call on these bytes.
    fn direct(&self, bytes: &[u8], offset: u64) -> Option<&File> {
        let aligned = bytes.as_ptr().addr().is_multiple_of(ALIGN)
            && bytes.len().is_multiple_of(ALIGN)
            && offset.is_multiple_of(ALIGN as u64);
        self.direct.as_ref().filter(|_| aligned && !self.refused.load(Ordering::Relaxed))
    }

    /// From now on everything goes through the cache.
    fn refuse(&self, error: &io::Error) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the filesystem refuses direct I/O on a file; it is used through the page cache");
        }
    }
}

impl RawFile for DirectFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = self.direct(bytes, offset) {
            match direct.read_exact_at(bytes, offset) {
                Err(error) if is_refusal(&error) => self.refuse(&error),
                done => return done,
            }
        }
        self.cached.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = self.direct(bytes, offset) {
            match direct.write_all_at(bytes, offset) {
                Err(error) if is_refusal(&error) => self.refuse(&error),
                done => return done,
            }
        }
        self.cached.write_all_at(bytes, offset)
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.cached.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        allocate(&self.cached, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.cached.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.cached.sync_data()
    }
}

fn open_direct(path: &Path) -> io::Result<File> {
    // Not created: the file is there.
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
    File::options().read(true).write(true).custom_flags(flags).open(path)
}

/// A filesystem without direct I/O, or with a coarser alignment, says that the argument is invalid.
fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput || error.kind() == io::ErrorKind::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::AlignedBuffer;

    fn file(dir: &Path, direct: bool) -> DirectFile {
        let path = dir.join(if direct { "direct" } else { "cached" });
        let cached = File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        match direct {
            true => DirectFile::over(cached, &path),
            false => DirectFile { cached, direct: None, refused: AtomicBool::new(false) },
        }
    }

    fn pattern(len: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::zeroed(len);
        buffer.iter_mut().zip((0..=250).cycle()).for_each(|(byte, value)| *byte = value);
        buffer
    }

    #[test]
    fn aligned_and_other_calls_see_the_same_bytes_with_and_without_direct_io() {
        let dir = tempfile::tempdir().unwrap();
        for direct in [true, false] {
            let file = file(dir.path(), direct);
            file.allocate(64 * 1024).unwrap();
            let written = pattern(3 * ALIGN);
            file.write_at(&written, 2 * ALIGN as u64).unwrap();
            let mut all = AlignedBuffer::zeroed(3 * ALIGN);
            file.read_at(&mut all, 2 * ALIGN as u64).unwrap();
            assert_eq!(all[..], written[..], "direct: {direct}");
            let mut part = vec![0; 1_001];
            file.read_at(&mut part, 2 * ALIGN as u64 + 3).unwrap();
            assert_eq!(part[..], written[3..1_004], "direct: {direct}");
            file.write_at(b"through the cache", 2 * ALIGN as u64 + 5).unwrap();
            file.read_at(&mut all, 2 * ALIGN as u64).unwrap();
            assert_eq!(&all[5..22], b"through the cache", "direct: {direct}");
            assert_eq!(all[22..], written[22..], "direct: {direct}");
            file.sync().unwrap();
        }
    }

    #[test]
    fn a_file_whose_direct_calls_are_refused_goes_on_through_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = file(dir.path(), false);
        // A pipe's end refuses a write at an offset the way no file does; a descriptor for reading refuses it by its own name.
        let (reader, _writer) = std::io::pipe().unwrap();
        file.direct = Some(File::from(std::os::fd::OwnedFd::from(reader)));
        file.write_at(&pattern(ALIGN), 0).unwrap_err();
        file.refuse(&io::ErrorKind::InvalidInput.into());
        file.write_at(&pattern(ALIGN), 0).unwrap();
        let mut read = AlignedBuffer::zeroed(ALIGN);
        file.read_at(&mut read, 0).unwrap();
        assert_eq!(read[..], pattern(ALIGN)[..]);
    }

    #[test]
    fn what_a_filesystem_says_without_direct_io_is_a_refusal() {
        assert!(is_refusal(&io::Error::from_raw_os_error(22)));
        assert!(!is_refusal(&io::ErrorKind::StorageFull.into()));
        let dir = tempfile::tempdir().unwrap();
        assert!(is_allowed(&dir.path().join("missing")).is_err());
    }
}
