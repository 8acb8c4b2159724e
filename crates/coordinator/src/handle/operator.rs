//! What operators call about runs: create, list, watch, stop, extend, read models.

use std::sync::Arc;

use sheaf_domain::plan::{Init, Plan};
use sheaf_domain::{
    Digest, Identity, LineageName, Manifest, Role, RunId, RunStatus, SiteName, Timestamp, VersionRef,
};
use sheaf_engine::{Event, Start, StartVersion};
use sheaf_store::SiteState;
use tokio::sync::oneshot;

use crate::command::Command;
use crate::shared::{upload_hold, version_hold};
use crate::{Error, Handle, models};

/// A run to be.
#[derive(Debug, Clone)]
pub struct CreateRun {
    /// The plan as TOML.
    pub plan: String,
    /// The first model, for a plan that names a file: its pieces were uploaded as `upload`.
    pub init: Option<Manifest>,
    /// The name its pieces were uploaded under.
    pub upload: Option<String>,
    /// The run whose newest versions this one starts from, instead of the plan's own start.
    pub from: Option<RunId>,
}

/// Which model of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one evaluated best.
    Best,
    /// The newest.
    Last,
    /// The one a round made; 0 is the first.
    Round(u32),
}

/// A model of a run.
#[derive(Debug, Clone)]
pub struct ModelRef {
    /// Its version.
    pub version: VersionRef,
    /// Its digest.
    pub digest: Digest,
    /// Its tensors.
    pub manifest: Arc<Manifest>,
}

/// What is known of a participant across runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SiteOverview {
    /// Its name.
    pub name: SiteName,
    /// `invited`, `active`, `waiting for approval` or `revoked: …`, for people.
    pub state: String,
    /// Whether it counts as present.
    pub present: bool,
    /// When it was last heard of.
    pub last_seen: Option<Timestamp>,
    /// When its certificate ends.
    pub certificate_not_after: Option<Timestamp>,
    /// The fingerprint of its key.
    pub key_fingerprint: Option<Digest>,
    /// What its client calls itself.
    pub client: Option<String>,
    /// The tasks it has been assigned and not answered.
    pub working: Vec<String>,
    /// The last thing that went wrong with it, in any run.
    pub last_error: Option<String>,
}

impl Handle {
    /// Creates a run; it starts as soon as enough participants are present.
    ///
    /// # Errors
    /// Invalid argument for a plan that is refused or a first model that is missing, unwanted or broken; exhausted when too many
    /// runs go on.
    /// # Cancel safety
    /// A dropped call may still create the run.
    pub async fn create_run(&self, who: &Identity, request: CreateRun) -> Result<RunId, Error> {
        self.authorise(who, Role::Operator)?;
        let plan = Plan::parse(&request.plan)?;
        let running = self.shared.all_runs().iter().filter(|run| !crate::outbox::lock(run).phase().is_over()).count();
        if running >= self.shared.settings.running_max {
            return Err(Error::new(
                sheaf_domain::ErrorKind::Exhausted,
                format!("{running} runs go on already, which is the limit; stop one or wait"),
            ));
        }
        let run = self.new_run_id()?;
        let start = self.start_of(run, &plan, &request).await?;
        let event = Event::Created { run, plan: Box::new(plan), start };
        let (reply, answer) = oneshot::channel();
        self.shared.send(Command::Create { run, event: Box::new(event), reply }).await?;
        answer.await.map_err(|_| Error::shutting_down())??;
        if let Some(upload) = &request.upload {
            self.shared.release(&upload_hold(upload)?).await;
        }
        tracing::info!(%run, operator = %who.name, "run created");
        Ok(run)
    }

    fn new_run_id(&self) -> Result<RunId, Error> {
        let mut bytes = [0; 8];
        self.shared.entropy.fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
        RunId::new(u64::from_le_bytes(bytes)).ok_or_else(|| Error::internal("the random run id was zero"))
    }

