//! Objects on their way in and out: bytes are durable before they count, and are read only by those who may.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use sheaf_blob::{Hold, ObjectWriter};
use sheaf_domain::{Digest, ErrorKind, Principal, RunId, SiteName};
use sheaf_relay::{Effects, Freed, Wanted};

use super::Relays;
use super::slot::Slot;
use crate::budget::Reservation;
use crate::outbox::lock;
use crate::shared::hold;
use crate::{Error, PIECE_LEN_MAX, Room};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest object, in bytes: what a message of the stacks that relay can carry, and some room around it.
pub const OBJECT_LEN_MAX: u64 = (1 << 31) - 4096;

/// How many objects of a run are made durable at once.
pub(super) const INTAKES_MAX: u32 = 1024;
/// An object up to this long is read for its reader alone, beside the budget for what is handed out.
const SMALL_LEN: u64 = 64 * 1024;
/// Longer objects that one participant, or the application of one run, reads at once; each has a share of that budget.
const READS_MAX: usize = 2;
/// Readers that are remembered before those who read nothing are forgotten.
const READERS_KEPT_MAX: usize = 1024;

/// What becomes of an object that is offered.
#[derive(Debug)]
pub enum Bring {
    /// It is taken in.
    Wanted(Box<Intake>),
    /// This sender brought it before.
    Brought,
    /// Nobody asked this sender for it.
    NotWanted,
}

/// An object on its way in; dropped before [`Intake::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Intake {
    writer: Box<dyn ObjectWriter>,
    hold: Hold,
    who: Principal,
    object: Digest,
    slot: Arc<Slot>,
    relays: Relays,
    /// The objects it must name, as it was announced.
    pub children: Vec<Digest>,
    _reservation: Reservation,
}

impl Intake {
    /// Takes in the next bytes.
    ///
    /// # Errors
    /// When they are more than declared, or cannot be stored.
    /// # Cancel safety
    /// Not safe: a dropped write leaves the intake unusable; drop it too.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.writer.write(bytes).await.map_err(Error::from)
    }

    /// Whether an upload of this name is under way for whoever brings the object.
    ///
    /// # Errors
    /// Unavailable while the run is being rebuilt.
    pub fn is_of_session(&self, name: &str) -> Result<bool, Error> {
        self.slot.read(|state| state.is_session(&self.who, name))
    }

    /// Ends the object; returns when it is durable, with whether anybody still needs it.
    ///
    /// # Errors
    /// When length or digest are not as declared, or it cannot be stored; nothing is kept then.
    /// # Cancel safety
    /// A dropped call may still store the object.
    pub async fn finish(self) -> Result<bool, Error> {
        let Intake { writer, hold, who, object, slot, relays, .. } = self;
        // Nothing is freed between the bytes being durable and the run knowing of them.
        let permit = slot.gate.acquire().await.map_err(|_| Error::shutting_down())?;
        writer.finish(Some(object)).await?;
        let brought = slot.change(|state| {
            let session = state.session_for(&who, &object).map(str::to_owned);
            (session, state.bring(&who, &object))
        });
        // While the run is being rebuilt the holds speak for the object, and the rebuilt state hears of it.
        let (session, effects) = brought?;
        drop(permit);
        let Some(effects) = effects else {
            relays.shared.release(&hold).await;
            return Ok(false);
        };
        if let Some(session) = session {
            relays.refresh_upload(&slot, &session);
        }
        relays.take_effect(&slot, effects);
        Ok(true)
    }
}

/// What is known of an object that is asked for.
#[derive(Debug)]
pub enum Found {
    /// Nothing, or nothing that the asker may know.
    Unknown,
    /// Its bytes are still to come.
    Awaited,
    /// It is there.
    There(ObjectReader),
}

/// Reads an object piece by piece; readers of one object share its bytes.
#[derive(Debug)]
pub struct ObjectReader {
    object: Digest,
    len: u64,
    offset: u64,
    /// The first bytes, until they are taken.
    first: Option<Bytes>,
    relays: Relays,
    /// The reader's turn, for a long object.
    _turn: Option<OwnedSemaphorePermit>,
}

