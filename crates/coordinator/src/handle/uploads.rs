//! Uploads: pieces of an update, each durable when acknowledged, so that an interrupted upload goes on with what is missing.
//!
//! Room is reserved before a body is read. What a piece is refused for is noted where operators see it.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use sheaf_blob::{Hold, ObjectWriter};
use sheaf_domain::{
    Assignment, Digest, ErrorKind, Identity, Manifest, OutputSlot, Role, RunId, SiteName, TaskId,
};
use sheaf_engine::TaskStanding;

use crate::budget::Reservation;
use crate::incidents::Kind;
use crate::outbox::lock;
use crate::shared::{Shared, task_hold, upload_hold};
use crate::vetted::Vetting;
use crate::{Error, Handle, MISSING_MAX, PIECE_LEN_MAX, gate};

/// A piece on its way in; dropped before [`Upload::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    writer: Box<dyn ObjectWriter>,
    len: u64,
    hold: Hold,
    of: Source,
    vetting: Vetting,
    shared: Arc<Shared>,
    /// None for one that was gathered in a [`Room`].
    _reservation: Option<Reservation>,
}

/// Room for pieces that are gathered one after another before they are uploaded; given back when dropped.
#[derive(Debug)]
pub struct Room {
    len: u64,
    _reservation: Reservation,
}

impl Room {
    pub(crate) fn of(len: u64, reservation: Reservation) -> Room {
        Room { len, _reservation: reservation }
    }
}

/// Whose piece it is.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A task's.
    Task { run: RunId, task: TaskId, site: SiteName },
    /// The body of a mail.
    Mail { site: SiteName },
    /// An operator's.
    Operator,
}

impl Upload {
    /// Takes in the next bytes.
    ///
    /// # Errors
    /// When they are more than declared, or cannot be stored.
    /// # Cancel safety
    /// Not safe: a dropped write leaves the upload unusable; drop it too.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.vetting.feed(&bytes);
        let written = self.writer.write(bytes).await.map_err(Error::from);
        written.inspect_err(|error| note(&self.shared, &self.of, error))
    }

    /// Ends the piece: checks length and digest, and returns when it is durable.
    ///
    /// # Errors
    /// When length or digest are not as declared, or it cannot be stored; nothing is kept then. Conflict when its task closed
    /// meanwhile.
    /// # Cancel safety
    /// A dropped call may still store the piece.
    pub async fn finish(self, expected: Digest) -> Result<(), Error> {
        self.end(Some(expected)).await.map(drop)
    }

    /// Ends a piece that the front-end cut itself: checks its length, and returns its digest when it is durable.
    ///
    /// # Errors
    /// As [`Upload::finish`].
    /// # Cancel safety
    /// A dropped call may still store the piece.
    pub async fn seal(self) -> Result<Digest, Error> {
        self.end(None).await
    }

    async fn end(self, expected: Option<Digest>) -> Result<Digest, Error> {
        let finished = self.writer.finish(expected).await.map_err(Error::from);
        let stored = finished.inspect_err(|error| note(&self.shared, &self.of, error))?;
        metrics::counter!(sheaf_telemetry::names::UPLOAD_BYTES_TOTAL).increment(self.len);
        self.shared.vetted.note(stored.digest, self.vetting);
        match &self.of {
            Source::Task { run, task, site } => {
                self.shared.keep_piece(*run, *task, site, &self.hold).await?;
            }
            Source::Operator | Source::Mail { .. } => {
                let now = self.shared.clock.monotonic();
                lock(&self.shared.uploads).insert(self.hold.clone(), now);
            }
        }
        Ok(stored.digest)
    }
}

/// Notes a refused piece.
fn note(shared: &Shared, of: &Source, error: &Error) {
    let text = format!("a piece was refused: {error}");
    match of {
        Source::Task { run, site, .. } => shared.incident(site, Kind::UploadRefused, Some(*run), &text),
        Source::Mail { site } => shared.incident(site, Kind::UploadRefused, None, &text),
        Source::Operator => tracing::warn!(%error, "a piece of an operator's upload was refused"),
    }
}

impl Shared {
    /// Frees a piece again whose task was closed, and perhaps freed, while it came in.
    async fn keep_piece(&self, run: RunId, task: TaskId, site: &SiteName, hold: &Hold) -> Result<(), Error> {
        let kept = self.with_run(run, |state| match state.task(task, site) {
            TaskStanding::Open(_) => true,
            _ => state.live_tasks().contains(&task),
        });
        if kept.as_ref().is_ok_and(|kept| !kept) {
            self.release(hold).await;
            return Err(Error::conflict("the task was closed before its piece came in"));
        }
        kept.map(drop)
    }
}

