//! What SuperNodes call: the same calls over HTTP and gRPC.
//!
//! Every call is idempotent: registering, activating, pushing or confirming again changes nothing and is answered as before.

use std::time::Duration;

use prost::Message as _;
use sheaf_domain::{ErrorKind, Principal, RunId};
use sheaf_relay::Phase;

use crate::answer::Answer;
use crate::connection::Signed;
use crate::error::{FlowerCode, FlowerError};
use crate::exchange::{Pusher, Toward};
use crate::front::{Flower, HOLD, public_key};
use crate::incoming::Incoming;
use crate::mail;
use crate::names::{node_id_of, payload, run_of};
use crate::proto;
use crate::routes::FleetCall;
use crate::runs;

/// The intervals at which a node may say that it beats, in seconds.
///
/// Observed: upstream refuses others.
const BEAT_EVERY_S: std::ops::RangeInclusive<f64> = 10.0..=1800.0;

impl Flower {
    /// Serves a call of a SuperNode.
    ///
    /// # Errors
    /// Refusals that upstream documents, and *ask again*.
    pub(crate) async fn fleet(
        &self,
        call: FleetCall,
        signed: &Signed,
        incoming: Incoming,
    ) -> Result<Answer, FlowerError> {
        let answer = self.fleet_call(call, signed, incoming).await;
        answer.map_err(|error| {
            tracing::warn!(?call, code = ?error.code, %error, "a call of a SuperNode was not done");
            error.for_fleet()
        })
    }

    async fn fleet_call(
        &self,
        call: FleetCall,
        signed: &Signed,
        incoming: Incoming,
    ) -> Result<Answer, FlowerError> {
        match call {
            FleetCall::RegisterNode => self.register_self(signed, incoming.decode().await?).await,
            FleetCall::ActivateNode => self.activate(signed, incoming.decode().await?).await,
            FleetCall::DeactivateNode => {
                let request: proto::DeactivateNodeRequest = incoming.decode().await?;
                let site = self.node(signed, request.node_id).await?;
                self.relays.deactivate(&site);
                Ok(Answer::of(&proto::DeactivateNodeResponse {}))
            }
            FleetCall::UnregisterNode => self.unregister_self(signed, incoming.decode().await?).await,
            FleetCall::SendNodeHeartbeat => {
                let request: proto::SendNodeHeartbeatRequest = incoming.decode().await?;
                let site = self.node(signed, node_id(request.node)).await?;
                self.relays.heard(&site, Some(beat_every(request.heartbeat_interval)?));
                Ok(Answer::of(&proto::SendNodeHeartbeatResponse { success: true }))
            }
            FleetCall::PullMessages => self.pull_for_node(signed, incoming.decode().await?).await,
            FleetCall::PushMessages => {
                // It may be long: nothing of it is held for somebody who is no node.
                let (_, incoming) = incoming.of_checked(self.site(signed).await).await?;
                self.push_of_node(signed, incoming.decode_letters(&self.relays).await?).await
            }
            FleetCall::GetRun => {
                let request: proto::GetRunRequest = incoming.decode().await?;
                self.node(signed, node_id(request.node)).await?;
                let overview = self.running(run_of(request.run_id)?, FlowerCode::GetRunFailed)?;
                Ok(Answer::of(&proto::GetRunResponse { run: Some(self.describe(&overview)) }))
            }
            FleetCall::GetFab => self.fab_for_node(signed, incoming.decode().await?).await,
            FleetCall::PushObject => {
                let (site, incoming) = incoming.of_checked(self.site(signed).await).await?;
                let node_id = node_id_of(&site).unwrap_or_default();
                self.push_object(&Pusher::Node { site, node_id }, incoming).await
            }
            FleetCall::PullObject => {
                let request: proto::PullObjectRequest = incoming.decode().await?;
                let who = Principal::Participant(self.node(signed, node_id(request.node)).await?);
                let run = run_of(request.run_id)?;
                self.running(run, FlowerCode::RunStatusNotAllowed)?;
                self.pull_object(&who, run, &request.object_id, Toward::Node).await
            }
            FleetCall::ConfirmMessageReceived => {
                let request: proto::ConfirmMessageReceivedRequest = incoming.decode().await?;
                let who = Principal::Participant(self.node(signed, node_id(request.node)).await?);
                let run = run_of(request.run_id)?;
                self.running(run, FlowerCode::RunStatusNotAllowed)?;
                self.confirm(&who, run, &request.message_object_id, Toward::Node).await?;
                Ok(Answer::of(&proto::ConfirmMessageReceivedResponse {}))
            }
        }
    }

