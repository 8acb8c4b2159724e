//! The files of a bundle: a zip file unfolded under bounds, and its `.info/CONTENT`.
//!
//! Refused by name: what [`directory::check`] refuses, paths that leave the app's directory or meet one another, links,
//! headers that contradict the directory, and more than [`TOTAL_LEN_MAX`] or [`RATIO_MAX`]. What entries unfold to is
//! counted while it is read; what their headers claim must then be so. Only the two files that are read are held.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};

use sheaf_domain::{Digest, Hasher};
use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config, ZipFile};
use zip::result::ZipError;

use super::{FabError, directory, shortened, too_long};

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

type Entry<'a, 'b> = ZipFile<'a, Cursor<&'b [u8]>>;
/// A file's digest and its length.
type Files = BTreeMap<String, (Digest, u64)>;

/// Reads every entry, verifies `.info/CONTENT` if there is one, and returns the text of `pyproject.toml`.
pub(super) fn read(bytes: &[u8]) -> Result<String, FabError> {
    directory::check(bytes)?;
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, Cursor::new(bytes)).map_err(broken)?;
    archive.validate_header_consistency().map_err(broken)?;
    let mut contents = Contents::default();
    for position in 0..archive.len() {
        let mut entry = archive.by_index(position).map_err(broken)?;
        let (name, path) = checked_name(&entry)?;
        if !contents.paths.insert(path.clone()) {
            return Err(refused(&name, "its path appears twice"));
        }
        if !name.ends_with('/') {
            contents.read_file(path, &mut entry)?;
        } else if entry.size() != 0 || entry.compressed_size() != 0 {
            return Err(refused(&name, "it is a directory with content"));
        }
    }
    contents.check_places()?;
    if let Some(list) = &contents.list {
        check_list(list, &contents.files)?;
    }
    contents.project.ok_or(FabError::NoProject)
}

/// What was read of an archive.
#[derive(Default)]
struct Contents {
    /// Of files and directories.
    paths: BTreeSet<String>,
    files: Files,
    project: Option<String>,
    list: Option<String>,
    total_len: u64,
}

impl Contents {
    fn read_file(&mut self, path: String, entry: &mut Entry<'_, '_>) -> Result<(), FabError> {
        let (size, packed_len) = (entry.size(), entry.compressed_size());
        let mut inflating = Inflating { name: &path, packed_len, len: 0, total_len: &mut self.total_len };
        let digest = match path.as_str() {
            PROJECT => inflating.keep(entry, PROJECT_LEN_MAX, &mut self.project)?,
            CONTENT => inflating.keep(entry, CONTENT_LEN_MAX, &mut self.list)?,
            _ => inflating.hash(entry, |_| Ok(()))?,
        };
        let len = inflating.len;
        if len != size {
            return Err(refused(&path, "it is not as long as its header says"));
        }
        self.files.insert(path, (digest, len));
        Ok(())
    }

    /// No file may lie where another path needs a directory.
    fn check_places(&self) -> Result<(), FabError> {
        for path in &self.paths {
            for (at, _) in path.match_indices('/') {
                if self.files.contains_key(&path[..at]) {
                    return Err(refused(path, "a file lies where its directory should be"));
                }
            }
        }
        Ok(())
    }
}

/// Checks what the directory says of an entry; returns its name, and its path without a directory's last slash.
fn checked_name(entry: &Entry<'_, '_>) -> Result<(String, String), FabError> {
    let name = entry.name().map_err(broken)?;
    let path = check_path(&name)?.to_owned();
    check_kind(&name, entry.unix_mode())?;
    Ok((name.into_owned(), path))
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

fn check_kind(name: &str, unix_mode: Option<u32>) -> Result<(), FabError> {
    match (unix_mode.unwrap_or(0) & 0o170_000, name.ends_with('/')) {
        (0, _) | (0o100_000, false) | (0o040_000, true) => {}
        (0o120_000, _) => return Err(refused(name, "it is a link")),
        _ => return Err(refused(name, "it is neither a file nor a directory")),
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

    fn keep(
        &mut self,
        entry: &mut impl Read,
        max: u64,
        place: &mut Option<String>,
    ) -> Result<Digest, FabError> {
        let (name, mut held) = (self.name, Vec::new());
        let digest = self.hash(entry, |bytes| {
            held.extend_from_slice(bytes);
            let len = held.len() as u64;
            if len > max { Err(too_long(name, len, max)) } else { Ok(()) }
        })?;
        *place = Some(String::from_utf8(held).map_err(|_| refused(name, "its text is not UTF-8"))?);
        Ok(digest)
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
fn check_list(content: &str, files: &Files) -> Result<(), FabError> {
    let mut listed = BTreeSet::new();
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

fn broken(error: ZipError) -> FabError {
    FabError::Archive { reason: shortened(&error.to_string()) }
}

pub(super) fn refused(name: &str, reason: &'static str) -> FabError {
    FabError::Entry { entry: shortened(name), reason }
}

const PROJECT: &str = "pyproject.toml";
const CONTENT: &str = ".info/CONTENT";
