//! Who acts for one node while it is there: takes its work orders as a native participant would, and pursues each.
//!
//! There is one for each node, so that nobody else sends it letters in coordinated runs. It ends when the node is gone; what it was about
//! is found again by the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use sheaf_coordinator::{Beat, Delivery, Error};
use sheaf_domain::{ErrorKind, Identity, Span, TaskId};
use tokio::sync::watch;

use super::Works;
use super::pursuit::task_of;

/// How long a request for work is held before it is looked whether the node is still there.
const HOLD: Span = Span::from_secs(5);
/// How long to wait after a request that was not held, or failed.
const PAUSE: Duration = Duration::from_secs(1);
/// What the client of such a participant calls itself.
const CLIENT: &str = "Flower SuperNode";

/// Acts for one node.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) works: Arc<Works>,
    pub(super) who: Identity,
}

/// What is being pursued: what ends with each, and how to say that nobody wants it any more.
struct Pursuits<'a> {
    on: FuturesUnordered<BoxFuture<'a, Option<TaskId>>>,
    wanted: HashMap<TaskId, watch::Sender<bool>>,
}

impl Agent {
    /// Acts for the node until it is gone.
    ///
    /// # Cancel safety
    /// Safe: everything is found again.
    pub(super) async fn act(&self) {
        if let Err(error) = self.until_gone().await {
            tracing::debug!(site = %self.who.name, %error, "nobody acts for the node any more");
            return;
        }
        if let Err(error) = self.works.handle.lose(&self.who, "its SuperNode is not online").await {
            tracing::debug!(site = %self.who.name, %error, "that a node is gone could not be told");
        }
    }

    async fn until_gone(&self) -> Result<(), Error> {
        let mut pursuits = Pursuits { on: FuturesUnordered::new(), wanted: HashMap::new() };
        let beat = Beat { working: Vec::new(), client: CLIENT.to_owned() };
        self.passing(self.works.handle.beat(&self.who, beat).await).await?;
        // Before its orders are known, no letter of the node's is known to be unwanted.
        let first = loop {
            let asked = self.works.handle.next(&self.who, &[], Span::from_millis(0)).await;
            if let Some(first) = self.passing(asked).await? {
                break first;
            }
        };
        self.take(first, &mut pursuits);
        self.clear_up(&mut pursuits);
        while self.works.relays.is_online(&self.who.name) {
            let have: Vec<TaskId> = pursuits.wanted.keys().copied().collect();
            let asked = tokio::time::Instant::now();
            let deliveries = tokio::select! {
                biased;
                Some(done) = pursuits.on.next() => {
                    pursuits.wanted.retain(|task, _| Some(*task) != done);
                    continue;
                }
                deliveries = self.works.handle.next(&self.who, &have, HOLD) => deliveries,
            };
            let deliveries = self.passing(deliveries).await?.unwrap_or_default();
            if deliveries.is_empty() && asked.elapsed() < HOLD.as_duration() / 2 {
                // The service is ending.
                tokio::time::sleep(PAUSE).await;
            }
            self.take(deliveries, &mut pursuits);
        }
        Ok(())
    }

    /// Waits a moment after an error that may pass.
    async fn passing<T>(&self, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_transient() || error.kind() == ErrorKind::Internal => {
                tracing::warn!(site = %self.who.name, %error, "a node's work cannot be asked for now");
                tokio::time::sleep(PAUSE).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn take<'a>(&'a self, deliveries: Vec<Delivery>, pursuits: &mut Pursuits<'a>) {
        for delivery in deliveries {
            match delivery {
                Delivery::Work(order) => {
                    let task = order.assignment.task;
                    if pursuits.wanted.contains_key(&task) {
                        continue;
                    }
                    let (wanted, withdrawn) = watch::channel(false);
                    pursuits.wanted.insert(task, wanted);
                    let pursuit = self.pursue(*order, withdrawn);
                    pursuits.on.push(Box::pin(async move { Some(pursuit.await) }));
                }
                Delivery::Withdraw(withdrawn) => {
                    if let Some(wanted) = pursuits.wanted.remove(&withdrawn.task) {
                        wanted.send_replace(true);
                    }
                }
            }
        }
    }

    /// Lets go of letters about tasks that are not the node's any more.
    fn clear_up<'a>(&'a self, pursuits: &mut Pursuits<'a>) {
        for run in self.works.relays.coordinated() {
            for question in self.works.relays.questions(run, &self.who.name).unwrap_or_default() {
                if task_of(&question).is_some_and(|task| pursuits.wanted.contains_key(&task)) {
                    continue;
                }
                pursuits.on.push(Box::pin(async move {
                    self.forget_surely(run, question.letter).await;
                    None
                }));
            }
        }
    }
}
