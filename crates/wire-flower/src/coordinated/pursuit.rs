//! One task of a node's: a letter to it, its answer, and what that comes to.
//!
//! The letter's group names the task, so that after a restart it is found again and no second one is sent. An answer is confirmed,
//! and thereby forgotten, only when what it comes to is durable.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use sheaf_coordinator::{Bring, Error, Handed, Question, Reply, WorkOrder};
use sheaf_domain::{Assignment, Digest, ErrorKind, Principal, RunId, Span, TaskId};
use sheaf_relay::{LetterDraft, ObjectDraft};
use tokio::sync::watch;

use super::Works;
use super::agent::Agent;
use super::models::ObjectBytes;
use super::records::{ARRAYS_KEY, CONFIG_KEY, Object, config, frame, named, object};
use super::reply::{Asked, ReplyError, ReplyReader};
use crate::mail;
use crate::names::{SERVER_NODE_ID, node_id_of, seconds};
use crate::proto::{Message, Metadata};

/// How long a message may be under way; the stage's own deadline is the engine's to watch.
const MESSAGE_TTL: Span = Span::from_secs(365 * 24 * 3600);
/// How long to wait before what failed for a passing reason is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Objects of a model that are brought at once.
const BRINGS_MAX: usize = 4;

impl Agent {
    /// Does a task to its end; `withdrawn` says when nobody wants it any more.
    ///
    /// # Cancel safety
    /// Safe: what is durable is found again.
    pub(super) async fn pursue(&self, order: WorkOrder, mut withdrawn: watch::Receiver<bool>) -> TaskId {
        let task = order.assignment.task;
        while let Err(error) = self.attempt(&order, &mut withdrawn).await {
            let (run, site) = (order.assignment.run, &self.who.name);
            if error.is_transient() {
                tracing::warn!(%run, %site, %task, %error, "a node's task cannot go on now");
            } else {
                match self.works.handle.fail(&self.who, task, error.to_string()).await {
                    Err(error) if error.is_transient() => {
                        tracing::warn!(%run, %site, %task, %error, "a failure could not be told");
                    }
                    Err(closed) => {
                        tracing::debug!(%run, %site, %task, %error, %closed, "a task of a node's is over");
                        self.let_go(run, task).await;
                        break;
                    }
                    Ok(()) => {
                        self.let_go(run, task).await;
                        break;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        task
    }

    /// Forgets what letter there is about a task that is over.
    async fn let_go(&self, run: RunId, task: TaskId) {
        let questions = self.works.relays.questions(run, &self.who.name).unwrap_or_default();
        for question in questions.iter().filter(|question| task_of(question) == Some(task)) {
            self.forget_surely(run, question.letter).await;
        }
        // What failed for good once would be handed out again at once.
        tokio::time::sleep(PAUSE).await;
    }

    async fn attempt(&self, order: &WorkOrder, withdrawn: &mut watch::Receiver<bool>) -> Result<(), Error> {
        let assignment = &order.assignment;
        let (run, task) = (assignment.run, assignment.task);
        let questions = self.works.relays.questions(run, &self.who.name)?;
        let asked = questions.iter().find(|question| task_of(question) == Some(task));
        let letter = match asked {
            Some(question) if question.handed_out => question.letter,
            asked => {
                // Nobody is asked for what was handed in, though its letter is gone.
                self.works.handle.missing(&self.who, task, &[]).await?;
                self.ask(order, asked).await?
            }
        };
        let reply = tokio::select! {
            biased;
            reply = self.works.relays.reply_to(run, letter) => reply?,
            () = says_so(withdrawn) => return self.forget(run, letter).await,
        };
        match reply {
            Reply::Never => Err(Error::new(ErrorKind::Conflict, "the message was taken back")),
            Reply::Here(handed) => {
                self.hand_in(order, &handed).await?;
                self.confirm(run, handed.letter).await
            }
        }
    }

    /// Takes a letter back that nobody wants answered; where it lies with its node, waits for the answer and lets it go.
    ///
    /// # Errors
    /// When nothing can be made durable.
    /// # Cancel safety
    /// Safe.
    pub(super) async fn forget(&self, run: RunId, letter: Digest) -> Result<(), Error> {
        let relays = &self.works.relays;
        let away = !relays.is_online(&self.who.name);
        if relays.take_back(run, letter, away).await? {
            return Ok(());
        }
        match relays.reply_to(run, letter).await? {
            Reply::Here(handed) => self.confirm(run, handed.letter).await,
            Reply::Never => Ok(()),
        }
    }

    /// [`Agent::forget`], tried again while it may come to pass.
    pub(super) async fn forget_surely(&self, run: RunId, letter: Digest) {
        while let Err(error) = self.forget(run, letter).await {
            if !error.is_transient() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn confirm(&self, run: RunId, answer: Digest) -> Result<(), Error> {
        self.works.relays.confirm(&Principal::ServerApp(run), run, answer).await
    }

    /// Sends the message of a task; `asked` is the letter of a server that was killed before all of it was there.
    async fn ask(&self, order: &WorkOrder, asked: Option<&Question>) -> Result<Digest, Error> {
        let assignment = &order.assignment;
        let run = assignment.run;
        let refused = |message: String| Error::new(ErrorKind::InvalidArgument, message);
        let [input] = assignment.inputs.as_slice() else {
            return Err(refused("a Flower node is handed one model".to_owned()));
        };
        let metadata = match asked {
            Some(question) => kept_metadata(question)?,
            None => self.metadata(assignment)?,
        };
        let works = &self.works;
        let model = works.models.of(&input.version);
        let layout = model.layout(&works.handle, &works.reader, &input.version).await?;
        let config = config(&assignment.config, assignment.round).map_err(refused)?;
        let body = named([(ARRAYS_KEY, layout.record), (CONFIG_KEY, config.id)].into_iter());
        let content = object("RecordDict", &[layout.record, config.id], body.as_bytes());
        let (message, root) = message(metadata, &content);
        let own = [config, content, root];
        let draft = |object: &Object| ObjectDraft { id: object.id, children: object.children.clone() };
        let objects = layout.objects.iter().cloned().chain(own.iter().map(draft)).collect();
        let [_, _, root] = &own;
        let letter = LetterDraft {
            id: root.id,
            to: Principal::Participant(self.who.name.clone()),
            answers: None,
            header: mail::header(&message),
            expires_at: works.clock.now().after(MESSAGE_TTL),
        };
        let letter = match asked {
            // The same letter again, to the last bit.
            Some(question) => LetterDraft { header: question.header.clone(), ..letter },
            None => letter,
        };
        let from = Principal::ServerApp(run);
        // Nodes share the model's objects: the first brings them.
        let turn = model.turn.acquire().await.map_err(|_| shutting_down())?;
        let posted = works.relays.post(&from, run, vec![letter], objects).await?;
        if let Some((_, reason)) = posted.refused.into_iter().next() {
            return Err(refused(reason));
        }
        let bring = |id: Digest| {
            let held = own.iter().find(|object| object.id == id);
            let bytes = match held {
                Some(object) => Some(ObjectBytes::held(object.bytes.clone())),
                None => layout.bytes_of(&id),
            };
            async move {
                match bytes {
                    Some(bytes) => works.bring(run, id, bytes).await,
                    None => Err(Error::new(ErrorKind::Internal, "an object is of no message of ours")),
                }
            }
        };
        stream::iter(posted.missing.into_iter().map(bring))
            .buffer_unordered(BRINGS_MAX)
            .try_collect::<Vec<()>>()
            .await?;
        drop(turn);
        Ok(root.id)
    }

    fn metadata(&self, assignment: &Assignment) -> Result<Metadata, Error> {
        let stage = assignment.stage.as_str();
        if !["train", "evaluate"].contains(&stage) {
            let message = format!("a Flower node does no stage {stage:?}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(Metadata {
            run_id: assignment.run.get(),
            message_id: String::new(),
            src_node_id: SERVER_NODE_ID,
            dst_node_id: node_id_of(&self.who.name).unwrap_or_default(),
            reply_to_message_id: String::new(),
            group_id: format!("{}/{}", assignment.round, assignment.task),
            ttl: MESSAGE_TTL.as_duration().as_secs_f64(),
            message_type: stage.to_owned(),
            created_at: seconds(self.works.clock.now()),
            src_task_id: Some(assignment.run.get()),
            dst_task_id: None,
        })
    }

    /// Hands an answer in. What it comes to is durable when this returns.
    async fn hand_in(&self, order: &WorkOrder, handed: &Handed) -> Result<(), Error> {
        let works = &self.works;
        let task = order.assignment.task;
        let message = mail::message_of(&handed.header)
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        if let Some(error) = message.error {
            let reason = format!("the ClientApp failed: {} (code {})", error.reason, error.code);
            return closed_is_done(works.handle.fail(&self.who, task, reason).await);
        }
        let output = match order.expects.as_slice() {
            [] => None,
            [(slot, Some(model))] => Some((slot, &**model)),
            _ => {
                let message = "a Flower node answers with one model, whose tensors are known";
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        };
        let permit = works.reading.acquire().await.map_err(|_| shutting_down())?;
        let reader = ReplyReader::new(&works.handle, &works.relays, handed, &works.conversions);
        let submission = reader.submission(&self.who, &Asked { task, output }).await;
        let outcome = match submission {
            Ok(submission) => works.handle.submit(&self.who, submission).await,
            Err(ReplyError::Refused(refusal)) => works.handle.refuse_with(&self.who, task, refusal).await,
            Err(ReplyError::Coordinator(error)) => Err(error),
        };
        drop(permit);
        closed_is_done(outcome.map(drop))
    }
}

impl Works {
    /// Brings an object in the server's name.
    async fn bring(&self, run: RunId, id: Digest, mut bytes: ObjectBytes<'_>) -> Result<(), Error> {
        match self.relays.bring(&Principal::ServerApp(run), run, id, bytes.len()).await? {
            Bring::Wanted(mut intake) => {
                while let Some(part) = bytes.next(&self.handle, &self.reader).await? {
                    intake.write(part).await?;
                }
                intake.finish().await.map(drop)
            }
            Bring::Brought | Bring::NotWanted => Ok(()),
        }
    }
}

/// A message of the server's, and the object that it is. Observed: its id is not part of what it is named by.
fn message(metadata: Metadata, content: &Object) -> (Message, Object) {
    let hashed = Message { metadata: Some(metadata.clone()), content: None, error: None };
    let body = hashed.encode_to_vec();
    let mut bytes = frame("Message", &[content.id], body.len() as u64);
    bytes.extend_from_slice(&body);
    let id = Digest::of(&bytes);
    let root = Object { id, children: vec![content.id], bytes: bytes.into() };
    let metadata = Metadata { message_id: id.to_string(), ..metadata };
    (Message { metadata: Some(metadata), content: None, error: None }, root)
}

/// The task that a letter is about.
pub(super) fn task_of(question: &Question) -> Option<TaskId> {
    let metadata = mail::message_of(&question.header).ok()?.metadata?;
    // Before it stands the round, which nodes show.
    metadata.group_id.rsplit('/').next()?.parse().ok()
}

fn kept_metadata(question: &Question) -> Result<Metadata, Error> {
    let message = mail::message_of(&question.header)
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    Ok(Metadata { message_id: String::new(), ..message.metadata.unwrap_or_default() })
}

/// That a task is closed already is as good as having handed it in.
fn closed_is_done(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {
            tracing::debug!(%error, "an answer came for a task that is closed");
            Ok(())
        }
        outcome => outcome,
    }
}

async fn says_so(withdrawn: &mut watch::Receiver<bool>) {
    if withdrawn.wait_for(|withdrawn| *withdrawn).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "the server is shutting down")
}
