//! Relayed runs: an application outside decides, and what it and the participants say to each other travels as letters.
//!
//! [`Relays`] is to a front-end with such a stack what [`crate::Handle`] is for coordinated runs. One writer task owns all transitions: what a
//! caller is told is durable. Bytes go to the blob store, each object under the hold of whoever brought it, so that after a
//! restart the holds say who has brought what. It knows no stack's words, starts no application, and opens no letter.

mod application;
mod coordinated;
mod deadlines;
mod letters;
mod logbook;
mod objects;
mod online;
mod participants;
mod recover;
mod removal;
mod slot;
mod transaction;
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};

use sheaf_domain::{Principal, RunId, Span};
use sheaf_runtime::TaskScope;
use tokio::sync::{Semaphore, mpsc};

use crate::Error;
use crate::shared::Shared;

pub use application::{Claimed, NewRelay, RelayOverview, Seat, Token};
pub(crate) use coordinated::Beginning;
pub use coordinated::{Question, Reply};
pub use letters::{Answered, Handed, Posted};
pub use logbook::{LogCursor, LogLine};
pub use objects::{Bring, Found, Intake, OBJECT_LEN_MAX, ObjectReader};
pub(crate) use participants::is_known_by_key;
pub use participants::{KeyCard, KeyFacts, KeyOverview};

use online::Online;
use slot::{Broken, Slots};
use writer::{Command, RelayWriter};

/// How many commands wait for the writer at most; callers wait beyond it.
const QUEUE_LEN: usize = 1024;

/// What paces relayed runs.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// How long a claim lasts before the application has reported for work.
    pub claim_ttl: Span,
    /// How long an application at work may be silent.
    pub beat_ttl: Span,
    /// How long an upload of objects may rest.
    pub upload_ttl: Span,
    /// Bytes of an application's log that are kept; what comes beyond is dropped, and the log says so.
    pub log_len_max: u64,
    /// Where logs are written; nothing is kept of them without it.
    pub log_dir: Option<std::path::PathBuf>,
}

impl Default for RelaySettings {
    fn default() -> RelaySettings {
        RelaySettings {
            claim_ttl: Span::from_secs(30),
            beat_ttl: Span::from_secs(60),
            upload_ttl: Span::from_secs(180),
            log_len_max: 64 << 20,
            log_dir: None,
        }
    }
}

/// A handle on relayed runs.
#[derive(Debug, Clone)]
pub struct Relays {
    pub(crate) shared: Arc<Shared>,
    core: Arc<Core>,
}

/// What the writer and every clone of the handle share.
#[derive(Debug)]
pub(crate) struct Core {
    slots: Slots,
    broken: Broken,
    /// Companions of coordinated runs that are about to be.
    beginning: Mutex<HashSet<RunId>>,
    online: Online,
    /// Who reads long objects: its turns.
    readers: Mutex<HashMap<Principal, Weak<Semaphore>>>,
    commands: mpsc::Sender<Command>,
}

impl Relays {
    /// The pool for a front-end's work that would hold up I/O.
    pub fn compute(&self) -> &sheaf_runtime::Compute {
        &self.shared.compute
    }

    /// Rebuilds every relayed run from its journal and starts the writer in `scope`.
    ///
    /// # Errors
    /// When the store cannot be read or another server holds a journal.
    pub(crate) async fn start(
        shared: Arc<Shared>,
        holder: String,
        scope: &TaskScope,
    ) -> Result<Relays, Error> {
        let (commands, queue) = mpsc::channel(QUEUE_LEN);
        let core = Arc::new(Core {
            slots: Slots::default(),
            broken: Broken::default(),
            beginning: Mutex::default(),
            online: Online::default(),
            readers: Mutex::default(),
            commands,
        });
        // Weak: what all share must not keep itself.
        let _ = shared.relays.set(Arc::downgrade(&core));
        let relays = Relays { shared, core };
        let heads = recover::load(&relays, &holder).await?;
        let writer = RelayWriter::new(relays.clone(), holder, heads);
        scope.spawn(writer.run(queue));
        Ok(relays)
    }

    /// The handle on relayed runs of a service.
    ///
    /// # Errors
    /// Unavailable when the service ends.
    pub(crate) fn of(shared: &Arc<Shared>) -> Result<Relays, Error> {
        let core = shared.relays.get().and_then(std::sync::Weak::upgrade).ok_or_else(Error::shutting_down)?;
        Ok(Relays { shared: Arc::clone(shared), core })
    }

    fn settings(&self) -> &RelaySettings {
        &self.shared.settings.relay
    }

    /// How long a request is held that asks to be: what the server allows at most.
    fn hold(&self, wanted: std::time::Duration) -> std::time::Duration {
        wanted.min(self.shared.settings.hold_max.as_duration())
    }

    /// Every relayed run, oldest first.
    fn runs(&self) -> Vec<Arc<slot::Slot>> {
        self.core.slots.all()
    }

    fn slot(&self, run: RunId) -> Result<Arc<slot::Slot>, Error> {
        self.core.slots.get(run).ok_or_else(|| Error::not_found(format!("no relayed run {run}")))
    }
}