impl ObjectReader {
    /// The object's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When they cannot be read, also because the object was freed meanwhile.
    /// # Cancel safety
    /// Safe: what a dropped call read is read again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.offset == self.len {
            return Ok(None);
        }
        let bytes = match self.first.take() {
            Some(first) => first,
            None => self.read().await?,
        };
        self.offset += bytes.len() as u64;
        Ok(Some(bytes))
    }

    async fn read(&self) -> Result<Bytes, Error> {
        let shared = &self.relays.shared;
        if self.len <= SMALL_LEN {
            return Ok(shared.blob.read(&self.object, self.offset, self.len - self.offset).await?);
        }
        shared.tiles.read_object(&*shared.blob, &self.object, self.len, self.offset).await
    }
}

impl Relays {
    /// Room for `len` bytes of a message that is held whole.
    ///
    /// # Errors
    /// Exhausted when too many bytes are in flight.
    /// # Cancel safety
    /// Safe: a dropped call keeps nothing.
    pub async fn room(&self, len: u64) -> Result<Room, Error> {
        Ok(Room::of(len, self.shared.budget.reserve(len).await?))
    }

    /// Reserves room for an object of `len` bytes that `who` offers; its body may be read only after this returned.
    ///
    /// # Errors
    /// Not found for the run; conflict when it is over; invalid argument above [`OBJECT_LEN_MAX`]; exhausted when the
    /// store is full, or when too many bytes are in flight.
    /// # Cancel safety
    /// Safe: a dropped call keeps nothing.
    pub async fn bring(&self, who: &Principal, run: RunId, object: Digest, len: u64) -> Result<Bring, Error> {
        let slot = self.slot(run)?;
        let (over, wanted, children) = slot.read(|state| {
            let children = state.children(&object).map(<[Digest]>::to_vec).unwrap_or_default();
            (state.application().phase.is_over(), state.is_wanted(who, &object), children)
        })?;
        if over {
            return Err(Error::conflict(format!("run {run} is over")));
        }
        match wanted {
            Wanted::No => return Ok(Bring::NotWanted),
            Wanted::Brought => return Ok(Bring::Brought),
            Wanted::Yes => {}
        }
        if len > OBJECT_LEN_MAX {
            let message = format!("an object of {len} bytes exceeds the limit of {OBJECT_LEN_MAX}");
            return Err(Error::invalid(message));
        }
        // What is long passes to the disk in buffers: no more of it than a piece is on its way at a time.
        let reservation = self.shared.budget.reserve(len.min(PIECE_LEN_MAX)).await?;
        let hold = object_hold(run, &object, who)?;
        let writer = self.shared.blob.writer(&hold, len).await?;
        let (who, relays) = (who.clone(), self.clone());
        Ok(Bring::Wanted(Box::new(Intake {
            writer,
            hold,
            who,
            object,
            slot,
            relays,
            children,
            _reservation: reservation,
        })))
    }

    /// Looks for an object of a run that `who` may read.
    ///
    /// # Errors
    /// Not found for the run; when the store cannot tell; exhausted when too much is being handed out.
    /// # Cancel safety
    /// Safe.
    pub async fn find(&self, who: &Principal, run: RunId, object: Digest) -> Result<Found, Error> {
        let slot = self.slot(run)?;
        let (may_read, is_there) =
            slot.read(|state| (state.may_read(who, &object), state.is_there(&object)))?;
        if !may_read {
            return Ok(Found::Unknown);
        }
        if !is_there {
            return Ok(Found::Awaited);
        }
        match self.shared.blob.len(&object).await? {
            Some(len) => {
                let turn = if len > SMALL_LEN { Some(self.reading_turn(who).await?) } else { None };
                let relays = self.clone();
                let mut reader = ObjectReader { object, len, offset: 0, first: None, relays, _turn: turn };
                // Where there is no room for it now, that can still be said.
                reader.first = Some(reader.read().await?);
                Ok(Found::There(reader))
            }
            // Freed a moment ago.
            None => Ok(Found::Unknown),
        }
    }

