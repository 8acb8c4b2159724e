//! Spool files: preallocated files that objects lie in, and which stretches of them are free.
//!
//! An [`Extent`] is a stretch that belongs to whoever holds it; its room is free again when the last holder drops it,
//! so a stretch that is being read or written is never handed out. A file is never truncated: one that nothing points
//! into is simply all free. Files are removed only to make room for a longer one, or after a failed flush.
//!
//! Invariants: extents never overlap, never span files, begin and end on [`ALIGN`] (a torn sector hits one object
//! only); the files together are at most `max_bytes`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sheaf_runtime::crash::{self, Point};
use tokio::sync::Semaphore;

use super::OpenOptions;
use super::header::{self, ALIGN, HEADER_LEN};
use crate::Error;
use crate::files::{Files, RawFile};

/// All spool files of a store.
#[derive(Debug)]
pub(crate) struct Spool {
    files: Arc<dyn Files>,
    dir: PathBuf,
    segment_len: u64,
    max_bytes: u64,
    direct_io: bool,
    state: Mutex<State>,
    /// One file is added at a time, so that writers who need room share it.
    pub(crate) growth: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u32, Segment>,
    spool_bytes: u64,
    used_bytes: u64,
    last_id: u32,
}

#[derive(Debug)]
struct Segment {
    file: Arc<SpoolFile>,
    len: u64,
    /// Free stretches: where each begins and how long it is. Neighbours are joined.
    free: BTreeMap<u64, u64>,
    free_bytes: u64,
}

/// One spool file.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    pub(crate) id: u32,
    path: PathBuf,
    raw: Box<dyn RawFile>,
    poisoned: AtomicBool,
}

/// A stretch of a spool file that belongs to its holders; an empty one lies nowhere.
#[derive(Debug)]
pub(crate) struct Extent {
    place: Option<(Arc<Spool>, Arc<SpoolFile>)>,
    offset: u64,
    room: u64,
}

impl Spool {
    pub(crate) fn new(files: Arc<dyn Files>, dir: PathBuf, options: &OpenOptions) -> Arc<Spool> {
        let segment_len = aligned(options.segment_len.as_bytes().max(1)).unwrap_or(u64::MAX / 2);
        let max_bytes = options.max_bytes.as_bytes();
        let (direct_io, growth) = (options.direct_io, Arc::new(Semaphore::new(1)));
        Arc::new(Spool { files, dir, segment_len, max_bytes, direct_io, state: Mutex::default(), growth })
    }

    /// Opens a spool file that an earlier process left behind.
    pub(crate) fn open_file(&self, path: &Path) -> std::io::Result<Box<dyn RawFile>> {
        if self.direct_io { self.files.open_bulk(path) } else { self.files.open(path) }
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub(crate) fn spool_bytes(&self) -> u64 {
        self.lock().spool_bytes
    }

    /// Takes room for `len` bytes from the files there are; `None` when none has a stretch as long.
    pub(crate) fn take(self: &Arc<Spool>, len: u64) -> Option<Extent> {
        if len == 0 {
            return Some(Extent { place: None, offset: 0, room: 0 });
        }
        let room = aligned(len)?;
        let mut state = self.lock();
        let usable = state.segments.values_mut().filter(|s| s.free_bytes >= room && !s.file.is_poisoned());
        let (file, offset) = usable.into_iter().find_map(|segment| {
            let offset = segment.free.iter().find(|(_, free)| **free >= room).map(|(offset, _)| *offset)?;
            segment.carve(offset, room).then(|| (Arc::clone(&segment.file), offset))
        })?;
        state.used_bytes += room;
        Some(Extent { place: Some((Arc::clone(self), file)), offset, room })
    }

    /// Takes the stretch that the index says an object lies in.
    pub(crate) fn take_at(self: &Arc<Spool>, id: u32, offset: u64, len: u64) -> Result<Extent, &'static str> {
        if len == 0 {
            return Ok(Extent { place: None, offset: 0, room: 0 });
        }
        let room = aligned(len).ok_or("an object is longer than any file")?;
        let mut state = self.lock();
        let segment =
            state.segments.get_mut(&id).ok_or("an object lies in a spool file that is missing or broken")?;
        if !segment.carve(offset, room) {
            return Err("an object lies outside its spool file or over another object");
        }
        let file = Arc::clone(&segment.file);
        state.used_bytes += room;
        Ok(Extent { place: Some((Arc::clone(self), file)), offset, room })
    }

    /// Takes room for `len` bytes, adding a file if need be. Blocks on the disk; the caller holds [`Spool::growth`].
    pub(crate) fn take_or_grow(self: &Arc<Spool>, len: u64) -> Result<Extent, Error> {
        loop {
            if let Some(extent) = self.take(len) {
                return Ok(extent);
            }
            self.grow(len)?;
        }
    }

