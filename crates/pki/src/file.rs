//! Small files that hold keys, certificates and kits: created whole or not at all, durable when written, bounded when read.
//!
//! A crash leaves at most a file of the same name and `.new`, which the next attempt replaces. One process at a time writes a
//! path; those who share a directory lock it.
//!
//! A file with a secret has mode 0600 from its creation on, and is refused when group or others may touch it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use sheaf_runtime::crash::{self, Point};
use zeroize::Zeroizing;

use crate::Error;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner only.
    Private,
    /// Everybody.
    Public,
}

/// Creates `path` with `content` and makes it durable; never overwrites.
pub(crate) fn create(path: &Path, content: &[u8], access: Access) -> Result<(), Error> {
    // A link counts as there, wherever it leads.
    if path.symlink_metadata().is_ok() {
        return Err(Error::Exists { path: path.to_owned() });
    }
    replace(path, content, access)
}

/// Puts `content` in the place of whatever is at `path`, at once, and makes it durable.
pub(crate) fn replace(path: &Path, content: &[u8], access: Access) -> Result<(), Error> {
    let new = path.with_added_extension("new");
    match std::fs::remove_file(&new) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed("remove", &new, source));
        }
        _ => {}
    }
    write_new(&new, content, access).map_err(|source| failed("write", &new, source))?;
    crash::reached(Point::KeyFileWritten);
    std::fs::rename(&new, path).map_err(|source| failed("rename", &new, source))?;
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(|source| failed("make durable", path, source))
}

fn write_new(path: &Path, content: &[u8], access: Access) -> std::io::Result<()> {
    let mode = match access {
        Access::Private => 0o600,
        Access::Public => 0o644,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Reads at most `max` bytes of `path`; a private file that others may touch is refused.
pub(crate) fn read(
    path: &Path,
    what: &'static str,
    max: usize,
    access: Access,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let file = File::open(path).map_err(|source| failed("open", path, source))?;
    let metadata = file.metadata().map_err(|source| failed("inspect", path, source))?;
    let mode = metadata.mode() & 0o777;
    if access == Access::Private && mode & 0o077 != 0 {
        return Err(Error::ReadableByOthers { path: path.to_owned(), mode });
    }
    // Room for everything at once, so that no half-filled copy of a secret is left behind by growing.
    let mut content = Zeroizing::new(Vec::with_capacity(max.saturating_add(1)));
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut content).map_err(|source| failed("read", path, source))?;
    if content.len() > max {
        return Err(Error::TooLarge { what, max });
    }
    Ok(content)
}

/// Creates a directory that only the owner may enter, with its parents; an existing one is left as it is.
pub(crate) fn create_private_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| failed("create", dir, source))
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_created_once_with_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"secret", Access::Private).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(create(&path, b"other", Access::Private), Err(Error::Exists { .. })));
        assert_eq!(read(&path, "it", 100, Access::Private).unwrap().as_slice(), b"secret");
    }

    #[test]
    fn what_a_crash_left_of_a_file_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(dir.path().join("key.new"), "half a sec").unwrap();
        create(&path, b"secret", Access::Private).unwrap();
        assert_eq!(read(&path, "it", 100, Access::Private).unwrap().as_slice(), b"secret");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_secret_readable_by_others_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"secret", Access::Private).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = read(&path, "it", 100, Access::Private).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn reading_stops_at_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        create(&path, &[b'a'; 101], Access::Public).unwrap();
        assert!(matches!(read(&path, "it", 100, Access::Public), Err(Error::TooLarge { max: 100, .. })));
        assert_eq!(read(&path, "it", 101, Access::Public).unwrap().len(), 101);
    }
}
