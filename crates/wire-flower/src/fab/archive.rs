//! The archive of a bundle: a zip file read under bounds, and its `.info/CONTENT`.
//!
//! Refused by name: comments and zip64 records, directories of entries that two readers could understand differently,
//! paths that leave the app's directory or meet one another, links, encrypted entries, other ways of compression than
//! stored and deflated, and more than [`ENTRIES_MAX`], [`TOTAL_LEN_MAX`] or [`RATIO_MAX`]. What entries unfold to is
//! counted while it is read; what their headers claim must then be so. Only the two files that are read are held.

use std::collections::{BTreeMap, HashSet};
use std::io::{Cursor, Read};

use sheaf_domain::{Digest, Hasher};
use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use super::{FabError, shortened, too_long};

/// The most entries.
pub(super) const ENTRIES_MAX: u64 = 10_000;
/// The most bytes all entries together unfold to.
pub(super) const TOTAL_LEN_MAX: u64 = 64 * 1_024 * 1_024;
/// The most bytes an entry unfolds to for each of its bytes, beyond [`RATIO_EXEMPT_LEN`].
pub(super) const RATIO_MAX: u64 = 200;
/// Entries that unfold to no more than this are not held to [`RATIO_MAX`].
pub(super) const RATIO_EXEMPT_LEN: u64 = 64 * 1_024;
/// The longest `pyproject.toml`, in bytes.
pub(super) const PROJECT_LEN_MAX: u64 = 1_024 * 1_024;
/// The longest `.info/CONTENT`, in bytes.
pub(super) const CONTENT_LEN_MAX: u64 = 4 * 1_024 * 1_024;
/// The longest path, in bytes.
pub(super) const PATH_LEN_MAX: usize = 512;

/// A file's digest and its length.
type Files = BTreeMap<String, (Digest, u64)>;

/// Reads every entry, verifies `.info/CONTENT` if there is one, and returns the text of `pyproject.toml`.
pub(super) fn read(bytes: &[u8]) -> Result<String, FabError> {
    check_end(bytes)?;
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let broken = |error: zip::result::ZipError| FabError::Archive { reason: shortened(&error.to_string()) };
    let mut archive = ZipArchive::with_config(config, Cursor::new(bytes)).map_err(broken)?;
    archive.validate_header_consistency().map_err(broken)?;
    let mut seen = HashSet::new();
    let mut files = Files::new();
    let (mut project, mut content, mut total_len) = (None, None, 0);
    for position in 0..archive.len() {
        let mut entry = archive.by_index(position).map_err(broken)?;
        let raw = entry.name_raw().to_vec();
        let as_others_read_it = entry.name().map_err(broken)?;
        if as_others_read_it.as_bytes() != raw {
            return Err(refused(&as_others_read_it, "its name is not UTF-8"));
        }
        let name = as_others_read_it.into_owned();
        let path = check_path(&name)?;
        check_kind(&name, entry.unix_mode(), entry.encrypted(), entry.compression())?;
        if !seen.insert(path.to_owned()) {
            return Err(refused(&name, "its path appears twice"));
        }
        if name.ends_with('/') {
            if entry.size() != 0 || entry.compressed_size() != 0 {
                return Err(refused(&name, "it is a directory with content"));
            }
            continue;
        }
        let (size, packed_len) = (entry.size(), entry.compressed_size());
        let mut inflating = Inflating { name: &name, packed_len, len: 0, total_len: &mut total_len };
        let kept = match path {
            PROJECT => Some((&mut project, PROJECT_LEN_MAX)),
            CONTENT => Some((&mut content, CONTENT_LEN_MAX)),
            _ => None,
        };
        let digest = match kept {
            Some((place, max)) => {
                let (digest, text) = inflating.keep(&mut entry, max)?;
                *place = Some(text);
                digest
            }
            None => inflating.hash(&mut entry, |_| Ok(()))?,
        };
        let len = inflating.len;
        if len != size {
            return Err(refused(&name, "it is not as long as its header says"));
        }
        files.insert(path.to_owned(), (digest, len));
    }
    check_places(&seen, &files)?;
    if let Some(content) = content {
        check_content(&content, &files)?;
    }
    project.ok_or(FabError::NoProject)
}

/// Checks the end record before anything is sized by it: no comment, no zip64, and the directory right before it. Then
/// no reader finds another directory.
fn check_end(bytes: &[u8]) -> Result<(), FabError> {
    let wrong = |reason: &str| FabError::Archive { reason: reason.to_owned() };
    let end = bytes.last_chunk::<END_LEN>().filter(|end| end.starts_with(b"PK\x05\x06"));
    let end = end.ok_or_else(|| wrong("it does not end with a zip directory"))?;
    let short = |at: usize| u64::from(u16::from_le_bytes([end[at], end[at + 1]]));
    let long = |at: usize| u64::from(u32::from_le_bytes([end[at], end[at + 1], end[at + 2], end[at + 3]]));
    if short(20) != 0 {
        return Err(wrong("it has a comment"));
    }
    let before = &bytes[..bytes.len() - END_LEN];
    if before.len() >= ZIP64_LOCATOR_LEN
        && before[before.len() - ZIP64_LOCATOR_LEN..].starts_with(b"PK\x06\x07")
    {
        return Err(wrong("it has a zip64 directory"));
    }
    if short(4) != 0 || short(6) != 0 || short(8) != short(10) {
        return Err(wrong("it has several parts"));
    }
    if short(10) > ENTRIES_MAX {
        return Err(FabError::TooManyEntries { count: short(10), max: ENTRIES_MAX });
    }
    if long(12) + long(16) != before.len() as u64 {
        return Err(wrong("its directory is not at its end"));
    }
    Ok(())
}

