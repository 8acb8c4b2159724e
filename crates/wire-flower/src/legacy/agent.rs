//! One client's agent: it takes part in the client's place for as long as the stream lasts.
//!
//! A client that breaks the protocol fails its task by name and is dropped; one that goes away leaves, and its task waits for it, or for
//! another client, by the rules of the run. What came too late is read and dropped, for the client cannot be interrupted.

use std::time::Duration;

use sheaf_coordinator::{Beat, Delivery, WorkOrder};
use sheaf_domain::{Identity, Metrics, SiteName, Span, Submission, SubmitOutcome, SubmittedSlot, TaskId};

use super::Join;
use super::order::{self, Order};
use super::places::{Place, Places};
use super::reply::{Kind, Reply};
use super::scalars;
use super::stream::{End, Stream};
use super::transfer::{Received, discard, receive, send_model};
use crate::names::node_id_of;
use crate::proto::client_message::{EvaluateRes, GetPropertiesRes};
use crate::proto::{Code, Status};
use tokio::sync::watch;

/// How long a request for work is held.
const HOLD: Span = Span::from_secs(20);
/// How long to wait before a result that could not be handed in now is handed in again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a client may take over its goodbye.
const GOODBYE_WAIT_MAX: Duration = Duration::from_secs(5);
/// What counts for a result that rests on no examples: next to nothing.
const NO_EXAMPLES: f64 = 1e-200;
/// What such clients are called where people see it.
const CLIENT: &str = "start_client";

/// The agent of one stream.
#[derive(Debug)]
pub(crate) struct Agent {
    join: Join,
    stream: Stream,
    /// The round it took part in last.
    round: Option<u32>,
}

impl Agent {
    pub(crate) fn new(join: Join, stream: Stream) -> Agent {
        Agent { join, stream, round: None }
    }

    /// Takes part until the stream ends.
    pub(crate) async fn attend(mut self) {
        let end = match self.take_place().await {
            Ok(place) => self.take_part(place).await,
            Err(end) => end,
        };
        self.stream.end(&end);
    }

    /// Finds out who the client takes part as.
    async fn take_place(&mut self) -> Result<Place, End> {
        let full = || End::Refused(format!("{} clients are connected already", super::CLIENTS_MAX));
        let Some(key) = self.join.settings.name_property.clone() else {
            let vacated = self.vacated().await;
            return self.join.places.take(&vacated).ok_or_else(full);
        };
        let told = order::properties_wanted().map_err(|error| End::Refused(error.to_string()))?;
        self.stream.send(told).await?;
        let Reply::Properties(GetPropertiesRes { status, properties }) =
            discard(&mut self.stream, Kind::Properties, self.join.settings.message_len_max).await?
        else {
            return Err(End::Broken("it did not tell its properties".to_owned()));
        };
        if let Some(refused) = failure(status.as_ref()) {
            return Err(End::Refused(format!("it does not tell its properties: {refused}")));
        }
        let name = properties.get(&key).and_then(scalars::text);
        let name = name.ok_or_else(|| End::Refused(format!("it has no property {key:?} that is a name")))?;
        let name = SiteName::new(name).map_err(|error| End::Refused(error.to_string()))?;
        // Such are the names of SuperNodes, which take part in other runs.
        if node_id_of(&name).is_some() {
            return Err(End::Refused(format!("{name} is a SuperNode's name")));
        }
        let taken = || End::Refused(format!("another client is connected as {name}"));
        self.join.places.take_named(&name).ok_or_else(taken)
    }

    /// Places that nobody has and whose work waits.
    async fn vacated(&mut self) -> Vec<SiteName> {
        let sites = self.join.handle.sites(&self.join.operator).await.unwrap_or_default();
        let waits = |site: &sheaf_coordinator::SiteOverview| {
            Places::is_numbered(&site.name) && !site.working.is_empty()
        };
        sites.into_iter().filter(waits).map(|site| site.name).collect()
    }

    async fn take_part(&mut self, mut place: Place) -> End {
        loop {
            let who = match self.join.handle.take_in(&self.join.operator, &place.name).await {
                Ok(who) => who,
                Err(error) => return End::Refused(error.to_string()),
            };
            tracing::info!(client = %who.name, "a client has joined");
            let next = self.work(&who).await;
            if let Err(error) = self.join.handle.leave(&who).await {
                tracing::debug!(client = %who.name, %error, "its goodbye was not taken");
            }
            match next {
                Ok(other) => place = other,
                Err(end) => {
                    tracing::info!(client = %who.name, "{end}");
                    // By then the run knows that the place is vacant.
                    let _ = self.join.handle.runs(&self.join.operator).await;
                    return end;
                }
            }
        }
    }