    /// A node that makes its own key registers it; where operators register keys, it may not.
    async fn register_self(
        &self,
        signed: &Signed,
        request: proto::RegisterNodeFleetRequest,
    ) -> Result<Answer, FlowerError> {
        self.check_own_key(signed, &request.public_key)?;
        if self.settings.enable_supernode_auth {
            let detail = "nodes do not register themselves here: an operator registers their keys";
            return Err(FlowerError::new(FlowerCode::SupernodeRegistrationDisabled, detail));
        }
        let key = public_key(&request.public_key)?;
        let site = match self.relays.by_key(&key.fingerprint()) {
            // Its first answer was lost.
            Some(known) if known.active => known.site,
            _ => self.relays.register_self(&key, signed.connection.peer()).await.map_err(
                |error| match error.kind() {
                    ErrorKind::Conflict => {
                        FlowerError::new(FlowerCode::NodeActivationFailed, error.to_string())
                    }
                    _ => FlowerError::new(FlowerCode::Unavailable, error.to_string()),
                },
            )?,
        };
        Ok(Answer::of(&proto::RegisterNodeFleetResponse { node_id: node_id_of(&site).unwrap_or_default() }))
    }

    fn check_own_key(&self, signed: &Signed, named: &[u8]) -> Result<(), FlowerError> {
        let key = self.authenticate(signed)?;
        if public_key(named)? == key {
            return Ok(());
        }
        let detail = "the key in the call is not the one it is signed with";
        Err(FlowerError::new(FlowerCode::NodeAuthenticationFailed, detail))
    }

    async fn activate(
        &self,
        signed: &Signed,
        request: proto::ActivateNodeRequest,
    ) -> Result<Answer, FlowerError> {
        self.check_own_key(signed, &request.public_key)?;
        let beat_every = beat_every(request.heartbeat_interval)?;
        let failed = |detail: String| FlowerError::new(FlowerCode::NodeActivationFailed, detail);
        let known = self.relays.by_key(&public_key(&request.public_key)?.fingerprint());
        let site = match known {
            Some(known) if known.active => known.site,
            Some(_) => return Err(failed("this key was unregistered".to_owned())),
            None => return Err(failed("this key is not registered".to_owned())),
        };
        self.relays.activate(&site, beat_every).await.map_err(|error| match error.kind() {
            ErrorKind::Conflict => failed(error.to_string()),
            _ => FlowerError::new(FlowerCode::Unavailable, error.to_string()),
        })?;
        Ok(Answer::of(&proto::ActivateNodeResponse { node_id: node_id_of(&site).unwrap_or_default() }))
    }

    async fn unregister_self(
        &self,
        signed: &Signed,
        request: proto::UnregisterNodeFleetRequest,
    ) -> Result<Answer, FlowerError> {
        let site = self.node(signed, request.node_id).await?;
        if self.settings.enable_supernode_auth {
            let detail = "nodes do not unregister themselves here: an operator does";
            return Err(FlowerError::new(FlowerCode::SupernodeUnregistrationDisabled, detail));
        }
        let unregistered = self.relays.leave(&site).await;
        self.forget_keys();
        unregistered.map_err(|error| FlowerError::new(FlowerCode::Unavailable, error.to_string()))?;
        Ok(Answer::of(&proto::UnregisterNodeFleetResponse {}))
    }

    /// At most one message, the oldest that the node has neither confirmed nor answered.
    async fn pull_for_node(
        &self,
        signed: &Signed,
        request: proto::PullMessagesRequest,
    ) -> Result<Answer, FlowerError> {
        let site = self.node(signed, node_id(request.node)).await?;
        let next = self.relays.next_letter(&site, HOLD).await.map_err(|error| Toward::Node.error(&error))?;
        let mut response = proto::PullMessagesResponse::default();
        if let Some(handed) = next {
            let (message, tree) = mail::handed(&handed)?;
            response.messages_list.push(message);
            response.message_object_trees.push(tree);
            self.traffic.sent(handed.run, response.encoded_len() as u64);
        }
        Ok(Answer::of(&response))
    }