/// Checks a path, and returns it without a directory's last slash.
fn check_path(name: &str) -> Result<&str, FabError> {
    let path = name.strip_suffix('/').unwrap_or(name);
    let drive = matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    let reason = if path.len() > PATH_LEN_MAX {
        "its path is too long"
    } else if path.contains('\\') || drive {
        "its path is another system's"
    } else if path.starts_with('/') {
        "its path is absolute"
    } else if path.chars().any(char::is_control) {
        "its path has control characters"
    } else if path.split('/').any(|part| part == "..") {
        "its path leads upwards"
    } else if path.split('/').any(|part| part.is_empty() || part == ".") {
        "its path has an empty part"
    } else {
        return Ok(path);
    };
    Err(refused(name, reason))
}

fn check_kind(
    name: &str,
    unix_mode: Option<u32>,
    encrypted: bool,
    compression: CompressionMethod,
) -> Result<(), FabError> {
    match (unix_mode.unwrap_or(0) & 0o170_000, name.ends_with('/')) {
        (0, _) | (0o100_000, false) | (0o040_000, true) => {}
        (0o120_000, _) => return Err(refused(name, "it is a link")),
        _ => return Err(refused(name, "it is neither a file nor a directory")),
    }
    if encrypted {
        return Err(refused(name, "it is encrypted"));
    }
    if !matches!(compression, CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(refused(name, "it is neither stored nor deflated"));
    }
    Ok(())
}

/// No file may lie where another path needs a directory.
fn check_places(seen: &HashSet<String>, files: &Files) -> Result<(), FabError> {
    for path in seen {
        for (at, _) in path.match_indices('/') {
            if files.contains_key(&path[..at]) {
                return Err(refused(path, "a file lies where its directory should be"));
            }
        }
    }
    Ok(())
}

/// Counts what an entry unfolds to, and stops at the bounds.
struct Inflating<'a> {
    name: &'a str,
    packed_len: u64,
    len: u64,
    total_len: &'a mut u64,
}

impl Inflating<'_> {
    fn hash(
        &mut self,
        entry: &mut impl Read,
        mut each: impl FnMut(&[u8]) -> Result<(), FabError>,
    ) -> Result<Digest, FabError> {
        let mut hasher = Hasher::new();
        let mut piece = [0; 16 * 1_024];
        loop {
            let unreadable = |error: std::io::Error| FabError::Unreadable {
                entry: shortened(self.name),
                reason: shortened(&error.to_string()),
            };
            let read = entry.read(&mut piece).map_err(unreadable)?;
            let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            self.count(read as u64)?;
            hasher.update(bytes);
            each(bytes)?;
        }
        Ok(hasher.finish())
    }

    fn keep(&mut self, entry: &mut impl Read, max: u64) -> Result<(Digest, String), FabError> {
        let (name, mut held) = (self.name, Vec::new());
        let digest = self.hash(entry, |bytes| {
            held.extend_from_slice(bytes);
            let len = held.len() as u64;
            if len > max { Err(too_long(name, len, max)) } else { Ok(()) }
        })?;
        let text = String::from_utf8(held).map_err(|_| refused(name, "its text is not UTF-8"))?;
        Ok((digest, text))
    }

    fn count(&mut self, len: u64) -> Result<(), FabError> {
        self.len += len;
        *self.total_len += len;
        if *self.total_len > TOTAL_LEN_MAX {
            return Err(FabError::TotalTooLong { max: TOTAL_LEN_MAX });
        }
        if self.len > self.packed_len.saturating_mul(RATIO_MAX).max(RATIO_EXEMPT_LEN) {
            return Err(FabError::Ratio { entry: shortened(self.name), max: RATIO_MAX });
        }
        Ok(())
    }
}

/// Compares the list with the files: each line `path,sha256,bits`, each file but the list itself on one line.
fn check_content(content: &str, files: &Files) -> Result<(), FabError> {
    let mut listed = HashSet::new();
    for (index, text) in content.trim().split('\n').enumerate() {
        let wrong = |reason| FabError::Content { line: index + 1, reason };
        let mut parts = text.split(',');
        let (Some(path), Some(hash), Some(bits), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong("it is not path,sha256,bits"));
        };
        let (digest, len) = files.get(path).ok_or_else(|| wrong("there is no such file"))?;
        if !listed.insert(path) {
            return Err(wrong("its path is listed twice"));
        }
        if digest.to_string() != hash || (len * 8).to_string() != bits {
            return Err(FabError::ContentDiffers { entry: shortened(path) });
        }
    }
    match files.keys().find(|path| *path != CONTENT && !listed.contains(path.as_str())) {
        Some(path) => Err(FabError::Unlisted { entry: shortened(path) }),
        None => Ok(()),
    }
}

fn refused(name: &str, reason: &'static str) -> FabError {
    FabError::Entry { entry: shortened(name), reason }
}

const PROJECT: &str = "pyproject.toml";
const CONTENT: &str = ".info/CONTENT";
const END_LEN: usize = 22;
const ZIP64_LOCATOR_LEN: usize = 20;