    /// Adds what an earlier process left behind: a spool file, all free.
    pub(crate) fn adopt(&self, id: u32, path: PathBuf, raw: Box<dyn RawFile>, len: u64) {
        let mut state = self.lock();
        state.spool_bytes += len;
        state.last_id = state.last_id.max(id);
        state
            .segments
            .insert(id, Segment::new(SpoolFile { id, path, raw, poisoned: AtomicBool::new(false) }, len));
    }

    /// Removes empty files until the others fit `max_bytes`; for a limit lowered since the last time.
    pub(crate) fn trim(&self) -> Result<(), Error> {
        while self.spool_bytes() > self.max_bytes && self.remove_empty(|_| true)? {}
        Ok(())
    }

    /// Adds a file with room for at least `len` bytes, making way for it by removing empty ones.
    fn grow(&self, len: u64) -> Result<(), Error> {
        while self.remove_empty(|file| file.is_poisoned())? {}
        let mut exact = false;
        loop {
            let Some((id, file_len)) = self.plan(len, exact) else {
                if self.remove_empty(|_| true)? {
                    continue;
                }
                let state = self.lock();
                return Err(Error::Full { requested: len, used: state.used_bytes, max: self.max_bytes });
            };
            match self.create(id, file_len) {
                Err(error) if error.is_disk_full() && (!exact || self.remove_empty(|_| true)?) => {
                    exact = true
                }
                result => return result,
            }
        }
    }

    /// Reserves an id and a length for a new file within the limit: a whole segment, or as little as `len` needs.
    fn plan(&self, len: u64, exact: bool) -> Option<(u32, u64)> {
        let mut state = self.lock();
        let least = aligned(len)?.checked_add(HEADER_LEN)?;
        let usual = self.segment_len.saturating_add(HEADER_LEN);
        let left = self.max_bytes.saturating_sub(state.spool_bytes) / ALIGN * ALIGN;
        let file_len = if exact { least } else { least.max(usual.min(left)) };
        if file_len > left {
            return None;
        }
        state.last_id = state.last_id.checked_add(1)?;
        state.spool_bytes += file_len;
        Some((state.last_id, file_len))
    }

    fn create(&self, id: u32, len: u64) -> Result<(), Error> {
        let path = self.dir.join(header::file_name(id));
        let made = self.create_file(id, &path, len);
        let mut state = self.lock();
        match made {
            Ok(raw) => {
                let file = SpoolFile { id, path, raw, poisoned: AtomicBool::new(false) };
                state.segments.insert(id, Segment::new(file, len));
                Ok(())
            }
            Err(error) => {
                state.spool_bytes -= len;
                Err(error)
            }
        }
    }

    /// Makes a file and its name durable, or leaves nothing behind.
    fn create_file(&self, id: u32, path: &Path, len: u64) -> Result<Box<dyn RawFile>, Error> {
        let failed = |action| move |source| Error::io(action, path, source);
        let fill = || {
            let made = if self.direct_io { self.files.create_bulk(path) } else { self.files.create(path) };
            let raw = made.map_err(failed("create"))?;
            raw.allocate(len).map_err(failed("preallocate"))?;
            crash::reached(Point::SpoolFileMade);
            raw.write_at(&header::encode(id, len), 0).map_err(failed("write"))?;
            raw.sync().map_err(failed("flush"))?;
            self.files.sync_dir(&self.dir).map_err(failed("flush the directory of"))?;
            Ok(raw)
        };
        fill().inspect_err(|_| {
            if let Err(error) = self.files.remove(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(?path, %error, "an unfinished spool file stays until the store is opened again");
            }
        })
    }

    /// Removes one file that nothing points into; `false` when there is none.
    fn remove_empty(&self, which: impl Fn(&SpoolFile) -> bool) -> Result<bool, Error> {
        let mut state = self.lock();
        let empty = state.segments.iter().find(|(_, segment)| segment.is_empty() && which(&segment.file));
        let Some((id, segment)) = empty.map(|(id, _)| *id).and_then(|id| state.segments.remove_entry(&id))
        else {
            return Ok(false);
        };
        drop(state);
        // Out of the table nobody can take room in it; its bytes count until it is gone.
        let removed = self.files.remove(&segment.file.path);
        let mut state = self.lock();
        if let Err(source) = removed {
            let error = Error::io("remove", &segment.file.path, source);
            state.segments.insert(id, segment);
            return Err(error);
        }
        state.spool_bytes -= segment.len;
        Ok(true)
    }