    /// A turn to read a long object: one who does not take what he asked for keeps no more from the others than his turns.
    async fn reading_turn(&self, who: &Principal) -> Result<OwnedSemaphorePermit, Error> {
        let turns = {
            let mut readers = lock(&self.core.readers);
            if readers.len() >= READERS_KEPT_MAX {
                readers.retain(|_, turns| turns.strong_count() > 0);
            }
            let kept = readers.get(who).and_then(Weak::upgrade);
            kept.unwrap_or_else(|| {
                let turns = Arc::new(Semaphore::new(READS_MAX));
                readers.insert(who.clone(), Arc::downgrade(&turns));
                turns
            })
        };
        let wait = self.shared.settings.inflight_wait.as_duration();
        match tokio::time::timeout(wait, turns.acquire_owned()).await {
            Ok(turn) => turn.map_err(|_| Error::shutting_down()),
            Err(_) => Err(Error::new(
                ErrorKind::Exhausted,
                format!("{READS_MAX} long objects are being read already; take those first"),
            )),
        }
    }

    /// Stores a whole small object in the name of `who`.
    pub(super) async fn keep(
        &self,
        who: &Principal,
        run: RunId,
        object: Digest,
        bytes: Bytes,
    ) -> Result<(), Error> {
        match self.bring(who, run, object, bytes.len() as u64).await? {
            Bring::Wanted(mut intake) => {
                intake.write(bytes).await?;
                intake.finish().await.map(drop)
            }
            Bring::Brought | Bring::NotWanted => Ok(()),
        }
    }

    /// Stores the bundle of a run that is about to be.
    pub(super) async fn keep_bundle(&self, run: RunId, bundle: Bytes) -> Result<Digest, Error> {
        let mut writer = self.shared.blob.writer(&bundle_hold(run)?, bundle.len() as u64).await?;
        writer.write(bundle).await?;
        Ok(writer.finish(None).await?.digest)
    }

    /// What follows from a change that is durable: waiting askers are woken, bytes that nobody needs are freed.
    pub(super) fn take_effect(&self, slot: &Arc<Slot>, effects: Effects) {
        for recipient in &effects.wake {
            match recipient {
                Principal::Participant(site) => self.core.online.wake(site),
                _ => slot.news(),
            }
        }
        if !effects.freed.is_empty() {
            self.shared.scope.spawn(free(self.clone(), slot.run, effects.freed));
        }
    }

    fn refresh_upload(&self, slot: &Slot, session: &str) {
        let until = self.shared.clock.monotonic() + self.settings().upload_ttl.as_duration();
        if let Some(deadline) = lock(&slot.pulse).uploads.get_mut(session) {
            *deadline = until;
        }
    }
}

/// Frees objects, but for those that were brought anew meanwhile.
async fn free(relays: Relays, run: RunId, freed: Vec<Freed>) {
    let Ok(slot) = relays.slot(run) else { return };
    let Ok(_alone) = slot.gate.acquire_many(INTAKES_MAX).await else { return };
    for gone in freed {
        let needed = slot.read(|state| state.is_there(&gone.object)).unwrap_or(true);
        for who in gone.brought_by.iter().filter(|_| !needed) {
            // A name that was made once is made again.
            if let Ok(hold) = object_hold(run, &gone.object, who) {
                relays.shared.release(&hold).await;
            }
        }
    }
}

/// The hold of whoever brought an object of a run.
fn object_hold(run: RunId, object: &Digest, who: &Principal) -> Result<Hold, Error> {
    match who {
        Principal::Participant(site) => hold(format!("relay/{run}/{object}/site/{site}")),
        Principal::ServerApp(_) => hold(format!("relay/{run}/{object}/application")),
        _ => Err(Error::new(ErrorKind::PermissionDenied, "operators bring no objects")),
    }
}

/// Reads the name of [`object_hold`] back.
pub(super) fn object_of(hold: &Hold) -> Option<(RunId, Digest, Principal)> {
    let mut parts = hold.as_str().split('/');
    if parts.next() != Some("relay") {
        return None;
    }
    let run: RunId = parts.next()?.parse().ok()?;
    let object = parts.next()?.parse().ok()?;
    match (parts.next()?, parts.next()) {
        ("application", None) => Some((run, object, Principal::ServerApp(run))),
        ("site", Some(site)) => Some((run, object, Principal::Participant(SiteName::new(site).ok()?))),
        _ => None,
    }
}

/// The hold on the bundle of a run.
pub(super) fn bundle_hold(run: RunId) -> Result<Hold, Error> {
    hold(format!("relay/{run}/bundle"))
}
