//! The `.npz` container: a zip archive of `.npy` entries, one a tensor; the entry's name without `.npy` is the tensor's.
//!
//! Reads stored and deflated entries; a stored one is a slice of the file, not a copy. Refuses entries that are not
//! `.npy`, encrypted, overlapping, of one name, or whose checksum differs, and archives beyond [`Limits`]. What is written
//! depends on the tensors alone: stored entries in the set's order, with a fixed time.

use std::collections::HashSet;
use std::io::{self, Cursor, Read, Seek, Write as _};

use bytes::Bytes;
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use crate::{Error, ParamSet, Tensor, TensorSpec, npy};

/// How much an archive may unfold to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most entries. At most [`ENTRIES_MAX`] counts.
    pub entries_max: usize,
    /// The most bytes all entries together may have when decompressed.
    pub total_bytes_max: u64,
    /// The most bytes all entries together may have when decompressed, for each byte of the file. Up to
    /// [`RATIO_EXEMPT_BYTES`] any ratio will do: small arrays of zeros are harmless.
    pub ratio_max: u64,
}

/// The most entries of an archive, read or written: more need a zip64 directory.
pub const ENTRIES_MAX: usize = 65_534;
/// Archives that unfold to no more than this many bytes are not held to [`Limits::ratio_max`].
pub const RATIO_EXEMPT_BYTES: u64 = 64 * 1024 * 1024;

impl Default for Limits {
    /// All entries a directory can list, 16 GiB, and 200 bytes for each one of the file.
    fn default() -> Limits {
        Limits { entries_max: ENTRIES_MAX, total_bytes_max: 16 * 1024 * 1024 * 1024, ratio_max: 200 }
    }
}

/// Reads an archive; the tensors have the order of its directory.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Unsupported`] for encrypted entries, other ways of compression and what
/// [`npy::read`] refuses, [`Error::TooLarge`] beyond `limits`; the errors of [`Tensor::new`] and [`ParamSet::new`].
/// # Examples
/// ```
/// use bytes::Bytes;
/// use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec, npz};
///
/// let weight = Tensor::from_f64(TensorSpec::new("weight", Dtype::F32, [2])?, &[1.0, -0.5])?;
/// let params = ParamSet::new(vec![weight])?;
/// let mut file = std::io::Cursor::new(Vec::new());
/// npz::write(&params, &mut file)?;
/// assert_eq!(npz::read(Bytes::from(file.into_inner()), npz::Limits::default())?, params);
/// # Ok::<(), sheaf_tensor::Error>(())
/// ```
pub fn read(file: Bytes, limits: Limits) -> Result<ParamSet, Error> {
    let entries_max = limits.entries_max.min(ENTRIES_MAX);
    check_entries(declared_entries(&file)?, entries_max)?;
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, Cursor::new(file.clone())).map_err(|e| broken(&e))?;
    check_entries(archive.len(), entries_max)?;
    if archive.has_duplicate_names() {
        return Err(malformed("an entry appears twice"));
    }
    if archive.has_overlapping_entries().map_err(|e| broken(&e))? {
        return Err(malformed("its entries overlap"));
    }

    let ratio_bound = limits.ratio_max.saturating_mul(file.len() as u64).max(RATIO_EXEMPT_BYTES);
    let mut budget = limits.total_bytes_max.min(ratio_bound);
    let too_large =
        Error::TooLarge { what: "the decompressed size of the npz file".to_owned(), limit: budget };
    let mut tensors = Vec::with_capacity(archive.len());
    for position in 0..archive.len() {
        let (name, size) = entry_head(&archive, position)?;
        budget = budget.checked_sub(size).ok_or_else(|| too_large.clone())?;
        let tensor = entry_bytes(&mut archive, position, &file).and_then(|bytes| {
            let (dtype, shape, bytes) = npy::read(bytes)?;
            Tensor::new(TensorSpec { name: name.clone(), dtype, shape }, bytes)
        });
        tensors.push(tensor.map_err(|error| of_entry(&name, error))?);
    }
    ParamSet::new(tensors)
}

/// Writes a set. `writer` is best buffered, and is left at the end of the archive.
///
/// # Errors
/// Those of [`Writer`].
pub fn write(params: &ParamSet, writer: impl io::Write + Seek) -> Result<(), Error> {
    let mut archive = Writer::new(writer);
    for tensor in params {
        archive.start(&tensor.spec)?;
        archive.write(&tensor.bytes)?;
    }
    archive.finish().map(drop)
}