    async fn push_of_node(
        &self,
        signed: &Signed,
        request: proto::PushMessagesRequest,
    ) -> Result<Answer, FlowerError> {
        let node_id = node_id(request.node);
        let from = Principal::Participant(self.node(signed, node_id).await?);
        let first = request.messages_list.first().and_then(|message| message.metadata.as_ref());
        let run = run_of(first.ok_or_else(|| payload("there is no message"))?.run_id)?;
        self.running(run, FlowerCode::RunStatusNotAllowed)?;
        self.traffic.received(run, request.encoded_len() as u64);
        self.traffic.worked(run, request.clientapp_runtime_list.first().copied().unwrap_or_default());
        let (messages, trees) = (&request.messages_list, &request.message_object_trees);
        let posted = self.post((&from, node_id), run, messages, trees, Toward::Node).await?;
        for (letter, reason) in &posted.refused {
            tracing::warn!(%run, node = node_id, %letter, reason, "an answer of a node was not taken");
        }
        let ids = request.messages_list.iter().filter_map(|message| message.metadata.as_ref());
        Ok(Answer::of(&proto::PushMessagesResponse {
            reconnect: Some(proto::Reconnect { reconnect: 5 }),
            results: ids.map(|metadata| (metadata.message_id.clone(), 0)).collect(),
            objects_to_push: posted.missing.iter().map(ToString::to_string).collect(),
            session_id: posted.session,
        }))
    }

    async fn fab_for_node(
        &self,
        signed: &Signed,
        request: proto::GetFabRequest,
    ) -> Result<Answer, FlowerError> {
        self.node(signed, node_id(request.node)).await?;
        let run = run_of(request.run_id)?;
        let overview = self.running(run, FlowerCode::GetFabFailed)?;
        if overview.bundle.to_string() != request.hash_str {
            let detail = format!("run {} has another FAB than {}", run.get(), request.hash_str);
            return Err(FlowerError::new(FlowerCode::GetFabFailed, detail));
        }
        let content = self.relays.bundle(run).await.map_err(|error| Toward::Node.error(&error))?;
        let fab = proto::Fab { hash_str: request.hash_str, content, verifications: Default::default() };
        Ok(Answer::of(&proto::GetFabResponse { fab: Some(fab) }))
    }

    /// A run whose application is at work.
    ///
    /// # Errors
    /// `unknown` when there is none; that its status does not allow the call when it is not running.
    fn running(
        &self,
        run: RunId,
        unknown: FlowerCode,
    ) -> Result<sheaf_coordinator::RelayOverview, FlowerError> {
        let overview = self.relays.overview(run).map_err(|error| match error.kind() {
            ErrorKind::NotFound => FlowerError::new(unknown, error.to_string()),
            _ => FlowerError::new(FlowerCode::Unavailable, error.to_string()),
        })?;
        if overview.application.phase == Phase::Running {
            return Ok(overview);
        }
        let detail = format!("run {} is {}", run.get(), runs::status_name(&overview.application.phase));
        Err(FlowerError::new(FlowerCode::RunStatusNotAllowed, detail))
    }

    /// Nodes that are there, for an application.
    pub(crate) fn nodes_online(&self) -> Vec<proto::NodeInfo> {
        let participants = self.relays.participants().into_iter();
        participants
            .filter(|one| one.online_until.is_some() && one.unregistered_at.is_none())
            .filter_map(|one| runs::node_info(&one))
            .collect()
    }
}

fn node_id(node: Option<proto::Node>) -> u64 {
    node.unwrap_or_default().node_id
}

fn beat_every(seconds: f64) -> Result<Duration, FlowerError> {
    if BEAT_EVERY_S.contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    let (min, max) = (BEAT_EVERY_S.start(), BEAT_EVERY_S.end());
    let detail = format!("a heartbeat interval lies between {min} and {max} seconds");
    Err(FlowerError::new(FlowerCode::InvalidHeartbeatInterval, detail))
}
