//! What is asked of the writer.

use sheaf_domain::{EntryDraft, RunId, SiteName, Submission, SubmitOutcome};
use sheaf_engine::Event;
use tokio::sync::oneshot;

use crate::{Error, RemovedRun};

/// Something the writer is to journal and apply. Answers come after the commit.
#[derive(Debug)]
pub(crate) enum Command {
    /// An event of one run.
    Event { run: RunId, event: Box<Event>, reply: Option<Reply<()>> },
    /// A submission that passed the gate: accepted, repeated or too late is decided here.
    Submit { run: RunId, site: SiteName, submission: Box<Submission>, reply: Reply<SubmitOutcome> },
    /// A new run; its first event.
    Create { run: RunId, event: Box<Event>, reply: Reply<()> },
    /// More rounds for a run, and word of who is there.
    Extend { run: RunId, rounds: u32, reply: Reply<()> },
    /// The end of an ended run: its journal goes, and the federation's says so.
    Remove { run: RunId, by: SiteName, reply: Reply<RemovedRun> },
    /// The end of a relayed run that its writer let go of; without an epoch, of one whose journal is broken.
    RemoveRelay { run: RunId, lease_epoch: Option<u64>, by: SiteName, reply: Reply<RemovedRun> },
    /// A participant came, for every run.
    Present { site: SiteName },
    /// A participant went, for every run.
    Gone { site: SiteName, reason: String },
    /// A participant may not come in any more, for every run.
    Revoked { site: SiteName, reason: String },
    /// An entry of the federation's own journal.
    Federation { draft: EntryDraft, reply: Option<Reply<()>> },
    /// A look at what is durable: taken when everything before it is durable or undone, and nothing else has begun.
    Look(Look),
}

/// What is to be looked at, and whom to tell.
pub(crate) struct Look(pub(crate) Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// Where an answer goes; the asker may have gone away.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;
