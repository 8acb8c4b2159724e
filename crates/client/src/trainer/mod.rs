//! Trainers: what a site runs when it is given work, chosen and configured by the site alone.
//!
//! A trainer gets a [`TrainJob`] and yields a [`TrainResult`]; it knows nothing of servers and transports. Built in are
//! [`BuiltinTrainer`]s over data in memory; [`ExecTrainer`] makes any command one. No name in a plan becomes a path, a
//! command or a variable: a plan chooses among the trainers a site has configured, as far as its [`SitePolicy`] allows.

mod builtin;
mod error;
mod exec;
mod policy;
mod site;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use sheaf_domain::{ConfigMap, RunId, SiteName, StageName};
use sheaf_tensor::ParamSet;

pub use builtin::{BuiltinSpec, BuiltinTrainer};
pub use error::Error;
pub use exec::{ExecSpec, ExecTrainer, parse_metrics, parse_model};
pub use policy::{KeyLimit, SitePolicy};
pub use site::{TrainerSpec, Trainers};

/// A piece of work as a trainer sees it.
#[derive(Debug, Clone)]
pub struct TrainJob {
    /// The run.
    pub run: RunId,
    /// The run's name, for people.
    pub run_name: String,
    /// The round, from 1; 0 for initialisation.
    pub round: u32,
    /// The stage.
    pub stage: StageName,
    /// The site that works.
    pub site: SiteName,
    /// The run's seed. A trainer's randomness is a function of it, the site and the round, never of the attempt.
    pub seed: u64,
    /// What the plan says to the trainer; a key `trainer` is the site's business and none of the trainer's.
    pub config: ConfigMap,
    /// The model handed out; none for initialisation.
    pub model: Option<ParamSet>,
    /// A directory of this job's own, existing and empty; kept or removed by the caller.
    pub scratch: PathBuf,
}

/// What became of a piece of work.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainResult {
    /// The model made; none from an evaluation.
    pub model: Option<ParamSet>,
    /// The number of examples it rests on, positive; what it weighs.
    pub num_examples: f64,
    /// Named numbers, all finite.
    pub metrics: BTreeMap<String, f64>,
}

/// Something that trains.
///
/// All methods: the same job gives the same result, whichever attempt it is.
///
/// # Cancel safety
/// Dropping a future gives the work up: a process is killed; a computation in memory ends by itself, unheard.
#[async_trait]
pub trait Trainer: std::fmt::Debug + Send + Sync + 'static {
    /// Makes the first model.
    ///
    /// # Errors
    /// [`Error`], naming what was wrong with the job, the data or the trainer.
    async fn init(&self, job: &TrainJob) -> Result<TrainResult, Error>;

    /// Trains the model handed out.
    ///
    /// # Errors
    /// As [`Trainer::init`].
    async fn train(&self, job: &TrainJob) -> Result<TrainResult, Error>;

    /// Measures the model handed out.
    ///
    /// # Errors
    /// As [`Trainer::init`].
    async fn evaluate(&self, job: &TrainJob) -> Result<TrainResult, Error>;

    /// Does what the job's stage asks for: `init` and `evaluate` by their names, everything else is training.
    ///
    /// # Errors
    /// As [`Trainer::init`].
    async fn perform(&self, job: &TrainJob) -> Result<TrainResult, Error> {
        match job.stage.as_str() {
            "init" => self.init(job).await,
            "evaluate" => self.evaluate(job).await,
            _ => self.train(job).await,
        }
    }
}
