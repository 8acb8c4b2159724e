//! What operators call about runs: create, list, watch, stop, extend.

use std::sync::Arc;

use sheaf_domain::plan::{Init, Plan};
use sheaf_domain::{
    Digest, ErrorKind, Identity, LineageName, Manifest, ModelHasher, Program, Role, RunId, RunStatus,
};
use sheaf_engine::{Event, RunState, Start, StartVersion};
use sheaf_runtime::crash::{self, Point};
use tokio::sync::oneshot;

use crate::command::Command;
use crate::incidents::Kind;
use crate::outbox::lock;
use crate::shared::{RunSlot, Shared, upload_hold, version_hold};
use crate::{Error, Handle, gate, models};

/// The longest reason an operator's word is kept with, in characters.
const REASON_LEN_MAX: usize = 500;

/// A run to be.
#[derive(Debug, Clone)]
pub struct CreateRun {
    /// The plan as TOML.
    pub plan: String,
    /// The first model, for a plan that names a file: its pieces were uploaded as `upload`.
    pub init: Option<Manifest>,
    /// The name its pieces were uploaded under.
    pub upload: Option<String>,
    /// The bundle of the app, for a plan that names one: it was uploaded under the same name.
    pub app: Option<Digest>,
    /// The run whose newest versions this one starts from, instead of the plan's own start.
    pub from: Option<RunId>,
}

/// A run to be whose stages a front-end lays down, in place of those its plan comes to.
#[derive(Debug, Clone)]
pub struct CreateProgram {
    /// What else the run goes by.
    pub plan: Plan,
    /// What its rounds are made of.
    pub program: Program,
    /// The first model: its pieces were uploaded as `upload`.
    pub init: Manifest,
    /// The name its pieces were uploaded under.
    pub upload: String,
    /// Lineages that begin with no tensors.
    pub empty: Vec<LineageName>,
}

impl Handle {
    /// Creates a run of stages that a front-end lays down.
    ///
    /// # Errors
    /// As [`Handle::create_run`].
    /// # Cancel safety
    /// A dropped call is carried out nevertheless.
    pub async fn create_program(&self, who: &Identity, request: CreateProgram) -> Result<RunId, Error> {
        self.authorise(who, Role::Operator)?;
        let (handle, who) = (self.clone(), who.clone());
        self.to_the_end(async move {
            let CreateProgram { plan, program, init, upload, empty } = request;
            let request = CreateRun {
                plan: String::new(),
                init: Some(init),
                upload: Some(upload),
                app: None,
                from: None,
            };
            handle.create(&who, plan, Some((program, empty)), &request).await
        })
        .await
    }

