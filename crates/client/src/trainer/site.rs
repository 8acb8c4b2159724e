//! The trainers of a site, by the names it gave them, and the choice among them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sheaf_domain::{Assignment, ConfigMap, ConfigValue};
use sheaf_messages::Order;
use sheaf_runtime::Compute;

use super::{BuiltinSpec, BuiltinTrainer, Error, ExecSpec, ExecTrainer, SitePolicy, TrainJob, Trainer};
use crate::participant::{Done, Job, Worker};

/// A trainer as a site's configuration describes it.
///
/// # Examples
/// ```
/// use sheaf_client::trainer::TrainerSpec;
///
/// let spec: TrainerSpec = toml::from_str("kind = \"mlp\"\ndata = \"shard.csv\"\nscale = 0.0625\n")?;
/// assert!(matches!(spec, TrainerSpec::Mlp(_)));
/// let typo = toml::from_str::<TrainerSpec>("kind = \"exec\"\ncommand = [\"train\"]\ntime_out = \"1h\"\n");
/// assert!(typo.is_err());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TrainerSpec {
    /// Softmax regression.
    Softmax(BuiltinSpec),
    /// A perceptron with one hidden layer.
    Mlp(BuiltinSpec),
    /// A command.
    Exec(ExecSpec),
}

impl TrainerSpec {
    /// Makes the trainer; `base` is where its relative paths begin. Reads the data of a built-in one, which may take a
    /// while.
    ///
    /// # Errors
    /// [`Error::Setting`] and [`Error::Data`].
    pub fn open(&self, base: &Path, compute: &Compute) -> Result<Arc<dyn Trainer>, Error> {
        let compute = compute.clone();
        Ok(match self {
            TrainerSpec::Softmax(spec) => Arc::new(BuiltinTrainer::open_softmax(spec, base, compute)?),
            TrainerSpec::Mlp(spec) => Arc::new(BuiltinTrainer::open_mlp(spec, base, compute)?),
            TrainerSpec::Exec(spec) => Arc::new(ExecTrainer::new(spec.clone(), base, compute)?),
        })
    }
}

/// The trainers of a site and what it accepts; at least one.
#[derive(Debug, Clone)]
pub struct Trainers {
    by_name: BTreeMap<String, Arc<dyn Trainer>>,
    policy: SitePolicy,
}

impl Trainers {
    /// Puts a site's trainers together.
    ///
    /// # Errors
    /// [`Error::Setting`] when there is none, or the policy names one there is not.
    pub fn new(by_name: BTreeMap<String, Arc<dyn Trainer>>, policy: SitePolicy) -> Result<Trainers, Error> {
        if by_name.is_empty() {
            return Err(Error::setting("trainers", "the site has none"));
        }
        let accepted = policy.trainers.iter().flatten();
        if let Some(name) = accepted.into_iter().find(|name| !by_name.contains_key(*name)) {
            let reason = format!("{name:?} is accepted, but there is no such trainer");
            return Err(Error::setting("policy.trainers", reason));
        }
        Ok(Trainers { by_name, policy })
    }

    /// A site's only trainer, with nothing refused.
    pub fn only(name: impl Into<String>, trainer: Arc<dyn Trainer>) -> Trainers {
        Trainers { by_name: BTreeMap::from([(name.into(), trainer)]), policy: SitePolicy::default() }
    }

    /// Makes the trainers of a site's configuration; `base` is where relative paths begin.
    ///
    /// # Errors
    /// Those of [`Trainers::new`] and [`TrainerSpec::open`], which name the trainer.
    pub fn open(
        specs: &BTreeMap<String, TrainerSpec>,
        policy: SitePolicy,
        base: &Path,
        compute: &Compute,
    ) -> Result<Trainers, Error> {
        let mut by_name = BTreeMap::new();
        for (name, spec) in specs {
            let trainer = spec.open(base, compute).map_err(|error| match error {
                Error::Setting { setting, reason } => {
                    Error::Setting { setting: format!("{name}.{setting}"), reason }
                }
                other => other,
            })?;
            by_name.insert(name.clone(), trainer);
        }
        Trainers::new(by_name, policy)
    }

    /// The trainer a task's configuration asks for; the only one where it asks for none.
    ///
    /// # Errors
    /// [`Error::Config`], naming those there are.
    pub fn choose(&self, config: &ConfigMap) -> Result<(&str, &Arc<dyn Trainer>), Error> {
        let names = || self.by_name.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let found = match config.get("trainer") {
            Some(ConfigValue::Text(name)) => self.by_name.get_key_value(name),
            Some(_) => None,
            None if self.by_name.len() == 1 => self.by_name.first_key_value(),
            None => {
                let reason = format!("the plan names no trainer and the site has several: {}", names());
                return Err(Error::config("trainer", reason));
            }
        };
        found.map(|(name, trainer)| (name.as_str(), trainer)).ok_or_else(|| {
            Error::config("trainer", format!("the site has no such trainer; it has {}", names()))
        })
    }

    /// Refuses work this site does not do; gives the trainer that would do it.
    ///
    /// # Errors
    /// Those of [`Trainers::choose`] and [`SitePolicy::admit`].
    pub fn admit(&self, work: &Assignment) -> Result<&Arc<dyn Trainer>, Error> {
        let (name, trainer) = self.choose(&work.config)?;
        self.policy.admit(work.run, &work.run_name, name, &work.config)?;
        Ok(trainer)
    }
}

#[async_trait]
impl Worker for Trainers {
    fn accept(&self, order: &Order) -> Result<(), String> {
        self.admit(&order.assignment).map(drop).map_err(|error| chain(&error))
    }

    async fn work(&self, job: Job) -> Result<Done, String> {
        let work = &job.order.assignment;
        let trainer = self.admit(work).map_err(|error| chain(&error))?;
        let model = match job.inputs.as_slice() {
            [] => None,
            [(_, model)] => Some(model.clone()),
            more => return Err(format!("the task has {} inputs; a trainer takes one model", more.len())),
        };
        let train = TrainJob {
            run: work.run,
            run_name: work.run_name.clone(),
            round: work.round,
            stage: work.stage.clone(),
            site: work.site.clone(),
            seed: work.seed,
            config: work.config.clone(),
            model,
            scratch: job.scratch.clone(),
        };
        let result = trainer.perform(&train).await.map_err(|error| chain(&error))?;
        let outputs = match (work.outputs.as_slice(), result.model) {
            ([], _) => Vec::new(),
            ([output], Some(model)) => vec![(output.slot.clone(), model)],
            ([output], None) => return Err(format!("the trainer made nothing for slot {}", output.slot)),
            (more, _) => {
                return Err(format!("the task wants {} outputs; a trainer makes one model", more.len()));
            }
        };
        Ok(Done { outputs, num_examples: result.num_examples, metrics: result.metrics })
    }
}

/// An error and what lies behind it, on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
