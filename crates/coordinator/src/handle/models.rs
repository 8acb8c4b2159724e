//! Which models of a run there are.

use std::sync::Arc;

use bytes::Bytes;
use sheaf_domain::{
    ByteSpan, Digest, Identity, LineageName, Manifest, Role, RunId, RunPhase, SlotName, StageName, VersionRef,
};

use crate::models::{self, Layout};
use crate::{Error, Handle, READ_LEN_MAX};

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

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The round going on or done last.
    pub round: u32,
    /// Rounds in all.
    pub rounds: u32,
    /// Where it stands in its life.
    pub phase: RunPhase,
}

impl Handle {
    /// How far a run has come, as far as that is durable.
    ///
    /// # Errors
    /// Not found; unavailable while the run is being rebuilt from its journal.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn progress(&self, who: &Identity, run: RunId) -> Result<Progress, Error> {
        self.authorise(who, Role::Operator)?;
        self.look_at(run, |state| Progress {
            round: state.round(),
            rounds: state.rounds(),
            phase: state.phase().clone(),
        })
        .await
    }

    /// The tensors that the caller itself handed in to a stage of the round going on; none where it has not, or the stage is over.
    ///
    /// # Errors
    /// Permission denied; not found; unavailable while the run is being rebuilt from its journal.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn handed_in(
        &self,
        who: &Identity,
        run: RunId,
        (round, stage): (u32, &StageName),
        slot: &SlotName,
    ) -> Result<Option<Arc<Manifest>>, Error> {
        self.authorise(who, Role::Participant)?;
        let (site, stage, slot) = (who.name.clone(), stage.clone(), slot.clone());
        self.look_at(run, move |state| {
            let (_, slots) = state.handed_in(&stage, &site).filter(|_| state.round() == round)?;
            slots.iter().find(|found| found.slot == slot).map(|found| Arc::new(found.manifest.clone()))
        })
        .await
    }

    /// Reads a stretch of what [`Handle::handed_in`] found; shorter where it ends. Its bytes are there while the stage is open.
    ///
    /// # Errors
    /// Permission denied; invalid argument above [`READ_LEN_MAX`]; when the bytes are gone.
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn read_handed_in(
        &self,
        who: &Identity,
        manifest: &Manifest,
        span: ByteSpan,
    ) -> Result<Bytes, Error> {
        self.authorise(who, Role::Participant)?;
        if span.len > READ_LEN_MAX {
            return Err(Error::invalid(format!("{} bytes exceed the limit of {READ_LEN_MAX}", span.len)));
        }
        models::read(&*self.shared.blob, &Layout::of(manifest), span).await
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