    fn give_back(&self, id: u32, offset: u64, room: u64) {
        let mut state = self.lock();
        state.used_bytes -= room;
        if let Some(segment) = state.segments.get_mut(&id) {
            segment.join(offset, room);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segment {
    fn new(file: SpoolFile, len: u64) -> Segment {
        let room = len.saturating_sub(HEADER_LEN);
        let free = if room == 0 { BTreeMap::new() } else { BTreeMap::from([(HEADER_LEN, room)]) };
        Segment { file: Arc::new(file), len, free, free_bytes: room }
    }

    fn is_empty(&self) -> bool {
        self.free_bytes == self.len.saturating_sub(HEADER_LEN)
    }

    /// Takes a stretch out of the free ones; `false` when not all of it is free.
    fn carve(&mut self, offset: u64, room: u64) -> bool {
        let Some((&start, &free)) = self.free.range(..=offset).next_back() else { return false };
        let before = offset - start;
        let Some(after) = free.checked_sub(before).and_then(|rest| rest.checked_sub(room)) else {
            return false;
        };
        if !offset.is_multiple_of(ALIGN) {
            return false;
        }
        self.free.remove(&start);
        if before > 0 {
            self.free.insert(start, before);
        }
        if after > 0 {
            self.free.insert(offset + room, after);
        }
        self.free_bytes -= room;
        true
    }

    /// Makes a stretch free, joined with its free neighbours.
    fn join(&mut self, offset: u64, room: u64) {
        self.free_bytes += room;
        let (mut start, mut len) = (offset, room);
        if let Some((&before, &before_len)) = self.free.range(..offset).next_back()
            && before + before_len == offset
        {
            self.free.remove(&before);
            (start, len) = (before, before_len + len);
        }
        if let Some(after_len) = self.free.remove(&(offset + room)) {
            len += after_len;
        }
        self.free.insert(start, len);
    }
}

impl SpoolFile {
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    /// Makes what was written durable. After one failure every later call fails: nobody knows what was lost.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        if self.is_poisoned() {
            return Err(Error::Poisoned { path: self.path.clone() });
        }
        self.raw.sync().map_err(|source| {
            self.poisoned.store(true, Ordering::SeqCst);
            tracing::error!(path = ?self.path, error = %source, "a flush failed; the file takes no more objects");
            Error::io("flush", &self.path, source)
        })
    }
}

impl Extent {
    /// Writes `bytes` at `at` bytes from the start; the caller stays inside the room it took.
    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        let Some((_, file)) = &self.place else { return Ok(()) };
        debug_assert!(at + bytes.len() as u64 <= self.room, "a write stays inside its extent");
        file.raw.write_at(bytes, self.offset + at).map_err(|source| Error::io("write", &file.path, source))
    }

    /// Fills `bytes` from `at` bytes after the start; the caller stays inside the room.
    pub(crate) fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), Error> {
        let Some((_, file)) = &self.place else { return Ok(()) };
        debug_assert!(at + bytes.len() as u64 <= self.room, "a read stays inside its extent");
        file.raw.read_at(bytes, self.offset + at).map_err(|source| Error::io("read", &file.path, source))
    }

    /// The file it lies in; an empty one lies in none.
    pub(crate) fn file(&self) -> Option<&Arc<SpoolFile>> {
        self.place.as_ref().map(|(_, file)| file)
    }

    /// The file's id and the offset in it, as the index keeps them.
    pub(crate) fn position(&self) -> (u32, u64) {
        (self.file().map_or(0, |file| file.id), self.offset)
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        if let Some((spool, file)) = &self.place {
            spool.give_back(file.id, self.offset, self.room);
        }
    }
}

fn aligned(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sheaf_domain::ByteSize;

    use super::*;
    use crate::files::LocalFiles;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn extents_never_overlap_and_all_room_comes_back(
            steps in prop::collection::vec((any::<bool>(), 1_u64..40_000, any::<prop::sample::Index>()), 1..80),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let options = OpenOptions {
                max_bytes: ByteSize::from_bytes(512 * 1024),
                segment_len: ByteSize::from_bytes(64 * 1024),
                ..OpenOptions::default()
            };
            let spool = Spool::new(Arc::new(LocalFiles), dir.path().to_owned(), &options);
            let mut live: Vec<Extent> = Vec::new();
            for (take, len, which) in steps {
                if take {
                    live.extend(spool.take_or_grow(len).ok());
                } else if !live.is_empty() {
                    live.swap_remove(which.index(live.len()));
                }
                let mut places: Vec<(u32, u64, u64)> = live
                    .iter()
                    .map(|extent| (extent.position().0, extent.offset, extent.offset + extent.room))
                    .collect();
                places.sort_unstable();
                for pair in places.windows(2) {
                    prop_assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "{:?}", pair);
                }
                let on_disk: u64 =
                    std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
                prop_assert_eq!(spool.spool_bytes(), on_disk);
                prop_assert!(on_disk <= 512 * 1024);
            }
            live.clear();
            let state = spool.lock();
            prop_assert_eq!(state.used_bytes, 0);
            prop_assert!(state.segments.values().all(|segment| segment.is_empty() && segment.free.len() == 1));
        }
    }
}
