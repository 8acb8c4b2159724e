//! What applications call, and those who start them.
//!
//! An application is known by its token; whoever asks for work (a SuperExec) proves nothing here, which is why these calls are served
//! locally only.

use http::HeaderMap;
use sheaf_coordinator::{Answered, Seat};
use sheaf_domain::{Digest, Principal, Span};
use sheaf_relay::Loss;

use crate::answer::Answer;
use crate::error::{FlowerCode, FlowerError};
use crate::exchange::{Pusher, Toward};
use crate::front::{Flower, HOLD, HOLD_FOR_MORE};
use crate::incoming::{Incoming, decode};
use crate::mail::{self, Unanswered};
use crate::names::{SERVER_APP_TYPE, SERVER_NODE_ID, iso, object_of, seconds};
use crate::proto;
use crate::routes::RuntimeCall;
use crate::runs;

/// The header that carries an application's token.
const TOKEN_HEADER: &str = "flwr-task-token";
/// How long the server's own answers to an application are kept for it.
const NOTICE_TTL: Span = Span::from_secs(24 * 3600);
/// The most messages whose answers one call asks for.
const QUESTIONS_MAX: usize = 100_000;

impl Flower {
    /// Serves a call of an application, or of who starts one.
    ///
    /// # Errors
    /// As upstream answers them.
    pub(crate) async fn runtime(
        &self,
        call: RuntimeCall,
        headers: &HeaderMap,
        incoming: Incoming,
    ) -> Result<Answer, FlowerError> {
        if call == RuntimeCall::AcquireTask {
            let body = incoming.collect().await?;
            self.check_superexec(headers, &body)?;
            return self.acquire(decode(body)?).await;
        }
        let seat = self.seat(headers)?;
        let (run, application) = (seat.run, Principal::from(seat));
        let told = |error: sheaf_coordinator::Error| Toward::Application.error(&error);
        match call {
            RuntimeCall::AcquireTask | RuntimeCall::SendTaskHeartbeat => {
                let proto::SendTaskHeartbeatRequest {} = incoming.decode().await?;
                self.relays.beat(seat).map_err(told)?;
                Ok(Answer::of(&proto::SendTaskHeartbeatResponse { success: true }))
            }
            RuntimeCall::PullTaskInput => {
                let proto::PullTaskInputRequest {} = incoming.decode().await?;
                self.task_input(seat).await
            }
            RuntimeCall::PushTaskOutput => {
                let request: proto::PushTaskOutputRequest = incoming.decode_long(&self.relays).await?;
                let outcome = runs::outcome_of(&request.sub_status);
                self.relays.end(run, outcome, request.details).await.map_err(told)?;
                Ok(Answer::of(&proto::PushTaskOutputResponse {}))
            }
            RuntimeCall::PushObject => self.push_object(&Pusher::Application { run }, incoming).await,
            RuntimeCall::PullObject => {
                let request: proto::PullObjectRequest = incoming.decode().await?;
                check_server(request.node)?;
                self.pull_object(&application, run, &request.object_id, Toward::Application).await
            }
            RuntimeCall::ConfirmMessageReceived => {
                let request: proto::ConfirmMessageReceivedRequest = incoming.decode().await?;
                self.confirm(&application, run, &request.message_object_id, Toward::Application).await?;
                Ok(Answer::of(&proto::ConfirmMessageReceivedResponse {}))
            }
            RuntimeCall::PushMessages => {
                self.push_of_application(seat, incoming.decode_letters(&self.relays).await?).await
            }
            RuntimeCall::PullMessages => {
                self.pull_for_application(seat, incoming.decode_long(&self.relays).await?).await
            }
            RuntimeCall::GetNodes => {
                let proto::GetNodesRequest {} = incoming.decode().await?;
                Ok(Answer::of(&proto::GetNodesResponse { nodes: self.nodes_online() }))
            }
            RuntimeCall::PushLogs => {
                let request: proto::PushLogsRequest = incoming.decode_long(&self.relays).await?;
                self.relays.log(run, request.logs.concat()).await.map_err(told)?;
                Ok(Answer::of(&proto::PushLogsResponse {}))
            }
        }
    }

