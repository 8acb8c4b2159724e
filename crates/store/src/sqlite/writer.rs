//! The one task that writes. Writes that wait together are committed together, each in a savepoint of its own.
//!
//! A write that is refused takes back its own savepoint and disturbs no other. A write during which the database
//! fails ends its whole group: nothing of the group is applied, and the connection is replaced, because after such a
//! failure SQLite may have ended the transaction by itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use sheaf_runtime::TaskScope;
use sheaf_runtime::crash::{self, Point};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::heads::Heads;

/// One write's part of a transaction: everything it does to the database.
pub(super) type Step<I, T> = for<'c> fn(&'c mut SqliteConnection, &'c I) -> StepFuture<'c, T>;
pub(super) type StepFuture<'c, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'c>>;

/// The way to the task that writes.
#[derive(Debug)]
pub(super) struct Writer {
    /// None once closed.
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
}

impl Writer {
    /// Starts the task in `scope`; it ends when the writer is closed or dropped and all that waited is done.
    pub(super) fn start(
        scope: &TaskScope,
        options: SqliteConnectOptions,
        connection: SqliteConnection,
        heads: Arc<Heads>,
    ) -> Writer {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        scope.spawn(carry_out_all(receiver, options, connection, heads));
        Writer { jobs: Mutex::new(Some(sender)) }
    }

    /// Carries out `step` with `input`, durably.
    pub(super) async fn write<I, T>(&self, input: I, step: Step<I, T>) -> Result<T, Error>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        self.write_then(input, step, |_, _| {}).await
    }

    /// Carries out `step` with `input`, durably, and then `durable`, also when nobody waits for the answer any more.
    pub(super) async fn write_then<I, T>(
        &self,
        input: I,
        step: Step<I, T>,
        durable: fn(&T, &Heads),
    ) -> Result<T, Error>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let write = Write { input, step, durable, output: None, reply };
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)?;
        jobs.send(Box::new(write)).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        let open = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if open { Ok(()) } else { Err(Error::Closed) }
    }

    /// Takes nothing new.
    pub(super) fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A write whose input and output types are forgotten.
trait Job: Send {
    /// Does its part of a transaction.
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> StepFuture<'c, ()>;
    /// Tells the caller: `outcome` of the commit, or of the refusal before it.
    fn finish(self: Box<Self>, outcome: Result<(), Error>, heads: &Heads);
}

struct Write<I, T> {
    input: I,
    step: Step<I, T>,
    durable: fn(&T, &Heads),
    output: Option<T>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<I: Send + Sync, T: Send> Job for Write<I, T> {
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> StepFuture<'c, ()> {
        Box::pin(async move {
            self.output = Some((self.step)(connection, &self.input).await?);
            Ok(())
        })
    }

    fn finish(self: Box<Self>, outcome: Result<(), Error>, heads: &Heads) {
        let Write { durable, output, reply, .. } = *self;
        // A write that succeeded has an output: it has run.
        let answer = outcome.and_then(|()| output.ok_or(Error::Closed));
        if let Ok(output) = &answer {
            durable(output, heads);
        }
        // The caller may have gone; the write stands all the same.
        drop(reply.send(answer));
    }
}

async fn carry_out_all(
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
    options: SqliteConnectOptions,
    connection: SqliteConnection,
    heads: Arc<Heads>,
) {
    let mut connection = Some(connection);
    while let Some(first) = jobs.recv().await {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = jobs.try_recv()
        {
            group.push(next);
        }
        carry_out(&mut connection, &options, group, &heads).await;
    }
    if let Some(connection) = connection
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "state store did not close cleanly; nothing durable is lost");
    }
}

async fn carry_out(
    connection: &mut Option<SqliteConnection>,
    options: &SqliteConnectOptions,
    mut group: Vec<Box<dyn Job>>,
    heads: &Heads,
) {
    match carry_out_durably(connection, options, &mut group).await {
        Ok(outcomes) => {
            for (job, outcome) in group.into_iter().zip(outcomes) {
                job.finish(outcome, heads);
            }
        }
        Err(fault) => {
            tracing::error!(error = &fault as &dyn std::error::Error, writes = group.len(), "write failed");
            for job in group {
                job.finish(Err(fault.again()), heads);
            }
        }
    }
}

/// Commits the group and says, for each write, whether it was applied or refused.
async fn carry_out_durably(
    connection: &mut Option<SqliteConnection>,
    options: &SqliteConnectOptions,
    group: &mut [Box<dyn Job>],
) -> Result<Vec<Result<(), Error>>, Error> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => options.connect().await?,
    };
    match transact(&mut open, group).await {
        Ok(outcomes) => {
            *connection = Some(open);
            Ok(outcomes)
        }
        Err(fault) => {
            // Closing takes back whatever is still open.
            drop(open.close().await);
            Err(fault)
        }
    }
}

async fn transact(
    connection: &mut SqliteConnection,
    group: &mut [Box<dyn Job>],
) -> Result<Vec<Result<(), Error>>, Error> {
    let mut outcomes = Vec::with_capacity(group.len());
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    for job in group {
        sqlx::query("SAVEPOINT step").execute(&mut *connection).await?;
        let outcome = job.run(connection).await;
        match &outcome {
            Ok(()) => {}
            Err(error) if error.is_fault() => return outcome.map(|()| Vec::new()),
            Err(_) => {
                sqlx::query("ROLLBACK TO SAVEPOINT step").execute(&mut *connection).await?;
            }
        }
        sqlx::query("RELEASE SAVEPOINT step").execute(&mut *connection).await?;
        outcomes.push(outcome);
    }
    crash::reached(Point::CommitBegun);
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    crash::reached(Point::Committed);
    Ok(outcomes)
}

/// Writes that may wait; the next caller waits for a place.
const WAITING_MAX: usize = 256;

/// Writes that are committed together.
const GROUP_MAX: usize = 64;
