//! What is asked of the writer.

use sheaf_domain::{EntryDraft, RunId, SiteName, SubmitOutcome, Submission};
use sheaf_engine::Event;
use tokio::sync::oneshot;

use crate::Error;

/// Something the writer is to journal and apply. Answers come after the commit.
#[derive(Debug)]
pub(crate) enum Command {
    /// An event of one run.
    Event { run: RunId, event: Box<Event>, reply: Option<Reply<()>> },
    /// A submission that passed the gate: accepted, repeated or too late is decided here.
    Submit { run: RunId, site: SiteName, submission: Box<Submission>, reply: Reply<SubmitOutcome> },
    /// A new run; its first event.
    Create { run: RunId, event: Box<Event>, reply: Reply<()> },
    /// A participant came, for every run.
    Present { site: SiteName },
    /// A participant went, for every run.
    Gone { site: SiteName, reason: String, revoked: bool },
    /// An entry of the federation's own journal.
    Federation { draft: EntryDraft, reply: Option<Reply<()>> },
}

/// Where an answer goes; the asker may have gone away.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;
