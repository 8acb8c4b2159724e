//! A coordinator over chosen stores, participants driven by hand, restarts that lose whatever was not durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sheaf_blob::{BlobStore, DiskBlobs, MemoryBlobs};
use sheaf_coordinator::{
    Coordinator, CreateRun, Delivery, Dependencies, Enrolment, Error, Handle, InviteRequest, Relays,
    Settings, Which, WorkOrder,
};
use sheaf_domain::{
    ByteSize, ByteSpan, Digest, Identity, JournalEntry, JournalId, Manifest, Metrics, ModelHasher, Role,
    RunId, RunStatus, SiteName, SlotName, Span, Submission, SubmitOutcome, SubmittedSlot, TaskId, Timestamp,
    Wait,
};
use sheaf_pki::{CertificateAuthority, EnrolmentLimiter, EnrolmentLimits, JournalSigner, Kit, SiteKey};
use sheaf_runtime::{Clock as _, Compute, ManualClock, OsEntropy, TaskScope};
use sheaf_store::{MailLimits, MemoryStore, SiteRecord, SiteState, SqliteStore, StateStore};
use sheaf_telemetry::Health;
use sheaf_tensor::{Dtype, TensorSpec};

use crate::faulty::{Faults, Faulty};

/// What the coordinator stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Memory,
    Disk,
}

/// Stamps each test out for both backends.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod memory { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name(crate::world::Backend::Memory).await })+ }
        mod disk { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name(crate::world::Backend::Disk).await })+ }
    };
}
pub(crate) use on_both;

/// What stays when the coordinator dies.
pub(crate) struct World {
    pub(crate) handle: Handle,
    pub(crate) relays: Relays,
    pub(crate) operator: Identity,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) blob: Arc<dyn BlobStore>,
    pub(crate) settings: Settings,
    pub(crate) limits: EnrolmentLimits,
    pub(crate) health: Health,
    backend: Backend,
    keys: Keys,
    coordinator: Option<Coordinator>,
    pub(crate) dir: tempfile::TempDir,
}

struct Keys {
    ca: Arc<CertificateAuthority>,
    signer: Arc<JournalSigner>,
}

impl Keys {
    fn dependencies(
        &self,
        store: &Arc<dyn StateStore>,
        blob: &Arc<dyn BlobStore>,
        clock: &Arc<ManualClock>,
        health: &Health,
        limits: EnrolmentLimits,
    ) -> Dependencies {
        Dependencies {
            store: Arc::clone(store),
            blob: Arc::clone(blob),
            clock: Arc::<ManualClock>::clone(clock),
            entropy: OsEntropy::shared(),
            compute: Compute::new(2),
            ca: Arc::clone(&self.ca),
            signer: Arc::clone(&self.signer),
            limiter: EnrolmentLimiter::new(limits),
            health: health.clone(),
        }
    }
}

/// A site with its key.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) who: Identity,
    pub(crate) key: Arc<SiteKey>,
}

pub(crate) const HOLD_MAX: Span = Span::from_secs(20);

pub(crate) fn settings() -> Settings {
    Settings {
        hold_max: HOLD_MAX,
        inflight_wait: Span::from_millis(1),
        fold_retry: Span::from_millis(1),
        // Small, so that models are folded in several tiles.
        fold_budget: ByteSize::from_bytes(4096),
        advertised: vec!["localhost:1".to_owned()],
        ..Settings::default()
    }
}

impl World {
    pub(crate) async fn start(backend: Backend) -> World {
        World::with(backend, settings(), ByteSize::from_mib(64)).await
    }

