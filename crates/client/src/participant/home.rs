//! The site's directory: key, certificates, who and where, and the tasks under way. One process at a time.
//!
//! ```text
//! keys/<n>.pem      the site's private key, mode 0600; made here, never leaves; one an invitation
//! identity.toml     who this site is: name, server, certificate; replaced as a whole
//! tasks/<task>/     a result that is not handed in yet
//! lock              held by the running participant
//! ```

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sheaf_domain::{Digest, SiteName, TaskId, Timestamp};
use sheaf_pki::SiteKey;

use crate::Error;

/// The site's directory, locked.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    _lock: File,
}

/// What `identity.toml` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrolled {
    /// The version of this file; [`Enrolled::FORMAT`].
    pub(crate) format: u32,
    /// The site's name.
    pub(crate) site: SiteName,
    /// The federation's trust domain.
    pub(crate) trust_domain: String,
    /// Where the server listens, in the order to try.
    pub(crate) servers: Vec<String>,
    /// The fingerprint of the authority's key.
    pub(crate) ca_pin: Digest,
    /// The hash of the invitation's token: another kit is another enrolment.
    pub(crate) invitation: Digest,
    /// When the certificate came.
    pub(crate) obtained_at: Timestamp,
    /// When it ends.
    pub(crate) not_after: Timestamp,
    /// The authority's certificate.
    pub(crate) ca_pem: String,
    /// The site's certificate.
    pub(crate) certificate_pem: String,
}

impl Enrolled {
    /// The version of `identity.toml` this client writes and reads.
    pub(crate) const FORMAT: u32 = 1;
}

impl Home {
    /// Opens (or makes) the directory and takes its lock.
    pub(crate) fn open(dir: &Path) -> Result<Home, Error> {
        for part in [KEYS, TASKS] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir.join(part));
            made.map_err(Error::file("create", dir))?;
        }
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
        let lock = lock.map_err(Error::file("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Home { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(Error::file("lock", path)(source)),
        }
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The key of an invitation, made if this is the first time: a repeated enrolment must come with the same one.
    pub(crate) fn key(&self, invitation: &Digest) -> Result<SiteKey, Error> {
        let path = self.dir.join(KEYS).join(format!("{}.pem", invitation.short()));
        if path.exists() {
            return Ok(SiteKey::load(&path)?);
        }
        let key = SiteKey::generate()?;
        key.save(&path)?;
        Ok(key)
    }

    /// Where the tasks under way are.
    pub(crate) fn tasks_dir(&self) -> PathBuf {
        self.dir.join(TASKS)
    }

    /// Where one task's files are.
    pub(crate) fn task_dir(&self, task: TaskId) -> PathBuf {
        self.tasks_dir().join(task.to_string())
    }

    /// Who this site is, if it is enrolled.
    pub(crate) fn enrolled(&self) -> Result<Option<Enrolled>, Error> {
        let path = self.dir.join(IDENTITY);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::file("read", path)(source)),
        };
        let bad = |reason: String| Error::setting(path.display().to_string(), reason);
        let enrolled: Enrolled = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if enrolled.format != Enrolled::FORMAT {
            return Err(bad(format!("format {} is not {}", enrolled.format, Enrolled::FORMAT)));
        }
        Ok(Some(enrolled))
    }

    /// Keeps who this site is.
    pub(crate) fn keep(&self, enrolled: &Enrolled) -> Result<(), Error> {
        let text = toml::to_string(enrolled).map_err(|error| Error::Internal(error.to_string()))?;
        write_whole(&self.dir.join(IDENTITY), text.as_bytes())
    }
}

/// Replaces a file at once: readers see the old content or the new, also after a crash.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(Error::file("write", path))
}

const KEYS: &str = "keys";
const TASKS: &str = "tasks";
const IDENTITY: &str = "identity.toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_participant_and_remembers_who_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert!(matches!(Home::open(dir.path()), Err(Error::InUse { .. })));
        assert_eq!(home.enrolled().unwrap(), None);
        let enrolled = Enrolled {
            format: Enrolled::FORMAT,
            site: SiteName::new("site-1").unwrap(),
            trust_domain: "study".to_owned(),
            servers: vec!["localhost:8443".to_owned()],
            ca_pin: Digest::of(b"ca"),
            invitation: Digest::of(b"token"),
            obtained_at: Timestamp::from_millis(1),
            not_after: Timestamp::from_millis(2),
            ca_pem: "ca".to_owned(),
            certificate_pem: "certificate".to_owned(),
        };
        home.keep(&enrolled).unwrap();
        let key = home.key(&enrolled.invitation).unwrap().fingerprint();
        assert_eq!(home.key(&enrolled.invitation).unwrap().fingerprint(), key);
        drop(home);
        let again = Home::open(dir.path()).unwrap();
        assert_eq!(again.enrolled().unwrap(), Some(enrolled));
        std::fs::write(dir.path().join(IDENTITY), "format = 2").unwrap();
        assert!(again.enrolled().is_err());
    }
}