    fn seat(&self, headers: &HeaderMap) -> Result<Seat, FlowerError> {
        let refused = |detail: &str| FlowerError::new(FlowerCode::RuntimeAuthenticationFailed, detail);
        let mut tokens = headers.get_all(TOKEN_HEADER).iter();
        let token = tokens.next().and_then(|token| token.to_str().ok());
        let token = token.ok_or_else(|| refused("the call has no task token"))?;
        if tokens.next().is_some() {
            return Err(refused("the call has two task tokens"));
        }
        let seat = self.relays.seat(token).map_err(|error| Toward::Application.error(&error))?;
        self.relays.beat(seat).map_err(|error| Toward::Application.error(&error))?;
        Ok(seat)
    }

    async fn acquire(&self, request: proto::AcquireTaskRequest) -> Result<Answer, FlowerError> {
        let types = &request.supported_task_types;
        if !types.is_empty() && !types.iter().any(|kind| kind == SERVER_APP_TYPE) {
            return Ok(Answer::of(&proto::AcquireTaskResponse::default()));
        }
        let claimed = self.relays.claim(|_| true, HOLD).await;
        let Some(claimed) = claimed.map_err(|error| Toward::Application.error(&error))? else {
            return Ok(Answer::of(&proto::AcquireTaskResponse::default()));
        };
        let overview =
            self.relays.overview(claimed.run).map_err(|error| Toward::Application.error(&error))?;
        let application = &overview.application;
        let status = runs::status(&application.phase);
        let task = proto::Task {
            task_id: claimed.run.get(),
            r#type: SERVER_APP_TYPE.to_owned(),
            run_id: claimed.run.get(),
            status: Some(proto::TaskStatus {
                status: status.status,
                sub_status: status.sub_status,
                details: status.details,
            }),
            pending_at: iso(Some(application.pending_at)),
            starting_at: iso(application.starting_at),
            fab_hash: Some(overview.bundle.to_string()),
            ..proto::Task::default()
        };
        Ok(Answer::of(&proto::AcquireTaskResponse {
            task: Some(task),
            token: claimed.token.reveal().to_owned(),
        }))
    }

    /// What an application begins with; from now on the run is running.
    async fn task_input(&self, seat: Seat) -> Result<Answer, FlowerError> {
        let failed = |error: sheaf_coordinator::Error| match Toward::Application.error(&error) {
            unavailable if unavailable.code == FlowerCode::Unavailable => unavailable,
            other => FlowerError::new(FlowerCode::RuntimeTaskStartFailed, other.detail),
        };
        self.relays.begin(seat).await.map_err(failed)?;
        let overview = self.relays.overview(seat.run).map_err(failed)?;
        let content = self.relays.bundle(seat.run).await.map_err(failed)?;
        let run_id = seat.run.get();
        let context = proto::Context {
            run_id,
            node_id: SERVER_NODE_ID,
            state: Some(proto::RecordDict::default()),
            series_id: run_id,
            ..proto::Context::default()
        };
        let fab =
            proto::Fab { hash_str: overview.bundle.to_string(), content, verifications: Default::default() };
        Ok(Answer::of(&proto::PullTaskInputResponse {
            context: Some(context),
            run: Some(self.describe(&overview)),
            fab: Some(fab),
            federation_config: None,
            task_id: run_id,
        }))
    }

