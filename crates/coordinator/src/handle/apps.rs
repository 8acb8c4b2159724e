//! Apps that runs may name in place of a trainer, as their front-end knows them.

use std::sync::Arc;

use bytes::Bytes;
use sheaf_domain::plan::{AppSpec, Plan};
use sheaf_domain::{ConfigMap, Digest, LineageName, Manifest, RunId, SiteName};
use sheaf_engine::Start;

use super::CreateRun;
use crate::relay::{Beginning, Relays};
use crate::shared::upload_hold;
use crate::{Error, Handle};

/// Knows the bundles of the apps that participants of its stack run.
pub trait AppHost: Send + Sync + std::fmt::Debug {
    /// Checks a bundle, the settings of the app's own that a run gives other values, and the tensors that the run starts from, where
    /// they are handed in; returns what is kept with the run.
    ///
    /// # Errors
    /// Why no participant could work on a run of this app, for people.
    fn header(&self, bundle: &[u8], config: &ConfigMap, model: Option<&Manifest>) -> Result<String, String>;
}

/// The longest bundle that is looked at, in bytes; its front-end has a bound of its own.
const BUNDLE_LEN_MAX: u64 = 16 << 20;

impl Handle {
    /// Makes ready what the participants of an app need of a run that is about to be.
    ///
    /// # Errors
    /// Invalid argument when the app was not handed in or is refused, or this server has no participants for apps; as
    /// [`Relays::accompany`].
    pub(crate) async fn begin_app(
        &self,
        run: RunId,
        by: &SiteName,
        plan: &Plan,
        request: &CreateRun,
        start: &Start,
    ) -> Result<Option<Beginning>, Error> {
        let AppSpec { source, config } = match (&plan.app, request.app) {
            (Some(app), _) => app,
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                return Err(Error::invalid("an app was handed in, but the plan names none ([task] app)"));
            }
        };
        let Some(host) = self.shared.apps.get().map(Arc::clone) else {
            return Err(Error::invalid(format!(
                "the plan names the app {source:?}, and no participants that run apps are served here"
            )));
        };
        let missing =
            || Error::invalid(format!("the plan names the app {source:?}, but its bundle was not handed in"));
        let digest = request.app.ok_or_else(missing)?;
        let upload = request.upload.as_deref().ok_or_else(missing)?;
        let bundle = self.uploaded(upload, digest).await?.ok_or_else(missing)?;
        let first = match start {
            Start::Versions { versions, .. } => {
                versions.iter().find(|version| version.lineage == LineageName::global())
            }
            Start::Trainer => None,
        };
        let (unfolded, config) = (bundle.clone(), config.clone());
        let model = first.map(|version| version.manifest.clone());
        // The bundle is unfolded, which takes its time.
        let header = self.shared.compute.run(move || host.header(&unfolded, &config, model.as_ref())).await?;
        let header =
            header.map_err(|error| Error::invalid(format!("the app {source:?} is refused: {error}")))?;
        Ok(Some(Relays::of(&self.shared)?.accompany(run, by, bundle, header).await?))
    }

    /// A small object that an operator uploaded.
    async fn uploaded(&self, upload: &str, digest: Digest) -> Result<Option<Bytes>, Error> {
        let held = self.shared.blob.held(&upload_hold(upload)?).await?;
        let Some((_, len)) = held.into_iter().find(|(object, _)| *object == digest) else { return Ok(None) };
        if len > BUNDLE_LEN_MAX {
            let message = format!("the app's bundle has {len} bytes, at most {BUNDLE_LEN_MAX} are read");
            return Err(Error::invalid(message));
        }
        Ok(Some(self.shared.blob.read(&digest, 0, len).await?))
    }
}