    async fn start_of(&self, run: RunId, plan: &Plan, request: &CreateRun) -> Result<Start, Error> {
        if let Some(from) = request.from {
            return self.warm_start(run, from).await;
        }
        match (&plan.init, &request.init) {
            (Init::Trainer, None) => Ok(Start::Trainer),
            (Init::Trainer, Some(_)) => {
                Err(Error::invalid("a first model was handed in, but the plan says init = \"trainer\""))
            }
            (Init::File(file), None) => {
                Err(Error::invalid(format!("the plan starts from {file:?}, but no first model was handed in")))
            }
            (Init::File(_), Some(manifest)) => {
                let version = self.adopt_start(run, LineageName::global(), manifest, request.upload.as_deref()).await?;
                Ok(Start::Versions { from: None, versions: vec![version] })
            }
        }
    }

    async fn warm_start(&self, run: RunId, from: RunId) -> Result<Start, Error> {
        let newest: Vec<(LineageName, Arc<Manifest>)> = self.shared.with_run(from, |state| {
            state.newest_versions().map(|(l, _, version)| (l.clone(), Arc::clone(&version.manifest))).collect()
        })?;
        let mut versions = Vec::with_capacity(newest.len());
        for (lineage, manifest) in newest {
            versions.push(self.adopt_start(run, lineage, &manifest, None).await?);
        }
        if versions.is_empty() {
            return Err(Error::conflict(format!("run {from} has no model yet")));
        }
        Ok(Start::Versions { from: Some(from), versions })
    }

    /// Keeps a model's bytes for the new run, after checking that they are there and finite.
    async fn adopt_start(
        &self,
        run: RunId,
        lineage: LineageName,
        manifest: &Manifest,
        upload: Option<&str>,
    ) -> Result<StartVersion, Error> {
        manifest.check()?;
        if manifest.tensors.is_empty() {
            return Err(Error::invalid("the first model has no tensors"));
        }
        if let Some(upload) = upload {
            let held = self.shared.blob.held(&upload_hold(upload)?).await?;
            let missing = manifest.objects().into_iter().find(|object| !held.iter().any(|(have, _)| have == object));
            if let Some(missing) = missing {
                return Err(Error::invalid(format!("piece {} of the first model was not uploaded", missing.short())));
            }
        }
        let hold = version_hold(run, &lineage, 0)?;
        for object in manifest.objects() {
            if !self.shared.blob.hold(&object, &hold).await? {
                return Err(Error::invalid(format!("piece {} of the first model is not stored", object.short())));
            }
        }
        let digest = models::digest(&*self.shared.blob, manifest).await?;
        Ok(StartVersion { lineage, manifest: manifest.clone(), digest })
    }

