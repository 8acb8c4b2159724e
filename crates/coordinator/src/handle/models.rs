//! Which models of a run there are.

use std::sync::Arc;

use sheaf_domain::{Digest, Identity, LineageName, Manifest, Role, RunId, VersionRef};

use crate::{Error, Handle};

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

impl Handle {
    /// A model of a run.
    ///
    /// # Errors
    /// Not found when there is none or it is not kept.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn model(&self, who: &Identity, run: RunId, which: Which) -> Result<ModelRef, Error> {
        self.authorise(who, Role::Operator)?;
        let global = LineageName::global();
        self.look_at(run, move |state| {
            let (version, found) = match which {
                Which::Last => state
                    .newest(&global)
                    .ok_or_else(|| Error::not_found(format!("run {run} has no model yet")))?,
                Which::Best => state.newest(&LineageName::best()).ok_or_else(|| {
                    Error::not_found(format!("run {run} has evaluated no model; ask for the last"))
                })?,
                Which::Round(round) => state.version_of_round(round).ok_or_else(|| {
                    Error::not_found(format!("run {run} keeps no model of round {round} (see keep_models)"))
                })?,
            };
            Ok(ModelRef {
                version: VersionRef { run, lineage: global.clone(), version },
                digest: found.digest,
                manifest: Arc::clone(&found.manifest),
            })
        })
        .await?
    }
}
