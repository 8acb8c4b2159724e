//! The one way into the coordinator: a cheaply cloned handle whose calls every front-end translates to.
//!
//! Each call takes the caller's established identity and checks role, revocation and the ownership of every id itself.

mod apps;
mod enrolment;
mod keyless;
mod mail;
mod membership;
mod models;
mod operator;
mod overview;
mod records;
mod removal;
mod sites;
mod submissions;
mod uploads;

use std::future::Future;
use std::sync::Arc;

use sheaf_domain::{Digest, EntryDraft, Identity, JournalId, Role, RunId, SiteName};
use sheaf_engine::RunState;
use sheaf_runtime::Compute;
use sheaf_store::SignedHead;
use tokio::sync::oneshot;

use crate::Error;
use crate::command::{Command, Look};
use crate::fold::Coder;
use crate::incidents::Kind;
use crate::registry::SiteKeyFacts;
use crate::shared::Shared;

pub use apps::AppHost;
pub use enrolment::{Certificate, Enrolment};
pub use membership::InviteRequest;
pub use models::{ModelRef, Progress, Which};
pub use operator::{CreateProgram, CreateRun};
pub use overview::SiteOverview;
pub use records::{BLOBS_DIR, BackupReport, COMPLETE_FILE, STATE_FILE};
pub use removal::{Force, RemovedRun};
pub use sites::{Beat, BeatReply, Delivery, WorkOrder};
pub use uploads::{Room, Upload};

pub(crate) use mail::{expired_mail, waiting_mail};

/// A handle on the coordinator.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared }
    }

    /// Checks from memory that `who` may act in `role` now.
    ///
    /// # Errors
    /// Permission denied, saying why: another role, not enrolled, revoked, waiting for approval, another key. A known site's
    /// refusal is noted where operators see it.
    pub fn authorise(&self, who: &Identity, role: Role) -> Result<(), Error> {
        let authorised = self.shared.registry.authorise(who, role);
        if let Err(error) = &authorised
            && self.shared.registry.site(&who.name).is_some()
        {
            self.shared.incident(&who.name, Kind::AccessRefused, None, &error.to_string());
        }
        authorised
    }

    /// Resolves when the site is revoked; front-ends end its live connections then.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn revoked(&self, site: &SiteName) {
        self.shared.registry.revoked(site).await;
    }

    /// The key a signed request must have been made with, by its fingerprint.
    pub fn signing_key(&self, key_fingerprint: &Digest) -> Option<SiteKeyFacts> {
        let site = self.shared.registry.by_key(key_fingerprint)?;
        let certificate = site.certificate.as_ref()?;
        Some(SiteKeyFacts {
            site: site.name.clone(),
            role: site.role,
            public_key_der: site.public_key_der.clone().into(),
            not_after: certificate.not_after,
        })
    }

    /// The trust domain identities belong to.
    pub fn trust_domain(&self) -> &str {
        self.shared.ca.trust_domain()
    }

    /// Carries out `work` to its end, also if the caller does not stay to hear of it.
    pub(crate) async fn to_the_end<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let done = self.shared.scope.spawn(work).await;
        done.map_err(|_| Error::internal("the work was cut off by a fault of the server"))?
    }

    /// Writes an entry of the federation's own journal and waits until it is durable.
    pub(crate) async fn federation_entry(&self, kind: &str, body: &serde_json::Value) -> Result<(), Error> {
        let draft = EntryDraft { at: self.shared.clock.now(), kind: kind.to_owned(), body: body.to_string() };
        let (reply, answer) = oneshot::channel();
        self.shared.send(Command::Federation { draft, reply: Some(reply) }).await?;
        answer.await.map_err(|_| Error::shutting_down())?
    }

    /// Looks at what is durable: between two commits, in the writer's own order.
    pub(crate) async fn look<T, F>(&self, look: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let look = move || {
            // The asker may have gone away.
            let _ = reply.send(look(&shared));
        };
        self.shared.send(Command::Look(Look(Box::new(look)))).await?;
        answer.await.map_err(|_| Error::shutting_down())
    }

    /// Looks at what is durable of a run.
    pub(crate) async fn look_at<T, F>(&self, run: RunId, look: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&RunState) -> T + Send + 'static,
    {
        self.look(move |shared| shared.with_run(run, look)).await?
    }

    /// Lets runs name apps whose bundles `host` knows; the first host counts.
    pub fn host_apps(&self, host: Arc<dyn AppHost>) {
        // A second one changes nothing.
        let _ = self.shared.apps.set(host);
    }

    /// The pool for a front-end's work that would hold up I/O.
    pub fn compute(&self) -> &Compute {
        &self.shared.compute
    }

    /// Lets programs name the codecs that `coder` has; the first one counts.
    pub fn host_codecs(&self, coder: Arc<dyn Coder>) {
        // A second one changes nothing.
        let _ = self.shared.coder.set(coder);
    }

    /// How long a request for work may be held.
    pub fn hold_max(&self) -> sheaf_domain::Span {
        self.shared.settings.hold_max
    }
}

/// Signs the end of a journal and keeps the signature.
pub(crate) async fn sign_head(shared: &Shared, journal: JournalId) -> Result<SignedHead, Error> {
    let (seq, hash) = shared.store.head(journal).await?;
    let signature =
        shared.signer.sign_head(journal, seq, &hash).map_err(|error| Error::internal(error.to_string()))?;
    let head = SignedHead { journal, seq, hash, signature, at: shared.clock.now() };
    if seq > 0 {
        shared.store.put_signed_head(head.clone()).await?;
    }
    Ok(head)
}
