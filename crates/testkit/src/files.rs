//! Files in memory that fail on request and forget what was not flushed when the power goes.
//!
//! A write that was not flushed survives in any subset of its sectors, a flush that failed has lost any part of what
//! it was asked for, and changes of names survive up to an arbitrary one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use sheaf_blob::files::{Files, Lock, RawFile};
use sheaf_domain::rng::SeededRng;

const SECTOR: usize = 512;

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A write; also the creation of a file.
    Write,
    /// A flush of a file.
    Sync,
    /// A flush of a directory.
    SyncDir,
    /// A preallocation.
    Allocate,
    /// A change of name, known by the old one.
    Rename,
    /// A removal.
    Remove,
    /// A cut.
    Truncate,
}

/// A machine's files.
#[derive(Debug, Clone)]
pub struct FaultyFiles(Arc<Mutex<World>>);

#[derive(Debug)]
struct World {
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    inodes: Vec<Inode>,
    capacity: usize,
    faults: Vec<Fault>,
    calls: u64,
    flushes: u64,
    power_off_at: Option<u64>,
    rng: SeededRng,
}

#[derive(Debug, Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug)]
struct Fault {
    call: Call,
    name: &'static str,
    skip: u64,
    kind: io::ErrorKind,
}

impl FaultyFiles {
    /// An empty machine.
    pub fn new(seed: u64) -> FaultyFiles {
        FaultyFiles::over(BTreeMap::new(), Vec::new(), SeededRng::new(seed, "faulty files"))
    }

    fn over(names: BTreeMap<PathBuf, usize>, inodes: Vec<Inode>, rng: SeededRng) -> FaultyFiles {
        FaultyFiles(Arc::new(Mutex::new(World {
            durable_names: names.clone(),
            names,
            name_changes: Vec::new(),
            inodes,
            capacity: usize::MAX,
            faults: Vec::new(),
            calls: 0,
            flushes: 0,
            power_off_at: None,
            rng,
        })))
    }

    /// Makes one call of this sort on a file whose name begins with `name` fail, after `skip` more succeeded.
    pub fn fail(&self, call: Call, name: &'static str, skip: u64, kind: io::ErrorKind) {
        self.lock().faults.push(Fault { call, name, skip, kind });
    }

    /// Bounds the bytes of all files together.
    pub fn limit(&self, capacity: usize) {
        self.lock().capacity = capacity;
    }

    /// How many flushes of files there were.
    pub fn flushes(&self) -> u64 {
        self.lock().flushes
    }

    /// How many bytes all files have together.
    pub fn bytes(&self) -> usize {
        self.lock().bytes()
    }

    /// After this many more changing calls nothing reaches the files any more.
    pub fn power_off_after(&self, calls: u64) {
        let mut world = self.lock();
        world.power_off_at = Some(world.calls + calls);
    }

    /// Whether the power has gone: a call was refused because of it.
    pub fn is_off(&self) -> bool {
        let world = self.lock();
        world.power_off_at.is_some_and(|at| world.calls > at)
    }

    /// The machine after its power came back.
    pub fn after_power_loss(&self) -> FaultyFiles {
        let mut world = self.lock();
        let World { durable_names, name_changes, inodes, rng, .. } = &mut *world;
        let mut names = durable_names.clone();
        let survived = usize::try_from(rng.below(name_changes.len() as u64 + 1)).unwrap();
        name_changes.iter().take(survived).for_each(|change| change.apply(&mut names));
        let inodes = inodes.iter().map(|inode| inode.after_power_loss(rng)).collect();
        let seed = rng.next_u64();
        FaultyFiles::over(names, inodes, SeededRng::new(seed, "faulty files"))
    }

    /// The bytes of a file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.lock();
        world.names.get(path).map(|inode| world.inodes[*inode].current.clone())
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn file(&self, path: &Path, inode: usize) -> Box<dyn RawFile> {
        Box::new(FaultyFile { files: self.clone(), name: file_name(path), inode })
    }
}

impl World {
    fn bytes(&self) -> usize {
        self.names.values().map(|inode| self.inodes[*inode].current.len()).sum()
    }

    /// Counts a changing call; fails it when that was asked for.
    fn enter(&mut self, call: Call, name: &str) -> io::Result<()> {
        self.calls += 1;
        if self.power_off_at.is_some_and(|at| self.calls > at) {
            return Err(io::Error::other("the power is off"));
        }
        let matching = |fault: &Fault| fault.call == call && name.starts_with(fault.name);
        let Some(idx) = self.faults.iter().position(matching) else { return Ok(()) };
        match self.faults[idx].skip.checked_sub(1) {
            Some(skip) => self.faults[idx].skip = skip,
            None => return Err(self.faults.remove(idx).kind.into()),
        }
        Ok(())
    }

