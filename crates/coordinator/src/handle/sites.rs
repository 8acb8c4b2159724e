//! What participants call: beats, work, the bytes of models, goodbye.

use std::sync::Arc;

use bytes::Bytes;
use sheaf_domain::{
    Assignment, ByteSpan, Identity, Manifest, Role, SiteName, SlotName, Span, TaskId, VersionRef,
};

use crate::command::Command;
use crate::{Error, Handle, READ_LEN_MAX, Withdrawn, gate};

/// The longest client description kept, in characters.
const CLIENT_LEN_MAX: usize = 128;
/// The most tasks a participant may say it has.
const HAVE_MAX: usize = 1024;

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The tasks the participant has.
    pub working: Vec<TaskId>,
    /// What the client is, such as `sheaf/0.1.0`.
    pub client: String,
}

/// What a sign of life is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeatReply {
    /// How often to beat.
    pub beat_every: Span,
    /// Tasks to drop.
    pub withdrawn: Vec<Withdrawn>,
}

/// Something for a participant.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// Work it does not have yet.
    Work(Box<WorkOrder>),
    /// Work to drop.
    Withdraw(Withdrawn),
}

/// An assignment with what a front-end needs to hand it out.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkOrder {
    /// The assignment.
    pub assignment: Assignment,
    /// The tensors of each input.
    pub inputs: Vec<(SlotName, Arc<Manifest>)>,
    /// The tensors each output must have; none where any will do.
    pub expects: Vec<(SlotName, Option<Arc<Manifest>>)>,
    /// How long until the stage closes at the latest.
    pub remaining: Option<Span>,
}

impl Handle {
    /// Notes a sign of life.
    ///
    /// # Errors
    /// Permission denied; invalid argument for too many tasks.
    /// # Cancel safety
    /// Safe: a dropped call may still count as a sign of life.
    pub async fn beat(&self, who: &Identity, beat: Beat) -> Result<BeatReply, Error> {
        self.authorise(who, Role::Participant)?;
        check_have(&beat.working)?;
        let client: String = beat.client.chars().filter(|c| !c.is_control()).take(CLIENT_LEN_MAX).collect();
        self.touch(&who.name, Some(&client)).await?;
        Ok(BeatReply {
            beat_every: self.shared.settings.beat_every,
            withdrawn: self.shared.outbox(&who.name).withdrawn(&beat.working),
        })
    }

    /// Hands out what is waiting for a participant, oldest first; holds the request while there is nothing.
    ///
    /// An assignment is handed out again on every call that does not name it in `have`, until it is answered.
    ///
    /// # Errors
    /// Permission denied; invalid argument for too many tasks.
    /// # Cancel safety
    /// Safe: handing out takes nothing away.
    pub async fn next(&self, who: &Identity, have: &[TaskId], hold: Span) -> Result<Vec<Delivery>, Error> {
        self.authorise(who, Role::Participant)?;
        check_have(have)?;
        self.touch(&who.name, None).await?;
        let outbox = self.shared.outbox(&who.name);
        let mut changes = outbox.watch();
        let hold = hold.min(self.shared.settings.hold_max).as_duration();
        let deadline = tokio::time::Instant::now() + hold;
        loop {
            changes.mark_unchanged();
            let deliveries = self.deliveries(&who.name, have)?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            tokio::select! {
                biased;
                () = self.shared.scope.cancelled() => return Ok(Vec::new()),
                refused = self.shared.registry.shut_out(who) => return Err(refused),
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(Vec::new()),
            }
        }
    }

    fn deliveries(&self, site: &SiteName, have: &[TaskId]) -> Result<Vec<Delivery>, Error> {
        let outbox = self.shared.outbox(site);
        let mut deliveries: Vec<Delivery> =
            outbox.withdrawn(have).into_iter().map(Delivery::Withdraw).collect();
        for assignment in outbox.work(have) {
            if let Some(order) = self.work_order(&assignment)? {
                deliveries.push(Delivery::Work(Box::new(order)));
            }
        }
        Ok(deliveries)
    }