impl Handle {
    /// Which of `objects` this task has not uploaded yet.
    ///
    /// # Errors
    /// Not found, or conflict when the task is no longer open; invalid argument above [`MISSING_MAX`] objects.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn missing(
        &self,
        who: &Identity,
        task: TaskId,
        objects: &[Digest],
    ) -> Result<Vec<Digest>, Error> {
        self.open_task(who, task).await?;
        if objects.len() > MISSING_MAX {
            return Err(Error::invalid(format!(
                "{} objects exceed the limit of {MISSING_MAX}",
                objects.len()
            )));
        }
        self.touch(&who.name, None).await?;
        let held = self.shared.blob.held(&task_hold(task)?).await?;
        let held: HashSet<Digest> = held.into_iter().map(|(digest, _)| digest).collect();
        Ok(objects.iter().filter(|object| !held.contains(object)).copied().collect())
    }

    /// Reserves room for a piece of `len` bytes; its body may be read only after this returned.
    ///
    /// # Errors
    /// Not found or conflict for the task; invalid argument above [`PIECE_LEN_MAX`] or when the task has uploaded more than its
    /// outputs can hold; exhausted when the store is full, or when too many bytes are in flight.
    /// # Cancel safety
    /// Safe: a dropped call keeps nothing.
    pub async fn upload(&self, who: &Identity, task: TaskId, len: u64) -> Result<Upload, Error> {
        self.upload_within(who, task, len, None).await
    }

    /// Waits, for as long as it takes, until a front-end may gather `len` bytes of a piece that its peer does not cut itself.
    ///
    /// # Errors
    /// None but that the budget is gone.
    /// # Cancel safety
    /// Safe: a dropped call keeps nothing.
    pub async fn room(&self, len: u64) -> Result<Room, Error> {
        loop {
            match self.shared.budget.reserve(len).await {
                Err(error) if error.kind() == ErrorKind::Exhausted => {}
                reserved => return reserved.map(|reservation| Room::of(len, reservation)),
            }
        }
    }

    /// [`Handle::upload`] of a piece that was gathered in `room`, which the caller keeps until it is stored.
    ///
    /// # Errors
    /// As [`Handle::upload`], but for too many bytes in flight; invalid argument for more bytes than the room is for.
    /// # Cancel safety
    /// Safe: a dropped call keeps nothing.
    pub async fn upload_gathered(
        &self,
        who: &Identity,
        task: TaskId,
        len: u64,
        room: &Room,
    ) -> Result<Upload, Error> {
        if len > room.len {
            return Err(Error::invalid(format!("{len} bytes were gathered in room for {}", room.len)));
        }
        self.upload_within(who, task, len, Some(room)).await
    }

    async fn upload_within(
        &self,
        who: &Identity,
        task: TaskId,
        len: u64,
        room: Option<&Room>,
    ) -> Result<Upload, Error> {
        let (run, standing) = self.open_task(who, task).await?;
        let hold = task_hold(task)?;
        self.touch(&who.name, None).await?;
        let of = Source::Task { run, task, site: who.name.clone() };
        let expected = self.expected(&standing)?;
        let upload = self.reserve(hold, len, self.allowed_bytes(&expected), of, room).await?;
        Ok(Upload { vetting: Vetting::of(expected.iter().flatten().map(|model| &**model)), ..upload })
    }

    /// Reserves room for a piece of a model an operator hands in; `upload` names what belongs together. An upload that rests
    /// for an hour is given up.
    ///
    /// # Errors
    /// As [`Handle::upload`].
    /// # Cancel safety
    /// Safe: a dropped call keeps nothing.
    pub async fn operator_upload(&self, who: &Identity, upload: &str, len: u64) -> Result<Upload, Error> {
        self.authorise(who, Role::Operator)?;
        let allowed = self.shared.settings.init_model_max.as_bytes();
        self.reserve(upload_hold(upload)?, len, allowed, Source::Operator, None).await
    }

    pub(super) async fn reserve(
        &self,
        hold: Hold,
        len: u64,
        allowed: u64,
        of: Source,
        room: Option<&Room>,
    ) -> Result<Upload, Error> {
        let reserved = self.reserve_room(&hold, len, allowed, room).await;
        let (writer, reservation) = reserved.inspect_err(|error| note(&self.shared, &of, error))?;
        let (vetting, shared) = (Vetting::default(), Arc::clone(&self.shared));
        Ok(Upload { writer, len, hold, of, vetting, shared, _reservation: reservation })
    }

    async fn reserve_room(
        &self,
        hold: &Hold,
        len: u64,
        allowed: u64,
        room: Option<&Room>,
    ) -> Result<(Box<dyn ObjectWriter>, Option<Reservation>), Error> {
        if len > PIECE_LEN_MAX {
            return Err(Error::invalid(format!(
                "a piece of {len} bytes exceeds the limit of {PIECE_LEN_MAX}"
            )));
        }
        let present: u64 = self.shared.blob.held(hold).await?.iter().map(|(_, len)| len).sum();
        if present.saturating_add(len) > allowed {
            let message =
                format!("{present} bytes are uploaded and {len} more exceed the {allowed} allowed here");
            return Err(Error::invalid(message));
        }
        let reservation = match room {
            Some(_) => None,
            None => Some(self.shared.budget.reserve(len).await?),
        };
        Ok((self.shared.blob.writer(hold, len).await?, reservation))
    }

    /// Whether a task of this participant's is open. No sign of life: it is asked on the participant's behalf.
    ///
    /// # Errors
    /// Unavailable while the run cannot be read.
    pub fn is_open(&self, site: &SiteName, task: TaskId) -> Result<bool, Error> {
        match self.find_task(site, task) {
            Ok((_, standing)) => Ok(matches!(standing, TaskStanding::Open(_))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The open assignment behind a task of the caller's. That it is not open is told only when that is durable.
    pub(crate) async fn open_task(
        &self,
        who: &Identity,
        task: TaskId,
    ) -> Result<(RunId, Box<Assignment>), Error> {
        self.authorise(who, Role::Participant)?;
        let (run, mut standing) = self.find_task(&who.name, task)?;
        if !matches!(standing, TaskStanding::Open(_)) {
            let site = who.name.clone();
            standing = self.look_at(run, move |state| state.task(task, &site)).await?;
        }
        match standing {
            TaskStanding::Open(assignment) => Ok((run, assignment)),
            TaskStanding::Accepted => Err(Error::conflict("the task was accepted already")),
            TaskStanding::Closed(reason) => Err(Error::conflict(format!("the task is closed: {reason}"))),
            _ => Err(Error::not_found("no such task")),
        }
    }

    /// The run a task belongs to, and how it stands. To its asker another participant's task does not exist; that it was asked
    /// for is noted.
    pub(crate) fn find_task(&self, site: &SiteName, task: TaskId) -> Result<(RunId, TaskStanding), Error> {
        let known = self.shared.tasks.find(task);
        if let Some((run, owner)) = &known
            && owner != site
        {
            let text = format!("it spoke of task {task}, which is another participant's");
            tracing::warn!(%site, %run, %task, %owner, "a participant spoke of another's task");
            self.shared.incident(site, Kind::ForeignTask, Some(*run), &text);
            return Err(Error::not_found("no such task"));
        }
        if let Some((run, _)) = known {
            return match self.shared.with_run(run, |state| state.task(task, site))? {
                TaskStanding::Unknown => Err(Error::not_found("no such task")),
                standing => Ok((run, standing)),
            };
        }
        for slot in self.shared.all_runs() {
            // A run that cannot be read now may be the task's: better to come again than to be sent away.
            match slot.read(|state| state.task(task, site))? {
                TaskStanding::Unknown => {}
                standing => return Ok((slot.run, standing)),
            }
        }
        Err(Error::not_found("no such task"))
    }

    /// The models that the outputs of a task must be like, where they must.
    fn expected(&self, assignment: &Assignment) -> Result<Vec<Option<Arc<Manifest>>>, Error> {
        let expected = |output: &OutputSlot| gate::expected_manifest(&self.shared, assignment, &output.slot);
        assignment.outputs.iter().map(expected).collect()
    }

    /// How many bytes may be uploaded under a task: what its outputs hold, and one piece beyond for a re-cut upload.
    fn allowed_bytes(&self, expected: &[Option<Arc<Manifest>>]) -> u64 {
        let any = self.shared.settings.init_model_max.as_bytes();
        let lens = expected.iter().map(|model| model.as_ref().map_or(any, |model| model.byte_len()));
        lens.fold(PIECE_LEN_MAX, u64::saturating_add)
    }
}
