//! What the `flwr` command calls. Whoever may make these calls starts programs here: they are served on this machine only, or to operators
//! who prove who they are.

use std::collections::BTreeMap;

use sheaf_coordinator::{Error, LogCursor, NewRelay};
use sheaf_domain::{ErrorKind, Identity, RunId};

use crate::answer::Answer;
use crate::card::card;
use crate::error::{FlowerCode, FlowerError};
use crate::fab;
use crate::front::{Flower, public_key};
use crate::incoming::Incoming;
use crate::logs;
use crate::names::{
    ACCOUNT_ID, ACCOUNT_NAME, FEDERATION, SERVER_APP_TYPE, iso, node_id_of, run_of, site_of, timestamp,
};
use crate::operators::Caller;
use crate::proto;
use crate::routes::ControlCall;
use crate::runs;

impl Flower {
    /// Serves a call of the `flwr` command.
    ///
    /// # Errors
    /// As upstream answers them.
    pub(crate) async fn control(
        &self,
        call: ControlCall,
        caller: &Caller,
        incoming: Incoming,
    ) -> Result<Answer, FlowerError> {
        let who = match self.operator(caller) {
            Ok(who) => who,
            Err(error) => {
                incoming.drain().await;
                return Err(error);
            }
        };
        match call {
            ControlCall::StartRun => self.start_run(&who, incoming.decode_long(&self.relays).await?).await,
            ControlCall::StopRun => {
                let request: proto::StopRunRequest = incoming.decode().await?;
                let run = self.known_run(request.run_id)?;
                let stopped = self.relays.stop(&who, run).await.map_err(|error| told(&error))?;
                if !stopped {
                    let detail = format!("run {} is finished already", request.run_id);
                    return Err(FlowerError::new(FlowerCode::RunAlreadyFinished, detail));
                }
                Ok(Answer::of(&proto::StopRunResponse { success: true }))
            }
            ControlCall::StreamLogs => self.stream_logs(caller, &incoming.decode().await?),
            ControlCall::ListRuns => self.list_runs(&incoming.decode().await?),
            ControlCall::RegisterNode => self.register_node(incoming.decode().await?).await,
            ControlCall::UnregisterNode => {
                let request: proto::UnregisterNodeRequest = incoming.decode().await?;
                let site = site_of(request.node_id)?;
                let mut nodes = self.relays.participants().into_iter();
                if nodes.any(|node| node.site == site && node.unregistered_at.is_some()) {
                    let detail = format!("node {} was unregistered before", request.node_id);
                    return Err(FlowerError::new(FlowerCode::NodeNotFound, detail));
                }
                self.relays.unregister(&site).await.map_err(|error| match error.kind() {
                    ErrorKind::NotFound => {
                        let detail = format!("there is no node {}", request.node_id);
                        FlowerError::new(FlowerCode::NodeNotFound, detail)
                    }
                    _ => told(&error),
                })?;
                self.forget_keys();
                Ok(Answer::of(&proto::UnregisterNodeResponse {}))
            }
            ControlCall::ListNodes => {
                let proto::ListNodesRequest {} = incoming.decode().await?;
                let nodes = self.relays.participants();
                let nodes_info = nodes.iter().filter_map(runs::node_info).collect();
                Ok(Answer::of(&proto::ListNodesResponse { nodes_info, now: iso(Some(self.clock.now())) }))
            }
        }
    }