    /// Every run, newest first.
    ///
    /// # Errors
    /// Permission denied.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn runs(&self, who: &Identity) -> Result<Vec<RunStatus>, Error> {
        self.authorise(who, Role::Operator)?;
        Ok(self.shared.all_runs().iter().map(|state| crate::outbox::lock(state).status()).collect())
    }

    /// Finds a run by its id, the beginning of its id, or its name (the newest of that name).
    ///
    /// # Errors
    /// Not found; conflict when the beginning of an id fits several.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn find_run(&self, who: &Identity, text: &str) -> Result<RunId, Error> {
        self.authorise(who, Role::Operator)?;
        let mut by_prefix = Vec::new();
        for state in self.shared.all_runs() {
            let state = crate::outbox::lock(&state);
            if state.plan().name == text {
                return Ok(state.run());
            }
            if !text.is_empty() && state.run().to_string().starts_with(text) {
                by_prefix.push(state.run());
            }
        }
        match by_prefix.as_slice() {
            [only] => Ok(*only),
            [] => Err(Error::not_found(format!("no run {text:?}; `sheaf ls` lists them"))),
            several => Err(Error::conflict(format!("{text:?} fits {} runs; write more of the id", several.len()))),
        }
    }

    /// What a run is doing and what it waits for.
    ///
    /// # Errors
    /// Not found.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn status(&self, who: &Identity, run: RunId) -> Result<RunStatus, Error> {
        self.authorise(who, Role::Operator)?;
        self.shared.with_run(run, sheaf_engine::RunState::status)
    }

    /// Ends a run; participants are told to drop their work.
    ///
    /// # Errors
    /// Not found; conflict when it has ended.
    /// # Cancel safety
    /// A dropped call may still stop the run.
    pub async fn stop(&self, who: &Identity, run: RunId, reason: String) -> Result<RunStatus, Error> {
        self.authorise(who, Role::Operator)?;
        let reason = if reason.is_empty() { "no reason given".to_owned() } else { reason };
        self.journal_event(run, Event::StopRequested { reason: format!("{}: {reason}", who.name) }).await?;
        self.status(who, run).await
    }

    /// Adds rounds to a run that goes on or has finished.
    ///
    /// # Errors
    /// Not found; conflict when the run was stopped or failed.
    /// # Cancel safety
    /// A dropped call may still extend the run.
    pub async fn extend(&self, who: &Identity, run: RunId, rounds: u32) -> Result<RunStatus, Error> {
        self.authorise(who, Role::Operator)?;
        self.journal_event(run, Event::Extended { rounds }).await?;
        for site in self.shared.presence.present() {
            self.shared.send(Command::Present { site }).await?;
        }
        self.status(who, run).await
    }

    /// A model of a run.
    ///
    /// # Errors
    /// Not found when there is none or it is not kept.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn model(&self, who: &Identity, run: RunId, which: Which) -> Result<ModelRef, Error> {
        self.authorise(who, Role::Operator)?;
        let global = LineageName::global();
        self.shared.with_run(run, |state| {
            let (version, found) = match which {
                Which::Last => state
                    .newest(&global)
                    .ok_or_else(|| Error::not_found(format!("run {run} has no model yet")))?,
                Which::Best => state
                    .newest(&LineageName::best())
                    .ok_or_else(|| Error::not_found(format!("run {run} has evaluated no model; ask for the last")))?,
                Which::Round(round) => (
                    round,
                    state.version(&global, round).ok_or_else(|| {
                        Error::not_found(format!("run {run} keeps no model of round {round} (see keep_models)"))
                    })?,
                ),
            };
            Ok(ModelRef {
                version: VersionRef { run, lineage: global.clone(), version },
                digest: found.digest,
                manifest: Arc::clone(&found.manifest),
            })
        })?
    }

    /// Every participant that was invited or enrolled.
    ///
    /// # Errors
    /// Permission denied; when the store cannot be read.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn sites(&self, who: &Identity) -> Result<Vec<SiteOverview>, Error> {
        self.authorise(who, Role::Operator)?;
        let mut overviews: Vec<SiteOverview> =
            self.shared.registry.all().iter().map(|site| self.overview(site)).collect();
        for invite in self.shared.store.invites().await? {
            let open = invite.state == sheaf_store::InviteState::Open;
            if !open || overviews.iter().any(|overview| overview.name == invite.site) {
                continue;
            }
            let expired = invite.expires_at <= self.shared.clock.now();
            overviews.push(SiteOverview {
                name: invite.site,
                state: if expired { "invitation expired" } else { "invited" }.to_owned(),
                present: false,
                last_seen: None,
                certificate_not_after: None,
                key_fingerprint: None,
                client: None,
                working: Vec::new(),
                last_error: None,
            });
        }
        overviews.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(overviews)
    }

    fn overview(&self, site: &sheaf_store::SiteRecord) -> SiteOverview {
        let sign = self.shared.presence.sign(&site.name);
        let runs = self.shared.all_runs();
        let last_error =
            runs.iter().find_map(|state| crate::outbox::lock(state).last_error(&site.name).map(str::to_owned));
        SiteOverview {
            name: site.name.clone(),
            state: match &site.state {
                SiteState::Active => "active".to_owned(),
                SiteState::PendingApproval => "waiting for approval".to_owned(),
                SiteState::Revoked { reason, .. } => format!("revoked: {reason}"),
            },
            present: sign.as_ref().is_some_and(|sign| sign.present),
            last_seen: sign.as_ref().map(|sign| sign.last_wall).or(site.last_seen),
            certificate_not_after: site.certificate.as_ref().map(|certificate| certificate.not_after),
            key_fingerprint: Some(site.key_fingerprint),
            client: sign.and_then(|sign| sign.client),
            working: self.shared.outbox(&site.name).tasks().iter().map(ToString::to_string).collect(),
            last_error,
        }
    }
}