    /// Message ids come back in the order of the messages; an empty one stands for a message that was not taken.
    async fn push_of_application(
        &self,
        seat: Seat,
        request: proto::PushAppMessagesRequest,
    ) -> Result<Answer, FlowerError> {
        if request.messages_list.is_empty() {
            let detail = "there is no message";
            return Err(FlowerError::new(FlowerCode::RuntimeInvalidMessageCount, detail));
        }
        let (from, run) = (Principal::from(seat), seat.run);
        let (messages, trees) = (&request.messages_list, &request.message_object_trees);
        let posted = self.post((&from, SERVER_NODE_ID), run, messages, trees, Toward::Application).await?;
        for (letter, reason) in &posted.refused {
            tracing::warn!(%run, %letter, reason, "a message of an application was not taken");
        }
        let refused: Vec<String> = posted.refused.iter().map(|(letter, _)| letter.to_string()).collect();
        let ids = messages.iter().map(|message| message.metadata.clone().unwrap_or_default().message_id);
        Ok(Answer::of(&proto::PushAppMessagesResponse {
            message_ids: ids.map(|id| if refused.contains(&id) { String::new() } else { id }).collect(),
            objects_to_push: posted.missing.iter().map(ToString::to_string).collect(),
            session_id: posted.session,
        }))
    }

    /// Answers as they come; the server answers itself for nodes that are gone and messages whose time is over.
    async fn pull_for_application(
        &self,
        seat: Seat,
        request: proto::PullAppMessagesRequest,
    ) -> Result<Answer, FlowerError> {
        if request.message_ids.len() > QUESTIONS_MAX {
            let detail = format!("one call asks for {QUESTIONS_MAX} answers at most");
            return Err(FlowerError::new(FlowerCode::RuntimeInvalidMessageCount, detail));
        }
        let mut questions = Vec::with_capacity(request.message_ids.len());
        for id in request.message_ids.iter().filter(|id| !id.is_empty()) {
            let question = object_of(id)?;
            if !questions.contains(&question) {
                questions.push(question);
            }
        }
        let mut response = proto::PullAppMessagesResponse::default();
        if questions.is_empty() {
            return Ok(Answer::of(&response));
        }
        let answers = self.relays.answers(seat.run, &questions, HOLD, HOLD_FOR_MORE).await;
        for (question, answer) in answers.map_err(|error| Toward::Application.error(&error))? {
            let handed = match answer {
                Answered::Awaited => continue,
                Answered::Ready(handed) => handed,
                Answered::Never { why, header } => self.answer_for(seat, question, why, header).await?,
            };
            let (message, tree) = mail::handed(&handed)?;
            response.messages_list.push(message);
            response.message_object_trees.push(tree);
        }
        Ok(Answer::of(&response))
    }

    async fn answer_for(
        &self,
        seat: Seat,
        question: Digest,
        why: Option<Loss>,
        header: Option<String>,
    ) -> Result<sheaf_coordinator::Handed, FlowerError> {
        let asked = header.as_deref().map(mail::message_of).transpose()?;
        let asked = asked.and_then(|message| message.metadata);
        let now = self.clock.now();
        let (why, asked) = match why {
            Some(Loss::RecipientGone | Loss::Withdrawn) => (Unanswered::NodeUnavailable, asked),
            _ => (Unanswered::MessageUnavailable, None),
        };
        let (message, object) = mail::notice(&question, asked.as_ref(), why, seat.run, seconds(now));
        let (header, until) = (mail::header(&message), now.after(NOTICE_TTL));
        let told = self.relays.notify(seat.run, question, header, object.into(), until).await;
        told.map_err(|error| match error.kind() {
            // Answered a moment ago: the application asks again.
            sheaf_domain::ErrorKind::Conflict => FlowerError::new(FlowerCode::Unavailable, error.to_string()),
            _ => Toward::Application.error(&error),
        })
    }
}

fn check_server(node: Option<proto::Node>) -> Result<(), FlowerError> {
    if node.unwrap_or_default().node_id == SERVER_NODE_ID {
        return Ok(());
    }
    Err(FlowerError::new(FlowerCode::RuntimeUnexpectedNodeId, "an application speaks as the server"))
}