    /// Creates a run; it starts as soon as enough participants are present.
    ///
    /// # Errors
    /// Invalid argument for a plan that is refused or a first model that is missing, unwanted or broken; exhausted when too many
    /// runs go on.
    /// # Cancel safety
    /// A dropped call is carried out nevertheless.
    pub async fn create_run(&self, who: &Identity, request: CreateRun) -> Result<RunId, Error> {
        self.authorise(who, Role::Operator)?;
        let (handle, who) = (self.clone(), who.clone());
        self.to_the_end(async move {
            let created = match Plan::parse(&request.plan) {
                Ok(plan) => handle.create(&who, plan, None, &request).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = &created {
                handle.note_refused_plan(&who, error);
            }
            created
        })
        .await
    }

    /// A plan that cannot be run leaves a trace for others than the one who handed it in.
    fn note_refused_plan(&self, who: &Identity, error: &Error) {
        let shared = &self.shared;
        tracing::warn!(operator = %who.name, %error, "a run was not created");
        if shared.incidents.may_journal(&who.name, Kind::PlanRefused, shared.clock.monotonic()) {
            let body = serde_json::json!({ "by": who.name, "what": error.to_string() });
            shared.note_in_journal("plan_refused", &body);
        }
    }

    async fn create(
        &self,
        who: &Identity,
        plan: Plan,
        program: Option<(Program, Vec<LineageName>)>,
        request: &CreateRun,
    ) -> Result<RunId, Error> {
        let is_over = |run: &Arc<RunSlot>| run.read(|state| state.phase().is_over()).unwrap_or(false);
        let running = self.shared.all_runs().iter().filter(|run| !is_over(run)).count();
        if running >= self.shared.settings.running_max {
            let message = format!("{running} runs go on already, which is the limit; stop one or wait");
            return Err(Error::new(ErrorKind::Exhausted, message));
        }
        let run = self.new_run_id()?;
        let program = program.map_or_else(|| plan.program().map(|program| (program, Vec::new())), Ok)?;
        let created = self.start(who, run, plan, program, request).await;
        if created.as_ref().is_err_and(|error| !error.is_transient()) {
            self.release_start(run).await;
            self.remove_companion(who, run).await;
        }
        created?;
        crash::reached(Point::RunCreated);
        if let Some(upload) = &request.upload {
            let hold = upload_hold(upload)?;
            lock(&self.shared.uploads).remove(&hold);
            self.shared.release(&hold).await;
        }
        tracing::info!(%run, operator = %who.name, "run created");
        Ok(run)
    }

    async fn start(
        &self,
        who: &Identity,
        run: RunId,
        plan: Plan,
        (program, empty): (Program, Vec<LineageName>),
        request: &CreateRun,
    ) -> Result<(), Error> {
        let mut start = self.start_of(run, &plan, request).await?;
        if let Start::Versions { versions, .. } = &mut start {
            let digest = ModelHasher::new().finish();
            let begin = |lineage| StartVersion { lineage, manifest: Manifest::empty(), digest };
            versions.extend(empty.into_iter().map(begin));
        }
        crash::reached(Point::RunPrepared);
        // The companion comes before the run: without it nobody could work on that. It may not end before the run is there.
        let _beginning = self.begin_app(run, &who.name, &plan, request, &start).await?;
        let event = Event::Created { run, plan: Box::new(plan), program: Box::new(program), start };
        let (reply, answer) = oneshot::channel();
        self.shared.send(Command::Create { run, event: Box::new(event), reply }).await?;
        answer.await.map_err(|_| Error::shutting_down())?
    }

    /// Frees what was kept for a run that did not come into being.
    async fn release_start(&self, run: RunId) {
        self.shared.release_versions(run).await;
    }

    fn new_run_id(&self) -> Result<RunId, Error> {
        let mut bytes = [0; 8];
        self.shared.entropy.fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
        RunId::new(u64::from_le_bytes(bytes)).ok_or_else(|| Error::internal("the random run id was zero"))
    }

    async fn start_of(&self, run: RunId, plan: &Plan, request: &CreateRun) -> Result<Start, Error> {
        if let Some(from) = request.from {
            if request.init.is_some() {
                return Err(Error::invalid(
                    "a first model was handed in, but the run is to start from another run",
                ));
            }
            return self.warm_start(run, from).await;
        }
        match (&plan.init, &request.init) {
            (Init::Trainer, None) => Ok(Start::Trainer),
            (Init::Trainer, Some(_)) => {
                Err(Error::invalid("a first model was handed in, but the plan says init = \"trainer\""))
            }
            (Init::File(file), None) => Err(Error::invalid(format!(
                "the plan starts from {file:?}, but no first model was handed in"
            ))),
            (Init::File(_), Some(manifest)) => {
                let upload = request.upload.as_deref();
                let upload =
                    upload.ok_or_else(|| Error::invalid("a first model needs the name of its upload"))?;
                self.check_upload(manifest, upload).await?;
                let version = self.adopt_start(run, LineageName::global(), manifest).await?;
                Ok(Start::Versions { from: None, versions: vec![version] })
            }
        }
    }

    /// Checks that a manifest handed in is sound and speaks of nothing but what was uploaded with it.
    async fn check_upload(&self, manifest: &Manifest, upload: &str) -> Result<(), Error> {
        manifest.check()?;
        if manifest.tensors.is_empty() {
            return Err(Error::invalid("the first model has no tensors"));
        }
        let byte_len_max = self.shared.settings.init_model_max.as_bytes();
        models::check_cost(manifest, byte_len_max).map_err(Error::invalid)?;
        let held = self.shared.blob.held(&upload_hold(upload)?).await?;
        let held: std::collections::HashSet<_> = held.into_iter().map(|(digest, _)| digest).collect();
        if let Some(missing) = manifest.objects().into_iter().find(|object| !held.contains(object)) {
            return Err(Error::invalid(format!(
                "piece {} of the first model was not uploaded",
                missing.short()
            )));
        }
        if let Some(bad) = gate::find_bad_value(&self.shared, manifest).await? {
            return Err(Error::invalid(format!("the first model cannot be used: {bad}")));
        }
        Ok(())
    }

    async fn warm_start(&self, run: RunId, from: RunId) -> Result<Start, Error> {
        let newest: Vec<(LineageName, Arc<Manifest>)> = self.shared.with_run(from, |state| {
            state
                .newest_versions()
                .map(|(l, _, version)| (l.clone(), Arc::clone(&version.manifest)))
                .collect()
        })?;
        let mut versions = Vec::with_capacity(newest.len());
        for (lineage, manifest) in newest {
            versions.push(self.adopt_start(run, lineage, &manifest).await?);
        }
        if versions.is_empty() {
            return Err(Error::conflict(format!("run {from} has no model yet")));
        }
        Ok(Start::Versions { from: Some(from), versions })
    }

    /// Keeps a model's bytes for the new run.
    async fn adopt_start(
        &self,
        run: RunId,
        lineage: LineageName,
        manifest: &Manifest,
    ) -> Result<StartVersion, Error> {
        let hold = version_hold(run, &lineage, 0)?;
        for object in manifest.objects() {
            if !self.shared.blob.hold(&object, &hold).await? {
                let message = format!("{lineage} changed while its bytes were taken over; try again");
                return Err(Error::conflict(message));
            }
        }
        let digest = models::digest(&*self.shared.blob, &self.shared.compute, manifest).await?;
        Ok(StartVersion { lineage, manifest: manifest.clone(), digest })
    }

    /// Every run, newest first.
    ///
    /// # Errors
    /// Permission denied; unavailable while one of them is being rebuilt from its journal.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn runs(&self, who: &Identity) -> Result<Vec<RunStatus>, Error> {
        self.authorise(who, Role::Operator)?;
        let read = |shared: &Shared| -> Result<Vec<RunStatus>, Error> {
            let set_aside = shared.quarantine.all().into_iter().map(Ok);
            let all = shared.all_runs();
            all.iter().map(|slot| slot.read(RunState::status)).chain(set_aside).collect()
        };
        let mut runs = self.look(read).await??;
        runs.sort_by_key(|status| std::cmp::Reverse((status.created_at, status.run)));
        Ok(runs.into_iter().map(|status| self.with_incidents(status)).collect())
    }

