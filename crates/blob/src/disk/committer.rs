//! The one task that changes the table: it gathers what waits, makes all of it durable at once, then tells everybody.
//!
//! Order of a commit: flush the spool files that new objects lie in, append one frame to the index, flush it, change
//! the table, reply. A failure before the table is changed fails everyone in the batch and changes nothing. Room
//! whose fate on the disk is unknown is kept out of use until the index is written anew.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sheaf_domain::Digest;
use sheaf_runtime::Compute;
use sheaf_runtime::crash::{self, Point};
use tokio::sync::{mpsc, oneshot};

use super::index::{Index, Record};
use super::spool::Extent;
use crate::table::Table;
use crate::{Error, Hold};

/// The table of a disk store.
pub(crate) type DiskTable = Table<Arc<Extent>>;

/// A change somebody waits for.
#[derive(Debug)]
pub(crate) enum Change {
    /// Keep a written, verified object.
    Put {
        digest: Digest,
        len: u64,
        extent: Arc<Extent>,
        hold: Hold,
        done: oneshot::Sender<Result<(), Error>>,
    },
    /// Add a hold to a stored object.
    Hold { digest: Digest, hold: Hold, done: oneshot::Sender<Result<bool, Error>> },
    /// End a hold.
    Release { hold: Hold, done: oneshot::Sender<Result<u64, Error>> },
}

/// How many changes may wait.
pub(crate) const QUEUE_LEN: usize = 1024;
/// How many changes are made durable at once, at most.
const BATCH_LEN_MAX: usize = 1024;

/// Runs until every sender of changes is gone.
pub(crate) async fn run(mut changes: mpsc::Receiver<Change>, committer: Committer) {
    // A pool of its own: readers and hashing never delay a commit.
    let pool = Compute::new(1);
    let mut committer = committer;
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(change) => change,
            None => match changes.recv().await {
                Some(change) => change,
                None => return,
            },
        };
        let batch = gather(first, &mut changes, &mut next);
        let done = pool.run(move || {
            committer.commit(batch);
            committer
        });
        match done.await {
            Ok(back) => committer = back,
            Err(_) => {
                tracing::error!("a commit was cut off; the blob store takes no more changes");
                return;
            }
        }
    }
}

/// Takes what waits behind `first`. A batch never has an addition behind a release, so that what is stored when the
/// batch begins, and what it adds, is all there is to know about each addition.
fn gather(first: Change, changes: &mut mpsc::Receiver<Change>, next: &mut Option<Change>) -> Vec<Change> {
    let mut releasing = matches!(first, Change::Release { .. });
    let mut batch = vec![first];
    while batch.len() < BATCH_LEN_MAX {
        let Ok(change) = changes.try_recv() else { break };
        let release = matches!(change, Change::Release { .. });
        if releasing && !release {
            *next = Some(change);
            break;
        }
        releasing = release;
        batch.push(change);
    }
    batch
}

/// What commits batches.
#[derive(Debug)]
pub(crate) struct Committer {
    table: Arc<Mutex<DiskTable>>,
    index: Index,
    /// Room that a frame of unknown fate may point into.
    limbo: Vec<Arc<Extent>>,
}

impl Committer {
    pub(crate) fn new(table: Arc<Mutex<DiskTable>>, index: Index) -> Committer {
        Committer { table, index, limbo: Vec::new() }
    }

    fn commit(&mut self, batch: Vec<Change>) {
        if self.index.is_given_up()
            && let Err(error) = self.rewrite()
        {
            batch.into_iter().for_each(|change| change.fail(&error));
            return;
        }
        let batch = self.flush_objects(batch);
        crash::reached(Point::PiecesFlushed);
        let body = self.encode(&batch);
        if !body.is_empty()
            && let Err(error) = self.index.append(&body)
        {
            for change in batch {
                if let Change::Put { extent, .. } = &change
                    && self.index.is_given_up()
                {
                    self.limbo.push(Arc::clone(extent));
                }
                change.fail(&error);
            }
            return;
        }
        crash::reached(Point::IndexAppended);
        self.apply(batch);
        if self.index.is_mostly_garbage()
            && let Err(error) = self.rewrite()
        {
            tracing::warn!(error = %error, "the index could not be compacted");
        }
    }