    pub(crate) async fn with(backend: Backend, settings: Settings, max_bytes: ByteSize) -> World {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::starting_at(Timestamp::from_millis(1_800_000_000_000));
        let ca = CertificateAuthority::create("study", days(365), clock.now()).unwrap();
        let faults = Arc::new(Faults::default());
        let (store, blob) = open(backend, &dir, max_bytes, &faults).await;
        let keys = Keys { ca: Arc::new(ca), signer: Arc::new(JournalSigner::generate().unwrap()) };
        let health = Health::new();
        let limits = EnrolmentLimits { burst: 10_000, peer_burst: 10_000, ..EnrolmentLimits::default() };
        let dependencies = keys.dependencies(&store, &blob, &clock, &health, limits);
        let coordinator =
            Coordinator::start(dependencies, settings.clone(), &TaskScope::new()).await.unwrap();
        World {
            handle: coordinator.handle(),
            relays: coordinator.relays(),
            operator: operator("op"),
            clock,
            faults,
            store,
            blob,
            settings,
            limits,
            health,
            backend,
            keys,
            coordinator: Some(coordinator),
            dir,
        }
    }

    pub(crate) async fn boot(&mut self) -> Result<(), Error> {
        let dependencies =
            self.keys.dependencies(&self.store, &self.blob, &self.clock, &self.health, self.limits);
        let coordinator = Coordinator::start(dependencies, self.settings.clone(), &TaskScope::new()).await?;
        self.handle = coordinator.handle();
        self.relays = coordinator.relays();
        self.coordinator = Some(coordinator);
        Ok(())
    }

