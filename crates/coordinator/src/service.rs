//! The service as a whole: what it stands on, how it starts, how it ends.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use sheaf_blob::BlobStore;
use sheaf_pki::{CertificateAuthority, EnrolmentLimiter, JournalSigner};
use sheaf_runtime::crash::{self, Point};
use sheaf_runtime::{Clock, Compute, Entropy, TaskScope};
use sheaf_store::StateStore;
use sheaf_telemetry::Health;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::budget::Budget;
use crate::membership::Membership;
use crate::registry::Registry;
use crate::relay::Relays;
use crate::shared::{GATES_MAX, RELEASE_PERMITS, RunSlot, Shared};
use crate::tiles::Tiles;
use crate::vetted::Vetted;
use crate::writer::Writer;
use crate::{Error, Handle, Settings, housekeeping, recover};

/// How many commands wait for the writer at most; callers wait beyond it.
const QUEUE_LEN: usize = 1024;

/// What the coordinator stands on.
#[derive(Debug)]
pub struct Dependencies {
    /// Journals, sites, mail.
    pub store: Arc<dyn StateStore>,
    /// Bytes.
    pub blob: Arc<dyn BlobStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The pool for gate and folds.
    pub compute: Compute,
    /// Issues participants' certificates.
    pub ca: Arc<CertificateAuthority>,
    /// Signs journal heads.
    pub signer: Arc<JournalSigner>,
    /// Bounds enrolment; what else anybody may ask for has the same limits and buckets of its own.
    pub limiter: EnrolmentLimiter,
    /// Where the state of the stores is reported.
    pub health: Health,
}

/// The running service; its tasks live in the scope given to [`Coordinator::start`].
#[derive(Debug)]
pub struct Coordinator {
    handle: Handle,
    relays: Relays,
    scope: TaskScope,
}

impl Coordinator {
    /// Rebuilds every run from its journal, frees what nothing refers to, and starts the service in a child of `scope`.
    ///
    /// # Errors
    /// When the store cannot be read, a chain is broken, or another server holds a journal.
    /// # Cancel safety
    /// Dropping the future leaves stores from which the service can be started again.
    pub async fn start(
        dependencies: Dependencies,
        settings: Settings,
        scope: &TaskScope,
    ) -> Result<Coordinator, Error> {
        let (commands, queue) = mpsc::channel(QUEUE_LEN);
        let scope = scope.child();
        let (store, entropy, clock) = (&*dependencies.store, &*dependencies.entropy, &*dependencies.clock);
        let recovered = recover::load(store, entropy, clock).await?;
        let registry = Registry::load(store).await?;
        let membership = Membership::load(store).await?;
        let logins = crate::logins::Logins::load(store).await?;
        let shared = Arc::new(Shared {
            budget: Budget::new(settings.inflight, settings.inflight_wait),
            tiles: Tiles::new(settings.handing_out, settings.inflight_wait),
            vetted: Vetted::default(),
            settings,
            store: dependencies.store,
            blob: dependencies.blob,
            clock: dependencies.clock,
            entropy: dependencies.entropy,
            compute: dependencies.compute,
            ca: dependencies.ca,
            signer: dependencies.signer,
            key_limiter: dependencies.limiter.another(),
            login_limiter: dependencies.limiter.another(),
            limiter: dependencies.limiter,
            health: dependencies.health,
            scope: scope.clone(),
            commands,
            runs: RwLock::new(HashMap::new()),
            quarantine: crate::quarantine::Quarantine::default(),
            outboxes: crate::outbox::Outboxes::default(),
            tasks: crate::tasks::Tasks::default(),
            presence: crate::presence::Presence::default(),
            incidents: crate::incidents::Incidents::default(),
            registry,
            logins,
            folding: Mutex::new(HashSet::new()),
            uploads: Mutex::new(HashMap::new()),
            release_gate: Semaphore::new(RELEASE_PERMITS as usize),
            gates: Semaphore::new(GATES_MAX),
            membership,
            relays: OnceLock::new(),
            coder: OnceLock::new(),
            apps: OnceLock::new(),
            mail_posted: watch::Sender::new(0),
        });
        for state in recovered.runs {
            shared.put_run(RunSlot::new(state));
        }
        for (run, unreadable) in recovered.broken {
            if let recover::Unreadable::Broken(broken, before) = unreadable {
                shared.set_aside(run, broken, before.as_deref());
            }
        }
        shared.report_set_aside();
        // Before anything is written: what a fold writes is referred to by nothing yet.
        recover::sweep(&shared).await?;
        crash::reached(Point::Recovered);
        let relays = Relays::start(Arc::clone(&shared), recovered.holder.clone(), &scope).await?;
        let mut writer = Writer::new(Arc::clone(&shared), recovered.holder, recovered.heads);
        writer.take_up().await;
        shared.health.ok("store");
        scope.spawn(writer.run(queue));
        scope.spawn(housekeeping::run(Arc::clone(&shared)));
        relays.remove_lone_companions().await;
        Ok(Coordinator { handle: Handle::new(shared), relays, scope })
    }

    /// A handle on the service.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// A handle on relayed runs.
    pub fn relays(&self) -> Relays {
        self.relays.clone()
    }

    /// Stops taking commands, lets what is queued become durable, and ends every task of the service.
    ///
    /// # Cancel safety
    /// Dropped, the tasks still end, but nobody waits for them.
    pub async fn stop(self) {
        self.scope.cancel();
        self.scope.finished().await;
    }
}
