//! The calls that both transports carry: whose each is, what it comes to, and one record of it in the log.

use std::borrow::Cow;
use std::time::Instant;

use sheaf_coordinator::Delivery;
use sheaf_domain::Span;

use crate::error::{CallError, Sort};
use crate::federation::{Caller, Federation};
use crate::header::{self, Peer};
use crate::intake::{Pieces, Taken};
use crate::plan::Assigner;
use crate::proto::openfl::aggregator::{
    GetAggregatedTensorRequest, GetTasksResponse, MessageHeader, Task as TaskProto,
};
use crate::tell::TensorAnswer;

/// How long a request for tasks is held while there are none.
const HOLD: Span = Span::from_secs(20);
/// How long a collaborator is to sleep before it asks again, in seconds.
const SLEEP_S: i32 = 1;

/// One call, for its record: written once, however the call ends.
#[derive(Debug)]
pub(crate) struct Record {
    transport: &'static str,
    method: &'static str,
    started: Instant,
    pub(crate) sender: String,
    pub(crate) task: String,
    pub(crate) round: i32,
    pub(crate) bytes: u64,
    /// What it came to where it was answered well.
    pub(crate) answered: &'static str,
    outcome: Cow<'static, str>,
}

impl Record {
    #[expect(clippy::disallowed_methods, reason = "how long a call took is for people only")]
    pub(crate) fn new(transport: &'static str, method: &'static str) -> Record {
        let started = Instant::now();
        Record {
            transport,
            method,
            started,
            sender: String::new(),
            task: String::new(),
            round: 0,
            bytes: 0,
            answered: "ok",
            outcome: Cow::Borrowed("broken off"),
        }
    }

    /// Ends the call; that of a refused one is why.
    pub(crate) fn ended<T>(mut self, done: &Result<T, CallError>) {
        self.outcome = match done {
            Ok(_) => Cow::Borrowed(self.answered),
            Err(error) => Cow::Owned(error.to_string()),
        };
    }

    pub(crate) fn of_results(&mut self, taken: &Taken) {
        self.sender.clone_from(&taken.collaborator);
        self.task.clone_from(&taken.task);
        self.round = taken.round;
        self.bytes = taken.bytes;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Record { transport, method, sender, task, round, bytes, outcome, .. } = self;
        let sender: String = sender.chars().take(64).collect();
        let task: String = task.chars().take(64).collect();
        let duration_ms = self.started.elapsed().as_secs_f64() * 1e3;
        tracing::info!(
            target: "sheaf_wire_openfl::call",
            transport, method, sender, task, round, bytes, %outcome, duration_ms,
            "call"
        );
    }
}

impl Federation {
    /// The header of an answer to a collaborator.
    pub(crate) fn header_for(&self, collaborator: &str) -> MessageHeader {
        header::answer(self.plan(), collaborator)
    }

    pub(crate) fn call_ping(
        &self,
        header: Option<&MessageHeader>,
        peer: Peer<'_>,
    ) -> Result<MessageHeader, CallError> {
        let caller = self.inner().admit(header, peer)?;
        Ok(self.header_for(caller.name))
    }

    pub(crate) async fn call_tasks(
        &self,
        header: Option<&MessageHeader>,
        peer: Peer<'_>,
    ) -> Result<GetTasksResponse, CallError> {
        let caller = self.inner().admit(header, peer)?;
        let mut response = self.tasks(caller).await?;
        response.header = Some(self.header_for(caller.name));
        Ok(response)
    }

    async fn tasks(&self, caller: Caller<'_>) -> Result<GetTasksResponse, CallError> {
        let of = self.inner();
        let mut ending = of.ending();
        let found = tokio::select! {
            biased;
            _ = ending.wait_for(Option::is_some) => return Ok(self.quit(caller)),
            found = of.handle.next(caller.who, &[], HOLD) => found?,
        };
        // All of its work at once: what the writer hands out together is there when it has looked up again.
        let found = if found.is_empty() {
            found
        } else {
            of.handle.progress(&of.operator, of.run).await?;
            of.handle.next(caller.who, &[], Span::from_millis(0)).await?
        };
        let mut work: Vec<_> = found
            .into_iter()
            .filter_map(|delivery| match delivery {
                Delivery::Work(order) => Some(order.assignment),
                Delivery::Withdraw(_) => None,
            })
            .collect();
        let Some(round) = work.iter().map(|assignment| assignment.round).max() else {
            return Ok(GetTasksResponse { sleep_time: SLEEP_S, ..GetTasksResponse::default() });
        };
        work.retain(|assignment| assignment.round == round);
        let mut tasks: Vec<(usize, String)> = work
            .iter()
            .filter_map(|assignment| {
                let name = self.task_of(assignment.stage.as_str())?;
                Some((self.place_of(caller.name, &name), name))
            })
            .collect();
        tasks.sort();
        Ok(GetTasksResponse {
            header: None,
            round_number: of.told_round(round),
            tasks: tasks.into_iter().map(|(_, name)| TaskProto { name, ..TaskProto::default() }).collect(),
            sleep_time: 0,
            quit: false,
        })
    }

    fn quit(&self, caller: Caller<'_>) -> GetTasksResponse {
        let of = self.inner();
        of.dismiss(caller.name);
        let rounds = if of.plan.is_evaluation { 1 } else { of.plan.aggregator.rounds_to_train };
        let round_number = i32::try_from(rounds).unwrap_or(i32::MAX);
        GetTasksResponse { round_number, quit: true, ..GetTasksResponse::default() }
    }

    /// The task that a stage is.
    pub(crate) fn task_of(&self, stage: &str) -> Option<String> {
        let is_it =
            |name: &&String| crate::program::stage_of(name).is_ok_and(|found| found.as_str() == stage);
        self.plan().tasks.iter().map(|task| &task.name).find(is_it).cloned()
    }

    /// Where in its group's order a task of a collaborator's stands.
    fn place_of(&self, collaborator: &str, task: &str) -> usize {
        let assigner = &self.plan().assigner;
        let is_in = |group: &&crate::plan::Group| match assigner {
            Assigner::Static(_) => group.collaborators.iter().any(|name| name == collaborator),
            Assigner::Random(_) => group.tasks.iter().any(|name| name == task),
        };
        let group = assigner.groups().iter().find(is_in);
        group.and_then(|group| group.tasks.iter().position(|name| name == task)).unwrap_or(usize::MAX)
    }

    pub(crate) async fn call_tensor(
        &self,
        request: &GetAggregatedTensorRequest,
        peer: Peer<'_>,
    ) -> Result<(MessageHeader, TensorAnswer), CallError> {
        let caller = self.inner().admit(request.header.as_ref(), peer)?;
        let answer = self.tensor(caller, request).await?;
        Ok((self.header_for(caller.name), answer))
    }

    /// Takes results; `sender` is who the call's own header says they are of, where it has one.
    pub(crate) async fn call_results(
        &self,
        peer: Peer<'_>,
        sender: Option<&str>,
        pieces: &mut impl Pieces,
        record: &mut Record,
    ) -> Result<MessageHeader, CallError> {
        let mut taken = Taken::default();
        let done = self.take_results(peer, sender, pieces, &mut taken).await;
        record.of_results(&taken);
        let name = done?;
        record.answered = taken.outcome;
        Ok(self.header_for(&name))
    }

    /// Relaying is another program's: refused by name.
    pub(crate) fn call_relay(&self) -> CallError {
        CallError::new(
            Sort::NotServed,
            "InteropRelay is not served: Flower's applications are served by sheaf superlink",
        )
    }
}