    /// Ends the coordinator: what was not durable is lost.
    pub(crate) async fn crash(&mut self) {
        self.faults.dead.store(true, Ordering::SeqCst);
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.stop().await;
        }
        self.faults.dead.store(false, Ordering::SeqCst);
        if self.backend == Backend::Disk {
            self.blob.close().await;
            self.store.close().await;
            (self.store, self.blob) =
                open(self.backend, &self.dir, ByteSize::from_mib(64), &self.faults).await;
        }
    }

    /// Puts a backup in the place of the data.
    pub(crate) async fn swap_in(&mut self, backup: &std::path::Path) {
        self.blob.close().await;
        self.store.close().await;
        (self.store, self.blob) = open_in(self.backend, backup, ByteSize::from_mib(64), &self.faults).await;
    }

    pub(crate) async fn restart(&mut self) {
        self.crash().await;
        self.boot().await.unwrap();
    }

    /// Ends the coordinator in good order.
    pub(crate) async fn stop(&mut self) {
        self.coordinator.take().unwrap().stop().await;
    }

    // --- sites ---

    pub(crate) async fn kit(&self, site: &str) -> Kit {
        self.invite(site, false).await.unwrap()
    }

    pub(crate) async fn invite(&self, site: &str, approve: bool) -> Result<Kit, Error> {
        let request = InviteRequest { site: name(site), ttl: days(1), approve };
        self.handle.invite(&self.operator, request).await
    }

    pub(crate) async fn enrol(&self, kit: &Kit, key: &SiteKey) -> Result<Enrolment, Error> {
        let peer = std::net::IpAddr::from([127, 0, 0, 1]);
        self.handle.enrol(peer, &kit.token.to_text(), &key.csr_pem(&kit.site).unwrap()).await
    }

    pub(crate) async fn site(&self, site: &str) -> Site {
        let kit = self.kit(site).await;
        let key = SiteKey::generate().unwrap();
        assert!(matches!(self.enrol(&kit, &key).await.unwrap(), Enrolment::Issued(_)));
        Site { who: participant(site, key.fingerprint()), key: Arc::new(key) }
    }

    pub(crate) async fn sites(&self, num: usize) -> Vec<Site> {
        let mut sites = Vec::new();
        for idx in 0..num {
            sites.push(self.site(&format!("site-{idx}")).await);
        }
        sites
    }

    /// An operator whose key the server knows, so that it can be revoked; restarts the server.
    pub(crate) async fn known_operator(&mut self, site: &str) -> Identity {
        let who = operator(site);
        let known = SiteRecord {
            name: who.name.clone(),
            role: who.role,
            key_fingerprint: who.key_fingerprint,
            public_key_der: Vec::new(),
            certificate: None,
            state: SiteState::Active,
            enrolled_at: self.clock.now(),
            last_seen: None,
            label: None,
            location: None,
        };
        self.store.put_site(known).await.unwrap();
        self.restart().await;
        who
    }

    /// Shows the sites to the server, and returns when every running run knows of them.
    pub(crate) async fn present(&self, sites: &[Site]) {
        for site in sites {
            self.handle.next(&site.who, &[], Span::default()).await.unwrap();
        }
        self.settle().await;
    }

    /// Returns when everything sent to the writer before is durable.
    pub(crate) async fn settle(&self) {
        // A question about a task nobody has goes nowhere; a stop of a run nobody has goes through the writer.
        let nobody = RunId::new(1).unwrap();
        self.handle.stop(&self.operator, nobody, String::new()).await.unwrap_err();
    }

    // --- runs ---

    pub(crate) async fn create(&self, plan: &str) -> RunId {
        self.handle.create_run(&self.operator, request(plan)).await.unwrap()
    }

    pub(crate) async fn create_from_file(&self, plan: &str, values: &Model) -> RunId {
        self.try_create_from_file(plan, values).await.unwrap()
    }

    pub(crate) async fn try_create_from_file(&self, plan: &str, values: &Model) -> Result<RunId, Error> {
        let bytes = values.bytes();
        let mut upload = self.handle.operator_upload(&self.operator, "first", bytes.len() as u64).await?;
        upload.write(bytes.clone()).await?;
        upload.finish(Digest::of(&bytes)).await?;
        let init = Manifest::over_pieces(specs(), bytes.len() as u64, &[Digest::of(&bytes)]).unwrap();
        let request = CreateRun {
            plan: plan.to_owned(),
            init: Some(init),
            upload: Some("first".to_owned()),
            app: None,
            from: None,
        };
        self.handle.create_run(&self.operator, request).await
    }

    pub(crate) async fn status(&self, run: RunId) -> RunStatus {
        self.handle.status(&self.operator, run).await.unwrap()
    }

    /// Waits until the run's status is as wanted; each wait ends with the journal's next entry.
    pub(crate) async fn until(&self, run: RunId, wanted: impl Fn(&RunStatus) -> bool) -> RunStatus {
        let journal = JournalId::Run(run);
        loop {
            let (seq, _) = self.store.head(journal).await.unwrap();
            let status = self.status(run).await;
            if wanted(&status) {
                return status;
            }
            let news = self.handle.journal(&self.operator, journal, seq, 1, HOLD_MAX).await.unwrap();
            assert!(!news.is_empty(), "nothing happens any more: {status:#?}");
        }
    }

    /// The run when it is over, or when it waits for participants.
    pub(crate) async fn rested(&self, run: RunId) -> RunStatus {
        let folding = |wait: &Wait| matches!(wait, Wait::Fold { .. } | Wait::FoldRetry { .. });
        self.until(run, |status| !status.waits.iter().any(folding)).await
    }

    /// Lets the sites do all their work, in the order given, until the run is over.
    pub(crate) async fn drive(&self, run: RunId, sites: &[Site]) -> RunStatus {
        self.present(sites).await;
        loop {
            let status = self.rested(run).await;
            if status.phase.is_over() {
                return status;
            }
            let mut worked = false;
            for site in sites {
                for order in self.orders(site).await {
                    let outcome = self.work(site, &order).await.unwrap();
                    assert_eq!(outcome, SubmitOutcome::Accepted);
                    worked = true;
                }
            }
            assert!(worked, "nobody has work: {status:#?}");
        }
    }

    pub(crate) async fn digest(&self, run: RunId) -> Digest {
        self.handle.model(&self.operator, run, Which::Last).await.unwrap().digest
    }

    pub(crate) async fn journal(&self, journal: JournalId) -> Vec<JournalEntry> {
        self.store.entries(journal, 0, 4096).await.unwrap()
    }

    pub(crate) async fn kinds(&self, journal: JournalId) -> Vec<String> {
        self.journal(journal).await.into_iter().map(|entry| entry.kind).collect()
    }

    // --- a participant's work ---

    pub(crate) async fn orders(&self, site: &Site) -> Vec<WorkOrder> {
        let deliveries = self.handle.next(&site.who, &[], Span::default()).await.unwrap();
        let works = deliveries.into_iter().map(|delivery| match delivery {
            Delivery::Work(order) => *order,
            Delivery::Withdraw(withdrawn) => panic!("{withdrawn:?}"),
        });
        works.collect()
    }

    /// Waits for the one order there must be.
    pub(crate) async fn order(&self, site: &Site) -> WorkOrder {
        match self.handle.next(&site.who, &[], HOLD_MAX).await.unwrap().remove(0) {
            Delivery::Work(order) => *order,
            Delivery::Withdraw(withdrawn) => panic!("{withdrawn:?}"),
        }
    }

    /// Does what an order asks for, as this site always would.
    pub(crate) async fn work(&self, site: &Site, order: &WorkOrder) -> Result<SubmitOutcome, Error> {
        let result = self.result(site, order).await?;
        let mut slots = Vec::new();
        if let Some((slot, _)) = order.expects.first() {
            slots.push(SubmittedSlot {
                slot: slot.clone(),
                manifest: self.upload(site, order, &result).await?,
            });
        }
        let submission = submission(order.assignment.task, slots, num_examples(&site.who.name));
        self.handle.submit(&site.who, submission).await
    }

    pub(crate) async fn result(&self, site: &Site, order: &WorkOrder) -> Result<Model, Error> {
        let start = match order.inputs.first() {
            None => Model::zeros(),
            Some((_, manifest)) => {
                let version = &order.assignment.inputs.first().unwrap().version;
                let bytes = self.read(&site.who, version, manifest.byte_len()).await?;
                let model = Model::of(&bytes);
                assert_eq!(model.digest(), order.assignment.inputs[0].digest);
                model
            }
        };
        Ok(start.trained(&site.who.name, order.assignment.round))
    }

    pub(crate) async fn read(
        &self,
        who: &Identity,
        version: &sheaf_domain::VersionRef,
        len: u64,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            let span = ByteSpan { offset: bytes.len() as u64, len: 500 };
            bytes.extend_from_slice(&self.handle.read_version(who, version, span).await?);
        }
        Ok(bytes)
    }

    /// Uploads what is missing of a model, in pieces whose length is the site's own.
    pub(crate) async fn upload(
        &self,
        site: &Site,
        order: &WorkOrder,
        model: &Model,
    ) -> Result<Manifest, Error> {
        let (bytes, task) = (model.bytes(), order.assignment.task);
        let piece_len =
            1024 + 64 * site.who.name.as_str().len() + usize::from(site.who.name.as_str().as_bytes()[5]);
        let pieces: Vec<Bytes> = bytes.chunks(piece_len).map(Bytes::copy_from_slice).collect();
        let digests: Vec<Digest> = pieces.iter().map(|piece| Digest::of(piece)).collect();
        let missing = self.handle.missing(&site.who, task, &digests).await?;
        for (piece, digest) in pieces.iter().zip(&digests).filter(|(_, digest)| missing.contains(digest)) {
            self.put(site, task, piece, *digest).await?;
        }
        Ok(Manifest::over_pieces(specs(), piece_len as u64, &digests).unwrap())
    }

    pub(crate) async fn put(
        &self,
        site: &Site,
        task: TaskId,
        piece: &Bytes,
        digest: Digest,
    ) -> Result<(), Error> {
        let mut upload = self.handle.upload(&site.who, task, piece.len() as u64).await?;
        upload.write(piece.clone()).await?;
        upload.finish(digest).await
    }
}