/// Writes an archive tensor by tensor, and a tensor piece by piece, for what is not in memory as a whole.
///
/// What was written is an archive only after [`Writer::finish`]; after an error it is to be thrown away.
///
/// # Examples
/// ```
/// use sheaf_tensor::{Dtype, TensorSpec, npz};
///
/// let mut writer = npz::Writer::new(std::io::Cursor::new(Vec::new()));
/// writer.start(&TensorSpec::new("weight", Dtype::U8, [4])?)?;
/// writer.write(&[1, 2])?;
/// writer.write(&[3, 4])?;
/// let file = writer.finish()?.into_inner();
/// assert_eq!(npz::read(file.into(), npz::Limits::default())?.byte_len(), 4);
/// # Ok::<(), sheaf_tensor::Error>(())
/// ```
pub struct Writer<W: io::Write + Seek> {
    archive: ZipWriter<W>,
    names: HashSet<String>,
    /// The tensor being written, and how many of its bytes have been.
    open: Option<(TensorSpec, u64)>,
}

impl<W: io::Write + Seek> Writer<W> {
    /// Makes a writer of an archive without entries.
    pub fn new(writer: W) -> Writer<W> {
        Writer { archive: ZipWriter::new(writer), names: HashSet::new(), open: None }
    }

    /// Begins the next tensor; its elements, row-major and little-endian, go to [`Writer::write`].
    ///
    /// # Errors
    /// [`Error::WrongLength`] when the tensor before is not complete; [`Error::DuplicateName`]; [`Error::TooLarge`] above
    /// [`ENTRIES_MAX`] tensors; the errors of [`npy::header`]; [`Error::Write`].
    pub fn start(&mut self, spec: &TensorSpec) -> Result<(), Error> {
        self.close()?;
        spec.check_name()?;
        let header = npy::header(spec)?;
        check_entries(self.names.len() + 1, ENTRIES_MAX)?;
        if !self.names.insert(spec.name.clone()) {
            return Err(Error::DuplicateName { name: spec.name.clone() });
        }
        let size = spec.byte_len().saturating_add(header.len() as u64);
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644)
            .large_file(size >= u64::from(u32::MAX));
        let name = format!("{}{SUFFIX}", spec.name);
        self.archive.start_file(name, options).map_err(|e| unwritten(e.into()))?;
        self.archive.write_all(&header).map_err(unwritten)?;
        self.open = Some((spec.clone(), 0));
        Ok(())
    }

    /// Writes the next bytes of the tensor begun last.
    ///
    /// # Errors
    /// [`Error::WrongLength`] when there is no such tensor or it has fewer bytes; [`Error::Write`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some((spec, written)) = &mut self.open else {
            return Err(Error::WrongLength { name: String::new(), expected: 0, got: bytes.len() as u64 });
        };
        let got = written.saturating_add(bytes.len() as u64);
        if got > spec.byte_len() {
            return Err(Error::WrongLength { name: spec.name.clone(), expected: spec.byte_len(), got });
        }
        *written = got;
        self.archive.write_all(bytes).map_err(unwritten)
    }

    /// Writes the directory, and gives the writer back.
    ///
    /// # Errors
    /// [`Error::WrongLength`] when the last tensor is not complete; [`Error::Write`].
    pub fn finish(mut self) -> Result<W, Error> {
        self.close()?;
        self.archive.finish().map_err(|e| unwritten(e.into()))
    }

    fn close(&mut self) -> Result<(), Error> {
        match self.open.take() {
            Some((spec, written)) => crate::tensor::check_len(&spec, written),
            None => Ok(()),
        }
    }
}

impl<W: io::Write + Seek> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("num_tensors", &self.names.len()).finish_non_exhaustive()
    }
}

/// The number of entries the archive says it has, before any of them is looked at.
fn declared_entries(file: &[u8]) -> Result<usize, Error> {
    // Without a comment, the end record is the last thing in the file.
    let end = file.last_chunk::<END_RECORD_LEN>().filter(|end| end.starts_with(END_SIGNATURE));
    let Some([.., low, high, _, _, _, _, _, _, _, _, 0, 0]) = end else {
        return Err(malformed("it does not end with a zip directory"));
    };
    Ok(usize::from(u16::from_le_bytes([*low, *high])))
}