    /// Works until the stream ends, or until another place is to be taken.
    async fn work(&mut self, who: &Identity) -> Result<Place, End> {
        let mut dismissed = self.join.dismissed.subscribe();
        let mut freed = self.join.places.freed();
        loop {
            let waiting = async {
                loop {
                    let found = self.join.handle.next(who, &[], HOLD).await?;
                    let order = found.into_iter().find_map(|delivery| match delivery {
                        Delivery::Work(order) => Some(order),
                        Delivery::Withdraw(_) => None,
                    });
                    if let Some(order) = order {
                        return Ok::<_, sheaf_coordinator::Error>(order);
                    }
                }
            };
            let order = tokio::select! {
                biased;
                back_in_s = dismissal(&mut dismissed) => return Err(self.dismiss(back_in_s).await),
                end = self.stream.silence() => return Err(end),
                order = waiting => order.map_err(|error| End::Refused(error.to_string()))?,
                _ = freed.changed() => match self.other_place(who).await {
                    Some(place) => return Ok(place),
                    None => continue,
                },
            };
            self.round = Some(order.assignment.round);
            self.carry_out(who, &order).await?;
        }
    }

    /// A place whose client went away and left work, for a client that has no part in the round.
    async fn other_place(&mut self, who: &Identity) -> Option<Place> {
        if !Places::is_numbered(&who.name) {
            return None;
        }
        let runs = self.join.handle.runs(&self.join.operator).await.ok()?;
        let takes_part = runs.iter().any(|run| !run.phase.is_over() && self.round == Some(run.round));
        let vacated = self.vacated().await;
        if takes_part || vacated.contains(&who.name) {
            return None;
        }
        vacated.iter().find_map(|name| self.join.places.take_named(name))
    }

    /// Does one piece of work: sends it, takes the answer, hands it in.
    async fn carry_out(&mut self, who: &Identity, order: &WorkOrder) -> Result<(), End> {
        let task = order.assignment.task;
        let kind = kind_of(order);
        if let Err(error) = self.send(who, order, kind).await? {
            // Not the client's fault, but nobody can be sent it.
            self.fail(who, task, error).await;
            return Ok(());
        }
        let received = tokio::select! {
            received = receive(&self.join, &mut self.stream, who, order, kind) => received,
            () = beats(&self.join.handle, who, task) => Err(End::Refused("it was shut out".to_owned())),
        };
        match received {
            Ok(received) => self.hand_in(who, order, received).await,
            Err(End::Broken(detail)) => {
                let message = format!("{kind}: {detail}", kind = kind.name());
                if let Err(error) = self.join.handle.refuse_malformed(who, task, &message).await {
                    tracing::debug!(client = %who.name, %error, "its broken message belongs to no task");
                }
                Err(End::Broken(detail))
            }
            Err(end) => Err(end),
        }
    }

    /// Sends the message that work is; an inner error is why it cannot be sent at all.
    async fn send(
        &mut self,
        who: &Identity,
        order: &WorkOrder,
        kind: Kind,
    ) -> Result<Result<(), String>, End> {
        let config = scalars::config(&order.assignment.config);
        let told = match kind {
            Kind::Fit => Order::Fit,
            Kind::Evaluate => Order::Evaluate,
            _ => {
                let told =
                    order::parameters_wanted(config).map_err(|error| End::Refused(error.to_string()))?;
                return self.stream.send(told).await.map(Ok);
            }
        };
        send_model(&self.join, &mut self.stream, who, order, told, config).await
    }

    async fn hand_in(&mut self, who: &Identity, order: &WorkOrder, received: Received) -> Result<(), End> {
        let task = order.assignment.task;
        let (result, manifest) = match received {
            Received::TooLate(reason) => {
                tracing::info!(client = %who.name, reason, "an answer came too late");
                return Ok(());
            }
            Received::Answer { reply, manifest } => (reply, manifest),
        };
        let (num_examples, metrics) = match result_of(&who.name, result) {
            Ok(result) => result,
            Err(reason) => {
                self.fail(who, task, reason).await;
                return Ok(());
            }
        };
        let output = order.assignment.outputs.first();
        let slots = output
            .zip(manifest)
            .map(|(output, manifest)| SubmittedSlot { slot: output.slot.clone(), manifest });
        let submission = Submission { task, slots: slots.into_iter().collect(), num_examples, metrics };
        let submitted = loop {
            match self.join.handle.submit(who, submission.clone()).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(client = %who.name, %error, "an answer waits to be handed in");
                    tokio::time::sleep(PAUSE).await;
                }
                submitted => break submitted,
            }
        };
        match submitted {
            Ok(SubmitOutcome::Refused { refusal }) => {
                tracing::warn!(client = %who.name, %refusal, "an answer was refused");
            }
            Ok(outcome) => tracing::debug!(client = %who.name, ?outcome, "an answer was handed in"),
            // The task stays open and is handed out again.
            Err(error) => tracing::warn!(client = %who.name, %error, "an answer could not be handed in"),
        }
        Ok(())
    }

    async fn fail(&mut self, who: &Identity, task: TaskId, reason: String) {
        if let Err(error) = self.join.handle.fail(who, task, reason).await {
            tracing::debug!(client = %who.name, %error, "a failure came too late");
        }
    }

    /// Tells the client to leave, and waits a moment for its goodbye.
    async fn dismiss(&mut self, back_in_s: i64) -> End {
        let Ok(told) = order::reconnect(back_in_s) else { return End::Dismissed };
        let goodbye = async {
            self.stream.send(told).await?;
            discard(&mut self.stream, Kind::Disconnect, self.join.settings.message_len_max).await
        };
        // Observed: the client closes its channel right after its answer, which may not arrive.
        let _ = tokio::time::timeout(GOODBYE_WAIT_MAX, goodbye).await;
        End::Dismissed
    }
}