async fn open(
    backend: Backend,
    dir: &tempfile::TempDir,
    max_bytes: ByteSize,
    faults: &Arc<Faults>,
) -> (Arc<dyn StateStore>, Arc<dyn BlobStore>) {
    open_in(backend, dir.path(), max_bytes, faults).await
}

async fn open_in(
    backend: Backend,
    dir: &std::path::Path,
    max_bytes: ByteSize,
    faults: &Arc<Faults>,
) -> (Arc<dyn StateStore>, Arc<dyn BlobStore>) {
    let (inner, blob): (Arc<dyn StateStore>, Arc<dyn BlobStore>) = match backend {
        Backend::Memory => {
            (Arc::new(MemoryStore::new(MailLimits::default())), Arc::new(MemoryBlobs::new(max_bytes)))
        }
        Backend::Disk => {
            let path = dir.join("state.sqlite");
            let store = SqliteStore::open(&path, sheaf_store::OpenOptions::default()).await.unwrap();
            let options = sheaf_blob::OpenOptions { max_bytes, ..sheaf_blob::OpenOptions::default() };
            (Arc::new(store), Arc::new(DiskBlobs::open(&dir.join("blobs"), options).await.unwrap()))
        }
    };
    (Arc::new(Faulty { inner, faults: Arc::clone(faults) }), blob)
}