    /// The assignment with its manifests; nothing if the run has moved on since.
    fn work_order(&self, assignment: &Assignment) -> Result<Option<WorkOrder>, Error> {
        let mut inputs = Vec::with_capacity(assignment.inputs.len());
        for input in &assignment.inputs {
            let version = &input.version;
            let manifest = self.shared.with_run(version.run, |state| {
                state.version(&version.lineage, version.version).map(|found| Arc::clone(&found.manifest))
            })?;
            let Some(manifest) = manifest else { return Ok(None) };
            inputs.push((input.slot.clone(), manifest));
        }
        let mut expects = Vec::with_capacity(assignment.outputs.len());
        for output in &assignment.outputs {
            expects.push((
                output.slot.clone(),
                gate::expected_manifest(&self.shared, assignment, &output.slot)?,
            ));
        }
        let now = self.shared.clock.now();
        Ok(Some(WorkOrder {
            assignment: assignment.clone(),
            inputs,
            expects,
            remaining: assignment.deadline.map(|deadline| deadline.since(now)),
        }))
    }

    /// The tensors of a version the caller may read.
    ///
    /// # Errors
    /// Not found when it does not exist, is not kept, or is not among the participant's assignments.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn manifest(&self, who: &Identity, version: &VersionRef) -> Result<Arc<Manifest>, Error> {
        match who.role {
            Role::Participant => {
                self.authorise(who, Role::Participant)?;
                if !self.shared.outbox(&who.name).hands_out(version) {
                    return Err(Error::not_found(format!("no version {version} among your assignments")));
                }
            }
            _ => self.authorise(who, Role::Operator)?,
        }
        let found = self.shared.with_run(version.run, |state| {
            state.version(&version.lineage, version.version).map(|found| Arc::clone(&found.manifest))
        })?;
        found.ok_or_else(|| Error::not_found(format!("version {version} is not kept")))
    }

    /// Reads a stretch of a version's canonical byte stream; shorter where the stream ends.
    ///
    /// # Errors
    /// As [`Handle::manifest`]; invalid argument above [`READ_LEN_MAX`].
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn read_version(
        &self,
        who: &Identity,
        version: &VersionRef,
        span: ByteSpan,
    ) -> Result<Bytes, Error> {
        if span.len > READ_LEN_MAX {
            return Err(Error::invalid(format!(
                "a read of {} bytes exceeds the limit of {READ_LEN_MAX}",
                span.len
            )));
        }
        let manifest = self.manifest(who, version).await?;
        let bytes = self.shared.tiles.read(&*self.shared.blob, version, &manifest, span).await?;
        if who.role == Role::Participant {
            self.touch(&who.name, None).await?;
        }
        metrics::counter!(sheaf_telemetry::names::DOWNLOAD_BYTES_TOTAL).increment(bytes.len() as u64);
        Ok(bytes)
    }

    /// Says goodbye: the participant counts as absent at once.
    ///
    /// # Errors
    /// Permission denied.
    /// # Cancel safety
    /// Safe: a dropped call has counted wholly or not at all.
    pub async fn leave(&self, who: &Identity) -> Result<(), Error> {
        self.lose(who, "it left").await
    }

    /// Says that a participant, for which a front-end acts, is not there any more: it counts as absent at once, for this reason.
    ///
    /// # Errors
    /// Permission denied.
    /// # Cancel safety
    /// Safe: a dropped call has counted wholly or not at all.
    pub async fn lose(&self, who: &Identity, reason: &str) -> Result<(), Error> {
        self.authorise(who, Role::Participant)?;
        let permit = self.shared.commands.reserve().await.map_err(|_| Error::shutting_down())?;
        if self.shared.presence.leave(&who.name) {
            tracing::info!(site = %who.name, reason, "participant gone");
            permit.send(Command::Gone { site: who.name.clone(), reason: reason.to_owned() });
        }
        Ok(())
    }

    /// Notes a sign of life; a participant that was not present becomes so in every run.
    pub(crate) async fn touch(&self, site: &SiteName, client: Option<&str>) -> Result<(), Error> {
        let shared = &self.shared;
        // A place in the queue comes first: who counts as present has been or will be reported.
        let permit = match shared.presence.is_present(site) {
            true => None,
            false => Some(shared.commands.reserve().await.map_err(|_| Error::shutting_down())?),
        };
        let came = shared.presence.touch(site, shared.clock.monotonic(), shared.clock.now(), client);
        match permit {
            Some(permit) if came => {
                tracing::info!(%site, "participant present");
                permit.send(Command::Present { site: site.clone() });
            }
            // It fell silent in between: counted out again, its next request brings it back.
            None if came => {
                shared.presence.leave(site);
            }
            _ => {}
        }
        Ok(())
    }
}

fn check_have(have: &[TaskId]) -> Result<(), Error> {
    if have.len() > HAVE_MAX {
        return Err(Error::invalid(format!("{} tasks exceed the limit of {HAVE_MAX}", have.len())));
    }
    Ok(())
}