/// Resolves when clients are to leave: in how many seconds they are to come back.
async fn dismissal(dismissed: &mut watch::Receiver<Option<i64>>) -> i64 {
    let told = dismissed.wait_for(Option::is_some).await;
    told.ok().and_then(|back_in_s| *back_in_s).unwrap_or(0)
}

/// What is asked of a client, as the slots of its work say.
fn kind_of(order: &WorkOrder) -> Kind {
    match (order.assignment.inputs.is_empty(), order.assignment.outputs.is_empty()) {
        (true, _) => Kind::Parameters,
        (false, false) => Kind::Fit,
        (false, true) => Kind::Evaluate,
    }
}

/// Shows signs of life in the client's place; returns when it may not take part any more.
async fn beats(handle: &sheaf_coordinator::Handle, who: &Identity, task: TaskId) {
    loop {
        let beat = Beat { working: vec![task], client: CLIENT.to_owned() };
        let every = match handle.beat(who, beat).await {
            Ok(reply) => reply.beat_every,
            Err(error) if error.kind() == sheaf_domain::ErrorKind::PermissionDenied => return,
            Err(_) => Span::from_secs(1),
        };
        tokio::time::sleep(every.as_duration()).await;
    }
}

/// What an answer weighs and measures, or why it is none.
fn result_of(client: &SiteName, reply: Reply) -> Result<(f64, Metrics), String> {
    let dropped = |dropped: Vec<String>| {
        if !dropped.is_empty() {
            tracing::debug!(%client, ?dropped, "metrics that are no finite numbers are not kept");
        }
    };
    match reply {
        Reply::Parameters(res) => match failure(res.status.as_ref()) {
            Some(reason) => Err(reason),
            None => Ok((1.0, Metrics::new())),
        },
        Reply::Fit(res) => {
            if let Some(reason) = failure(res.status.as_ref()) {
                return Err(reason);
            }
            let (metrics, others) = scalars::metrics(res.metrics);
            dropped(others);
            Ok((examples(res.num_examples), metrics))
        }
        Reply::Evaluate(res) => {
            // Such clients are left out of the round's means; the round goes on.
            if res.status.as_ref().is_some_and(|status| status.code() == Code::EvaluateNotImplemented) {
                return Ok((NO_EXAMPLES, Metrics::new()));
            }
            if let Some(reason) = failure(res.status.as_ref()) {
                return Err(reason);
            }
            let EvaluateRes { loss, num_examples, metrics, .. } = res;
            let (metrics, mut others) = scalars::metrics(metrics);
            let loss = Some(f64::from(loss)).filter(|loss| loss.is_finite());
            if loss.is_none() {
                others.push(scalars::LOSS.to_owned());
            }
            dropped(others);
            Ok((examples(num_examples), scalars::with_loss(metrics, loss)))
        }
        Reply::Disconnect(_) | Reply::Properties(_) => Err("it is no answer to a task".to_owned()),
    }
}

/// What a client says that it could not do, if it says so.
fn failure(status: Option<&Status>) -> Option<String> {
    let status = status.filter(|status| status.code != i32::from(Code::Ok as u8))?;
    let code = Code::try_from(status.code).map_or("an unknown code", |code| code.as_str_name());
    Some(format!("{code}: {}", status.message))
}

/// The weight of an answer.
#[expect(clippy::cast_precision_loss, reason = "a weight is a real number")]
fn examples(num_examples: i64) -> f64 {
    if num_examples == 0 { NO_EXAMPLES } else { num_examples as f64 }
}