    async fn start_run(
        &self,
        who: &Identity,
        request: proto::StartRunRequest,
    ) -> Result<Answer, FlowerError> {
        if self.settings.refuse_runs {
            let detail = "no run is started on this server: its ServerApps are off";
            return Err(FlowerError::new(FlowerCode::NoPermissions, detail));
        }
        if !request.federation.is_empty()
            && request.federation != FEDERATION
            && request.federation != "default"
        {
            let detail =
                format!("there is no federation {:?}; the only one is {FEDERATION}", request.federation);
            return Err(FlowerError::new(FlowerCode::FederationNotFound, detail));
        }
        let content = request.fab.map(|fab| fab.content).unwrap_or_default();
        if content.is_empty() {
            let detail = "apps are taken from the command line only: no app is fetched from elsewhere";
            return Err(FlowerError::new(FlowerCode::InvalidAppSpec, detail));
        }
        let refused =
            |error: fab::FabError| FlowerError::new(FlowerCode::InvalidRunConfig, error.to_string());
        let bundle = content.clone();
        let checked = self.relays.compute().run(move || fab::check(&bundle)).await;
        let checked =
            checked.map_err(|error| FlowerError::new(FlowerCode::Unavailable, error.to_string()))?;
        let checked = checked.map_err(refused)?;
        fab::check_overrides(&checked, &request.override_config).map_err(refused)?;
        if checked.server_app.is_none() {
            let detail = "the app has no serverapp among its components";
            return Err(FlowerError::new(FlowerCode::InvalidRunConfig, detail));
        }
        let described = proto::Run {
            fab_id: checked.id,
            fab_version: checked.version,
            override_config: request.override_config,
            flwr_aid: ACCOUNT_ID.to_owned(),
            account_name: ACCOUNT_NAME.to_owned(),
            federation: FEDERATION.to_owned(),
            primary_task_type: SERVER_APP_TYPE.to_owned(),
            ..proto::Run::default()
        };
        let new = NewRelay { bundle: content, header: runs::header(&described) };
        let run = self.relays.create(who, new).await.map_err(|error| told(&error))?;
        Ok(Answer::of(&proto::StartRunResponse {
            run_id: Some(run.get()),
            note: None,
            series_id: Some(run.get()),
            federation: FEDERATION.to_owned(),
        }))
    }

    fn known_run(&self, run_id: u64) -> Result<RunId, FlowerError> {
        let unknown = || FlowerError::new(FlowerCode::RunIdNotFound, format!("there is no run {run_id}"));
        let run = run_of(run_id).map_err(|_| unknown())?;
        self.relays.overview(run).map_err(|error| match error.kind() {
            ErrorKind::NotFound => unknown(),
            _ => told(&error),
        })?;
        Ok(run)
    }

    fn list_runs(&self, request: &proto::ListRunsRequest) -> Result<Answer, FlowerError> {
        let mut all = match request.run_id {
            Some(run_id) => {
                vec![self.relays.overview(self.known_run(run_id)?).map_err(|error| told(&error))?]
            }
            None => {
                let all = self.relays.overviews().map_err(|error| told(&error))?;
                self.traffic.forget_others(&all);
                all
            }
        };
        // The newest first, as many as were asked for.
        all.reverse();
        let at_most =
            |n: Option<u64>, default| n.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let wanted = all.iter().skip(at_most(request.skip, 0)).take(at_most(request.limit, usize::MAX));
        let run_dict: BTreeMap<u64, proto::Run> =
            wanted.map(|overview| (overview.run.get(), self.describe(overview))).collect();
        Ok(Answer::of(&proto::ListRunsResponse { run_dict, now: iso(Some(self.clock.now())) }))
    }

    async fn register_node(&self, request: proto::RegisterNodeRequest) -> Result<Answer, FlowerError> {
        let key = public_key(&request.public_key)
            .map_err(|error| FlowerError::new(FlowerCode::PublicKeyNotValid, error.detail))?;
        let card = card(request)?;
        let site = self.relays.register(&key, card).await.map_err(|error| match error.kind() {
            ErrorKind::Conflict => FlowerError::new(FlowerCode::PublicKeyAlreadyInUse, error.to_string()),
            _ => told(&error),
        })?;
        Ok(Answer::of(&proto::RegisterNodeResponse { node_id: node_id_of(&site) }))
    }

    /// The log of a run from a time on.
    fn stream_logs(
        &self,
        caller: &Caller,
        request: &proto::StreamLogsRequest,
    ) -> Result<Answer, FlowerError> {
        let run = self.known_run(request.run_id)?;
        let from = LogCursor::after(timestamp(request.after_timestamp));
        Ok(Answer::Stream(logs::follow(self.clone(), caller.clone(), run, from)))
    }
}

pub(crate) fn told(error: &Error) -> FlowerError {
    let code = match error.kind() {
        ErrorKind::NotFound => FlowerCode::RunIdNotFound,
        ErrorKind::Conflict => FlowerCode::RunAlreadyFinished,
        ErrorKind::InvalidArgument => FlowerCode::InvalidRunConfig,
        ErrorKind::PermissionDenied => FlowerCode::NoPermissions,
        _ => FlowerCode::Unavailable,
    };
    FlowerError::new(code, error.to_string())
}