    /// Finds a run by its id, its name (the newest of that name), or the beginning of its id.
    ///
    /// # Errors
    /// Not found; conflict when the beginning of an id fits several.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn find_run(&self, who: &Identity, text: &str) -> Result<RunId, Error> {
        self.authorise(who, Role::Operator)?;
        if let Ok(run) = text.parse::<RunId>()
            && self.shared.knows(run)
        {
            return Ok(run);
        }
        let mut by_prefix = Vec::new();
        let names = |shared: &Shared| -> Result<Vec<(RunId, String)>, Error> {
            let named = |slot: &Arc<RunSlot>| Ok((slot.run, slot.read(|state| state.plan().name.clone())?));
            let set_aside = shared.quarantine.all().into_iter().map(|status| Ok((status.run, status.name)));
            shared.all_runs().iter().map(named).chain(set_aside).collect()
        };
        for (run, name) in self.look(names).await?? {
            if name == text {
                return Ok(run);
            }
            if !text.is_empty() && run.to_string().starts_with(text) {
                by_prefix.push(run);
            }
        }
        match by_prefix.as_slice() {
            [only] => Ok(*only),
            [] => Err(Error::not_found(format!("no run {text:?}; `sheaf ls` lists them"))),
            several => {
                Err(Error::conflict(format!("{text:?} fits {} runs; write more of the id", several.len())))
            }
        }
    }

    /// What a run is doing and what it waits for.
    ///
    /// # Errors
    /// Not found; unavailable while the run is being rebuilt from its journal.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn status(&self, who: &Identity, run: RunId) -> Result<RunStatus, Error> {
        self.authorise(who, Role::Operator)?;
        if let Some(status) = self.shared.quarantine.status(run) {
            return Ok(status);
        }
        let status = self.look_at(run, RunState::status).await?;
        Ok(self.with_incidents(status))
    }

    /// Ends a run; participants are told to drop their work.
    ///
    /// # Errors
    /// Not found; conflict when it has ended.
    /// # Cancel safety
    /// A dropped call may still stop the run.
    pub async fn stop(&self, who: &Identity, run: RunId, reason: String) -> Result<RunStatus, Error> {
        self.authorise(who, Role::Operator)?;
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_LEN_MAX).collect();
        let reason = if reason.trim().is_empty() { "no reason given".to_owned() } else { reason };
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
        let (reply, answer) = oneshot::channel();
        self.shared.send(Command::Extend { run, rounds, reply }).await?;
        answer.await.map_err(|_| Error::shutting_down())??;
        self.status(who, run).await
    }
}
