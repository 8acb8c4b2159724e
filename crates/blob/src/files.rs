//! The few file operations the disk store is made of, so that tests can make each of them fail.
//!
//! [`LocalFiles`] passes them to the operating system. Whatever implements [`Files`] keeps the promises a POSIX
//! filesystem makes and no more: bytes are durable after [`RawFile::sync`], names after [`Files::sync_dir`], and a
//! flush that failed says nothing about what reached the disk.

use std::fmt::Debug;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::direct::{self, DirectFile};

/// A directory tree to keep files in.
pub trait Files: Debug + Send + Sync + 'static {
    /// Makes a directory and its parents, if they are not there.
    ///
    /// # Errors
    /// Those of the system.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file that is there, to read and write.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn RawFile>>;
    /// Makes an empty file; one that is there is emptied.
    ///
    /// # Errors
    /// Those of the system.
    fn create(&self, path: &Path) -> io::Result<Box<dyn RawFile>>;
    /// As [`Files::open`], for large reads and writes whose buffers, offsets and lengths are multiples of 4096: the file may
    /// go past the page cache then.
    ///
    /// # Errors
    /// Those of the system.
    fn open_bulk(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        self.open(path)
    }
    /// As [`Files::create`], for what [`Files::open_bulk`] is for.
    ///
    /// # Errors
    /// Those of the system.
    fn create_bulk(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        self.create(path)
    }
    /// Whether files opened for bulk beside `path`, a file that is there, go past the page cache.
    ///
    /// # Errors
    /// Those of the system.
    fn is_direct(&self, path: &Path) -> io::Result<bool> {
        let _ = path;
        Ok(false)
    }
    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// Those of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock file at `path` for this process until the value is dropped; `None` when another has it.
    ///
    /// # Errors
    /// Those of the system.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;
}

/// An open file.
pub trait RawFile: Debug + Send + Sync + 'static {
    /// Fills `bytes` from `offset`.
    ///
    /// # Errors
    /// Those of the system; also when the file ends earlier.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. When it fails, some of them may be written.
    ///
    /// # Errors
    /// Those of the system.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// The length in bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn byte_len(&self) -> io::Result<u64>;
    /// Makes the file `len` bytes long with room on the disk for all of them.
    ///
    /// # Errors
    /// Those of the system.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// Those of the system. What was written since the last success may be lost then, also if a later call succeeds.
    fn sync(&self) -> io::Result<()>;
}

/// A lock that ends when it is dropped.
pub trait Lock: Debug + Send + Sync + 'static {}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalFiles;

impl Files for LocalFiles {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Box::new(LocalFile(file)))
    }

    fn open_bulk(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Box::new(DirectFile::over(file, path)))
    }

    fn create_bulk(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(DirectFile::over(file, path)))
    }

    fn is_direct(&self, path: &Path) -> io::Result<bool> {
        direct::is_allowed(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(LocalFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(LocalLock { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct LocalLock {
    _file: File,
}

impl Lock for LocalLock {}

#[derive(Debug)]
struct LocalFile(File);

impl RawFile for LocalFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        allocate(&self.0, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Makes a file `len` bytes long with room on the disk for all of them.
pub(crate) fn allocate(file: &File, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len) {
        // A filesystem that cannot promise room: writes may find the disk full later.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(len),
        result => Ok(result?),
    }
}
