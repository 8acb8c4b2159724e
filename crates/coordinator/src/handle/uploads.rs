//! Uploads: pieces of an update, each durable when acknowledged, so that an interrupted upload goes on with what is missing.

use std::collections::HashSet;

use bytes::Bytes;
use sheaf_blob::{Hold, ObjectWriter};
use sheaf_domain::{Digest, Identity, Manifest, Role, RunId, SiteName, TaskId};
use sheaf_engine::TaskStanding;

use crate::budget::Reservation;
use crate::shared::{task_hold, upload_hold};
use crate::{Error, Handle, MISSING_MAX, PIECE_LEN_MAX, gate};

/// A piece on its way in; dropped before [`Upload::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    writer: Box<dyn ObjectWriter>,
    len: u64,
    _reservation: Reservation,
}

impl Upload {
    /// Takes in the next bytes.
    ///
    /// # Errors
    /// When they are more than declared, or cannot be stored.
    /// # Cancel safety
    /// Not safe: a dropped write leaves the upload unusable; drop it too.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        Ok(self.writer.write(bytes).await?)
    }

    /// Ends the piece: checks length and digest, and returns when it is durable.
    ///
    /// # Errors
    /// When length or digest are not as declared, or it cannot be stored; nothing is kept then.
    /// # Cancel safety
    /// A dropped call may still store the piece.
    pub async fn finish(self, expected: Digest) -> Result<(), Error> {
        self.writer.finish(Some(expected)).await?;
        metrics::counter!(sheaf_telemetry::names::UPLOAD_BYTES_TOTAL).increment(self.len);
        Ok(())
    }
}

impl Handle {
    /// Which of `objects` this task has not uploaded yet.
    ///
    /// # Errors
    /// Not found, or conflict when the task is no longer open; invalid argument above [`MISSING_MAX`] objects.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn missing(&self, who: &Identity, task: TaskId, objects: &[Digest]) -> Result<Vec<Digest>, Error> {
        self.open_task(who, task)?;
        if objects.len() > MISSING_MAX {
            return Err(Error::invalid(format!("{} objects exceed the limit of {MISSING_MAX}", objects.len())));
        }
        self.touch(&who.name, None).await?;
        let held = self.shared.blob.held(&task_hold(task)?).await?;
        let held: HashSet<Digest> = held.into_iter().map(|(digest, _)| digest).collect();
        Ok(objects.iter().filter(|object| !held.contains(object)).copied().collect())
    }

    /// Reserves room for a piece of `len` bytes; its body may be read only after this returned.
    ///
    /// # Errors
    /// Not found or conflict for the task; invalid argument above [`PIECE_LEN_MAX`]; exhausted when the task has uploaded more
    /// than its outputs can hold, when the store is full, or when too many bytes are in flight.
    /// # Cancel safety
    /// Safe: a dropped call keeps nothing.
    pub async fn upload(&self, who: &Identity, task: TaskId, len: u64) -> Result<Upload, Error> {
        let (run, standing) = self.open_task(who, task)?;
        let hold = task_hold(task)?;
        let allowed = self.allowed_bytes(run, &standing)?;
        self.touch(&who.name, None).await?;
        self.reserve(hold, len, allowed).await
    }

    /// Reserves room for a piece of a model an operator hands in; `upload` names what belongs together.
    ///
    /// # Errors
    /// As [`Handle::upload`].
    /// # Cancel safety
    /// Safe: a dropped call keeps nothing.
    pub async fn operator_upload(&self, who: &Identity, upload: &str, len: u64) -> Result<Upload, Error> {
        self.authorise(who, Role::Operator)?;
        self.reserve(upload_hold(upload)?, len, self.shared.settings.init_model_max.as_bytes()).await
    }

    async fn reserve(&self, hold: Hold, len: u64, allowed: u64) -> Result<Upload, Error> {
        if len > PIECE_LEN_MAX {
            return Err(Error::invalid(format!("a piece of {len} bytes exceeds the limit of {PIECE_LEN_MAX}")));
        }
        let present: u64 = self.shared.blob.held(&hold).await?.iter().map(|(_, len)| len).sum();
        if present.saturating_add(len) > allowed {
            let message = format!("{present} bytes are uploaded and {len} more exceed the {allowed} the outputs may have");
            return Err(Error::invalid(message));
        }
        let reservation = self.shared.budget.reserve(len).await?;
        let writer = self.shared.blob.writer(&hold, len).await?;
        Ok(Upload { writer, len, _reservation: reservation })
    }

    /// The open assignment behind a task of the caller's.
    pub(crate) fn open_task(
        &self,
        who: &Identity,
        task: TaskId,
    ) -> Result<(RunId, Box<sheaf_domain::Assignment>), Error> {
        self.authorise(who, Role::Participant)?;
        let (run, standing) = self.find_task(&who.name, task)?;
        match standing {
            TaskStanding::Open(assignment) => Ok((run, assignment)),
            TaskStanding::Accepted => Err(Error::conflict("the task was accepted already")),
            TaskStanding::Closed(reason) => Err(Error::conflict(format!("the task is closed: {reason}"))),
            _ => Err(Error::not_found("no such task")),
        }
    }

    /// The run a task belongs to, and how it stands; another participant's tasks are not known.
    pub(crate) fn find_task(&self, site: &SiteName, task: TaskId) -> Result<(RunId, TaskStanding), Error> {
        for state in self.shared.all_runs() {
            let state = crate::outbox::lock(&state);
            match state.task(task, site) {
                TaskStanding::Unknown => {}
                standing => return Ok((state.run(), standing)),
            }
        }
        Err(Error::not_found("no such task"))
    }

    /// How many bytes may be uploaded under a task: what its outputs hold, and one piece beyond for a re-cut upload.
    fn allowed_bytes(&self, _run: RunId, assignment: &sheaf_domain::Assignment) -> Result<u64, Error> {
        let mut allowed = PIECE_LEN_MAX;
        for output in &assignment.outputs {
            let expected = gate::expected_manifest(&self.shared, assignment, &output.slot)?;
            let len = expected.map_or(self.shared.settings.init_model_max.as_bytes(), |m| Manifest::byte_len(&m));
            allowed = allowed.saturating_add(len);
        }
        Ok(allowed)
    }
}