// --- the model ---

/// Three tensors, one of them empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Model {
    pub(crate) w: Vec<f32>,
    pub(crate) b: Vec<f64>,
}

pub(crate) fn specs() -> Vec<TensorSpec> {
    vec![
        TensorSpec::new("w", Dtype::F32, [20, 30]).unwrap(),
        TensorSpec::new("none", Dtype::F32, [0]).unwrap(),
        TensorSpec::new("b", Dtype::F64, [5]).unwrap(),
    ]
}

impl Model {
    pub(crate) fn zeros() -> Model {
        Model { w: vec![0.0; 600], b: vec![0.0; 5] }
    }

    pub(crate) fn of(bytes: &[u8]) -> Model {
        let (w, b) = bytes.split_at(2400);
        Model {
            w: w.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect(),
            b: b.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect(),
        }
    }

    pub(crate) fn bytes(&self) -> Bytes {
        let w = self.w.iter().flat_map(|value| value.to_le_bytes());
        w.chain(self.b.iter().flat_map(|value| value.to_le_bytes())).collect()
    }

    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = ModelHasher::new();
        let bytes = self.bytes();
        let mut rest = &bytes[..];
        for spec in specs() {
            let (own, others) = rest.split_at(usize::try_from(spec.byte_len()).unwrap());
            hasher.tensor(&spec);
            hasher.bytes(own);
            rest = others;
        }
        hasher.finish()
    }

    /// What a site makes of a model in a round: always the same.
    pub(crate) fn trained(mut self, site: &SiteName, round: u32) -> Model {
        let mark = Digest::of(format!("{site} {round}").as_bytes());
        let mark = mark.as_bytes();
        for (idx, value) in self.w.iter_mut().enumerate() {
            *value = *value * 0.9 + f32::from(mark[idx % 32]) / 100.0 + idx as f32 * 1e-3;
        }
        for (idx, value) in self.b.iter_mut().enumerate() {
            *value += f64::from(mark[idx % 32]) / 7.0;
        }
        self
    }
}

/// What a site's results weigh: a fraction, as a site may count shares of examples.
pub(crate) fn num_examples(site: &SiteName) -> f64 {
    (f64::from(Digest::of(site.as_str().as_bytes()).as_bytes()[0]) + 1.0) / 768.0
}

pub(crate) fn submission(task: TaskId, slots: Vec<SubmittedSlot>, num_examples: f64) -> Submission {
    let metrics = Metrics::from([("accuracy".to_owned(), 1.0 / num_examples)]);
    Submission { task, slots, num_examples, metrics }
}

pub(crate) fn slot(order: &WorkOrder) -> SlotName {
    order.expects[0].0.clone()
}

// --- small things ---

pub(crate) fn plan(rounds: u32, min: u32, more: &str) -> String {
    format!("[run]\nname = \"test\"\nrounds = {rounds}\n{more}\n[cohort]\nmin = {min}\n")
}

pub(crate) fn request(plan: &str) -> CreateRun {
    CreateRun { plan: plan.to_owned(), init: None, upload: None, app: None, from: None }
}

pub(crate) fn name(text: &str) -> SiteName {
    SiteName::new(text).unwrap()
}

pub(crate) fn participant(site: &str, key_fingerprint: Digest) -> Identity {
    Identity { trust_domain: "study".to_owned(), name: name(site), role: Role::Participant, key_fingerprint }
}

pub(crate) fn operator(site: &str) -> Identity {
    let key_fingerprint = Digest::of(site.as_bytes());
    Identity { trust_domain: "study".to_owned(), name: name(site), role: Role::Operator, key_fingerprint }
}

pub(crate) fn days(days: u64) -> Span {
    Span::from_secs(days * 24 * 3600)
}