fn check_entries(count: usize, entries_max: usize) -> Result<(), Error> {
    if count > entries_max {
        return Err(Error::TooLarge {
            what: "the number of npz entries".to_owned(),
            limit: entries_max as u64,
        });
    }
    Ok(())
}

/// Reads what the directory says of an entry: the name of its tensor, and its decompressed size.
fn entry_head(archive: &ZipArchive<Cursor<Bytes>>, position: usize) -> Result<(String, u64), Error> {
    let entry = archive.by_index_data(position).map_err(|e| broken(&e))?;
    let path = entry.name().map_err(|e| broken(&e))?;
    let shown: String = path.chars().take(64).collect();
    let name = path
        .strip_suffix(SUFFIX)
        .ok_or_else(|| unsupported(format!("entry {shown:?} is not an .npy file")))?;
    if entry.encrypted() {
        return Err(unsupported(format!("entry {shown:?} is encrypted")));
    }
    if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(unsupported(format!("entry {shown:?} is neither stored nor deflated")));
    }
    Ok((name.to_owned(), entry.size()))
}

/// Reads an entry, which may not be longer than the directory says.
fn entry_bytes(
    archive: &mut ZipArchive<Cursor<Bytes>>,
    position: usize,
    file: &Bytes,
) -> Result<Bytes, Error> {
    let mut entry = archive.by_index(position).map_err(|e| broken(&e))?;
    let size = entry.size();
    if entry.compression() == CompressionMethod::Stored {
        let stored = stored_slice(file, entry.header_start(), entry.compressed_size());
        // Reading to the end is what checks the checksum.
        let got = io::copy(&mut entry, &mut io::sink()).map_err(|e| malformed(e.to_string()))?;
        return stored.filter(|bytes| bytes.len() as u64 == size && got == size).ok_or_else(wrong_size);
    }
    // The declared size is only a claim: memory grows with what really comes.
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(CAPACITY_MAX)).unwrap_or(0));
    entry.take(size.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| malformed(e.to_string()))?;
    if bytes.len() as u64 != size {
        return Err(wrong_size());
    }
    Ok(Bytes::from(bytes))
}

/// Finds the bytes of a stored entry behind its local header.
fn stored_slice(file: &Bytes, header_start: u64, len: u64) -> Option<Bytes> {
    let start = usize::try_from(header_start).ok()?;
    let [name_low, name_high, extra_low, extra_high] =
        *file.get(start..)?.get(LOCAL_NAME_LEN_AT..)?.first_chunk::<4>()?;
    let name_len = usize::from(u16::from_le_bytes([name_low, name_high]));
    let extra_len = usize::from(u16::from_le_bytes([extra_low, extra_high]));
    let data = start.checked_add(LOCAL_HEADER_LEN + name_len + extra_len)?;
    let end = data.checked_add(usize::try_from(len).ok()?)?;
    (end <= file.len()).then(|| file.slice(data..end))
}

/// Says in which entry something was wrong.
fn of_entry(name: &str, error: Error) -> Error {
    let shown: String = name.chars().take(64).collect();
    match error {
        Error::Malformed { reason, .. } => malformed(format!("entry {shown:?}: {reason}")),
        Error::Unsupported { reason, .. } => unsupported(format!("entry {shown:?}: {reason}")),
        other => other,
    }
}

fn broken(error: &ZipError) -> Error {
    match error {
        ZipError::UnsupportedArchive(reason) => unsupported((*reason).to_owned()),
        other => malformed(other.to_string()),
    }
}

fn unwritten(error: io::Error) -> Error {
    Error::write(FORMAT, &error)
}

fn wrong_size() -> Error {
    malformed("it is not as long as the directory says")
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::Malformed { format: FORMAT, reason: reason.into() }
}

fn unsupported(reason: String) -> Error {
    Error::Unsupported { format: FORMAT, reason }
}

const FORMAT: &str = "npz";
const SUFFIX: &str = ".npy";
const END_RECORD_LEN: usize = 22;
const END_SIGNATURE: &[u8] = b"PK\x05\x06";
const LOCAL_HEADER_LEN: usize = 30;
/// Where a local header has the lengths of its name and its extra field.
const LOCAL_NAME_LEN_AT: usize = 26;
/// The most memory taken for an entry before its bytes come.
const CAPACITY_MAX: u64 = 1024 * 1024;
