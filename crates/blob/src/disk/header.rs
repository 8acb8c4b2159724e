//! The first block of a spool file: what it is, which one, how long.

use std::path::Path;

use crate::Error;
use crate::files::RawFile;

/// Extents begin and end on multiples of this many bytes: a sector of any disk, and what direct I/O asks for.
pub(crate) const ALIGN: u64 = 4096;
/// The length of the header block, in bytes.
pub(crate) const HEADER_LEN: u64 = ALIGN;
/// The format version of spool files and index together.
pub(crate) const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"SHEAFSPL";
const ENCODED_LEN: usize = 28;
const NAME_PREFIX: &str = "spool-";

/// The name of the spool file `id`.
pub(crate) fn file_name(id: u32) -> String {
    format!("{NAME_PREFIX}{id:08x}")
}

/// The id of a spool file's name; `None` for other files.
pub(crate) fn file_id(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(NAME_PREFIX)?;
    u32::from_str_radix(digits, 16).ok().filter(|id| file_name(*id) == name)
}

pub(crate) fn encode(id: u32, len: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENCODED_LEN);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The length that the header of spool file `id` states; `None` when the file was never finished.
///
/// # Errors
/// [`Error::Format`] for another format version; an I/O error.
pub(crate) fn read(raw: &dyn RawFile, path: &Path, id: u32) -> Result<Option<u64>, Error> {
    let file_len = raw.byte_len().map_err(|source| Error::io("measure", path, source))?;
    if file_len < HEADER_LEN {
        return Ok(None);
    }
    let mut bytes = [0; ENCODED_LEN];
    raw.read_at(&mut bytes, 0).map_err(|source| Error::io("read", path, source))?;
    let Some((fields, crc)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
    if crc32fast::hash(fields) != u32::from_le_bytes(*crc) {
        return Ok(None);
    }
    let mut fields = Fields(fields);
    if fields.take::<8>() != Some(*MAGIC) {
        return Ok(None);
    }
    let version = fields.take_u32().unwrap_or(0);
    if version != FORMAT_VERSION {
        return Err(Error::Format { path: path.to_owned(), found: version, supported: FORMAT_VERSION });
    }
    let same_id = fields.take_u32() == Some(id);
    Ok(fields.take_u64().filter(|len| same_id && *len <= file_len && *len >= HEADER_LEN))
}

/// Reads fixed-size little-endian fields from the front of a slice; `None` when it is too short.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(crate) fn take_u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub(crate) fn take_u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn take_u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn take_slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }
}