    /// Flushes the files that new objects lie in; fails the objects whose file could not be flushed.
    fn flush_objects(&self, batch: Vec<Change>) -> Vec<Change> {
        let mut flushed: HashMap<u32, Result<(), Error>> = HashMap::new();
        let mut kept = Vec::with_capacity(batch.len());
        for change in batch {
            let file = match &change {
                Change::Put { digest, extent, .. } if !self.lock().contains(digest) => extent.file(),
                _ => None,
            };
            let result =
                file.map_or(Ok(()), |file| flushed.entry(file.id).or_insert_with(|| file.sync()).clone());
            match result {
                Ok(()) => kept.push(change),
                Err(error) => change.fail(&error),
            }
        }
        kept
    }

    /// The records of a batch, as bytes.
    fn encode(&self, batch: &[Change]) -> Vec<u8> {
        let table = self.lock();
        let mut body = Vec::new();
        let (mut added, mut touched) = (HashSet::new(), HashSet::new());
        for change in batch {
            let record = match change {
                Change::Put { digest, len, extent, hold, .. } => {
                    touched.insert(hold);
                    if table.contains(digest) || !added.insert(*digest) {
                        (!table.is_held_by(digest, hold))
                            .then(|| Record::Hold { digest: *digest, hold: hold.clone() })
                    } else {
                        let (file, offset) = extent.position();
                        Some(Record::Put { digest: *digest, file, offset, len: *len, hold: hold.clone() })
                    }
                }
                Change::Hold { digest, hold, .. } => {
                    let stored = table.contains(digest) || added.contains(digest);
                    (stored && !table.is_held_by(digest, hold)).then(|| {
                        touched.insert(hold);
                        Record::Hold { digest: *digest, hold: hold.clone() }
                    })
                }
                Change::Release { hold, .. } => (table.has_hold(hold) || touched.contains(hold))
                    .then(|| Record::Release { hold: hold.clone() }),
            };
            if let Some(record) = record {
                record.encode(&mut body);
            }
        }
        body
    }

    /// Changes the table as the frame just made durable says, and replies. Room that became free is free before
    /// anybody hears of it.
    fn apply(&self, batch: Vec<Change>) {
        let mut table = self.lock();
        for change in batch {
            match change {
                Change::Put { digest, len, extent, hold, done } => {
                    drop(table.put(digest, extent, len, &hold));
                    reply(done, Ok(()));
                }
                Change::Hold { digest, hold, done } => reply(done, Ok(table.hold(&digest, &hold))),
                Change::Release { hold, done } => {
                    let freed = table.release(&hold).iter().map(|object| object.len).sum();
                    reply(done, Ok(freed));
                }
            }
        }
    }

    fn rewrite(&mut self) -> Result<(), Error> {
        let records = records(&self.lock());
        self.index.rewrite(records.into_iter())?;
        self.limbo.clear();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, DiskTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change {
    fn fail(self, error: &Error) {
        match self {
            Change::Put { done, extent, .. } => {
                drop(extent);
                reply(done, Err(error.clone()));
            }
            Change::Hold { done, .. } => reply(done, Err(error.clone())),
            Change::Release { done, .. } => reply(done, Err(error.clone())),
        }
    }
}

fn reply<T>(done: oneshot::Sender<Result<T, Error>>, result: Result<T, Error>) {
    // Whoever asked may have gone away; what was done stays done.
    drop(done.send(result));
}

/// The shortest list of records that makes `table`.
pub(crate) fn records(table: &DiskTable) -> Vec<Record> {
    let mut put = HashSet::new();
    let mut records = Vec::with_capacity(table.pairs());
    for (hold, digests) in table.holds() {
        for digest in digests {
            let first = put.insert(*digest);
            records.extend(table.object(digest).map(|object| {
                let (file, offset) = object.place.position();
                match first {
                    true => {
                        Record::Put { digest: *digest, file, offset, len: object.len, hold: hold.clone() }
                    }
                    false => Record::Hold { digest: *digest, hold: hold.clone() },
                }
            }));
        }
    }
    records
}
