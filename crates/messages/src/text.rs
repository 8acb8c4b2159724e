//! Identifiers and bounded texts: from the wire's strings to the domain's types.

use sheaf_domain::{Digest, LineageName, RunId, SiteName, SlotName, StageName, TaskId, VersionRef};

use crate::bounds::{DIGESTS_MAX, TASKS_MAX};
use crate::{Error, v1};

/// A task id.
///
/// # Errors
/// [`Error::Bad`] naming the rule it breaks.
pub fn task(text: &str) -> Result<TaskId, Error> {
    text.parse().map_err(|error| Error::bad("task", error))
}

/// At most [`TASKS_MAX`] task ids.
///
/// # Errors
/// [`Error::TooLarge`], or [`Error::Bad`] for the first that is not well formed.
pub fn tasks(texts: &[String]) -> Result<Vec<TaskId>, Error> {
    limit("tasks", texts.len(), TASKS_MAX)?;
    texts.iter().map(|text| task(text)).collect()
}

/// A run id.
///
/// # Errors
/// [`Error::Bad`] naming the rule it breaks.
pub fn run(text: &str) -> Result<RunId, Error> {
    text.parse().map_err(|error| Error::bad("run", error))
}

/// A site's name.
///
/// # Errors
/// [`Error::Bad`] naming the rule it breaks.
pub fn site(text: &str) -> Result<SiteName, Error> {
    SiteName::new(text).map_err(|error| Error::bad("site", error))
}

/// A digest.
///
/// # Errors
/// [`Error::Bad`] naming the rule it breaks.
pub fn digest(text: &str) -> Result<Digest, Error> {
    text.parse().map_err(|error| Error::bad("digest", error))
}

/// At most [`DIGESTS_MAX`] digests.
///
/// # Errors
/// [`Error::TooLarge`], or [`Error::Bad`] for the first that is not well formed.
pub fn digests(texts: &[String]) -> Result<Vec<Digest>, Error> {
    limit("digests", texts.len(), DIGESTS_MAX)?;
    texts.iter().map(|text| digest(text)).collect()
}

/// A version of a lineage of a run.
///
/// # Errors
/// [`Error::Absent`] or [`Error::Bad`].
pub fn version_from_wire(version: Option<&v1::Version>) -> Result<VersionRef, Error> {
    let version = version.ok_or(Error::Absent { field: "version" })?;
    let lineage = LineageName::new(version.lineage.as_str()).map_err(|error| Error::bad("lineage", error))?;
    Ok(VersionRef { run: run(&version.run)?, lineage, version: version.version })
}

/// A version of a lineage of a run, for the wire.
pub fn version_to_wire(version: &VersionRef) -> v1::Version {
    v1::Version {
        run: version.run.to_string(),
        lineage: version.lineage.to_string(),
        version: version.version,
    }
}

/// The text itself, if it is at most `limit` bytes long.
///
/// # Errors
/// [`Error::TooLarge`] naming the field.
pub fn bounded<'a>(field: &'static str, text: &'a str, len_max: usize) -> Result<&'a str, Error> {
    limit(field, text.len(), len_max)?;
    Ok(text)
}

pub(crate) fn limit(field: &'static str, len: usize, len_max: usize) -> Result<(), Error> {
    if len > len_max {
        return Err(Error::TooLarge { field, limit: u64::try_from(len_max).unwrap_or(u64::MAX) });
    }
    Ok(())
}

pub(crate) fn slot(text: &str) -> Result<SlotName, Error> {
    SlotName::new(text).map_err(|error| Error::bad("slot", error))
}

pub(crate) fn stage(text: &str) -> Result<StageName, Error> {
    StageName::new(text).map_err(|error| Error::bad("stage", error))
}