    fn grow(&mut self, inode: usize, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.inodes[inode].current.len());
        if self.bytes().saturating_add(more) > self.capacity && more > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(offset, written) => {
                let end = offset + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset..end].copy_from_slice(written);
            }
            Change::Len(len) => bytes.resize(*len, 0),
        }
    }

    /// Applies what the power left of it.
    fn apply_torn(&self, bytes: &mut Vec<u8>, rng: &mut SeededRng) {
        let Change::Write(offset, written) = self else {
            if rng.below(2) == 0 {
                self.apply(bytes);
            }
            return;
        };
        let mut at = 0;
        while at < written.len() {
            let end = written.len().min((offset + at) / SECTOR * SECTOR + SECTOR - offset);
            if rng.below(2) == 0 {
                Change::Write(offset + at, written[at..end].to_vec()).apply(bytes);
            }
            at = end;
        }
    }
}

impl Inode {
    fn after_power_loss(&self, rng: &mut SeededRng) -> Inode {
        let mut bytes = self.durable.clone();
        match rng.below(3) {
            0 => {}
            1 => self.changes.iter().for_each(|change| change.apply(&mut bytes)),
            _ => self.changes.iter().for_each(|change| change.apply_torn(&mut bytes, rng)),
        }
        Inode { durable: bytes.clone(), current: bytes, changes: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.changes.push(change);
    }
}

impl Files for FaultyFiles {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().map(|path| file_name(path)).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        let inode = self.lock().names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(path, inode))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn RawFile>> {
        let mut world = self.lock();
        world.enter(Call::Write, &file_name(path))?;
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.change_name(NameChange::Create(path.to_owned(), inode));
        drop(world);
        Ok(self.file(path, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter(Call::Rename, &file_name(from))?;
        world.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter(Call::Remove, &file_name(path))?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change_name(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter(Call::SyncDir, &file_name(dir))?;
        world.durable_names = world.names.clone();
        world.name_changes.clear();
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(NoLock)))
    }
}

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

#[derive(Debug)]
struct FaultyFile {
    files: FaultyFiles,
    name: String,
    inode: usize,
}

impl RawFile for FaultyFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let world = self.files.lock();
        let current = &world.inodes[self.inode].current;
        let offset = usize::try_from(offset).unwrap();
        let found = current.get(offset..offset + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.files.lock();
        let offset = usize::try_from(offset).unwrap();
        let allowed =
            world.enter(Call::Write, &self.name).and_then(|()| world.grow(self.inode, offset + bytes.len()));
        let torn = match &allowed {
            Ok(()) => bytes.len(),
            Err(_) if world.power_off_at.is_some_and(|at| world.calls > at) => 0,
            // A write that fails may have written nothing, something, or all.
            Err(_) => match world.rng.below(3) {
                0 => 0,
                1 => bytes.len(),
                _ => usize::try_from(world.rng.below(bytes.len() as u64 + 1)).unwrap(),
            },
        };
        if torn > 0 {
            world.inodes[self.inode].change(Change::Write(offset, bytes[..torn].to_vec()));
        }
        allowed
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.files.lock().inodes[self.inode].current.len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut world = self.files.lock();
        let len = usize::try_from(len).unwrap();
        world.enter(Call::Allocate, &self.name)?;
        world.grow(self.inode, len)?;
        world.inodes[self.inode].change(Change::Len(len));
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut world = self.files.lock();
        world.enter(Call::Truncate, &self.name)?;
        world.inodes[self.inode].change(Change::Len(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.files.lock();
        let allowed = world.enter(Call::Sync, &self.name);
        world.flushes += 1;
        let off = world.power_off_at.is_some_and(|at| world.calls > at);
        let World { inodes, rng, .. } = &mut *world;
        let inode = &mut inodes[self.inode];
        match &allowed {
            Ok(()) => {
                inode.durable.clone_from(&inode.current);
                inode.changes.clear();
            }
            // Some of it may be on the disk; the rest can still be read, and will never be written.
            Err(_) if !off => {
                inode.durable = inode.after_power_loss(rng).durable;
                inode.changes.clear();
            }
            Err(_) => {}
        }
        allowed
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
