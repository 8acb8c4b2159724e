//! The built-in trainers: softmax regression and a perceptron over data in memory.
//!
//! They refuse plan keys they have no use for, by name. Their randomness is a function of the run's seed, the site and
//! the round: a second attempt gives the bits of the first. Computation runs in the compute pool.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sheaf_domain::rng::SeededRng;
use sheaf_domain::{ConfigMap, ConfigValue};
use sheaf_runtime::Compute;

use super::{Error, TrainJob, TrainResult, Trainer};
use crate::data::{Dataset, ReadOptions};
use crate::nn::{self, Network, Sgd};

/// Where a built-in trainer's data is; the site's own configuration. Paths are relative to the configuration's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltinSpec {
    /// The data to train on, `.csv` or `.npz`.
    pub data: PathBuf,
    /// The label's column in a CSV, by its name in the header; the last column where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The number of classes; the greatest label plus one where absent, which is too few at a site that lacks a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<usize>,
    /// What every feature is multiplied by, default 1.
    #[serde(default = "one")]
    pub scale: f64,
    /// The data to evaluate on; without it, and without `holdout`, evaluation is on the data trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// The share of `data` that is held back from training and evaluated on, default none. Not together with `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<f64>,
}

/// A built-in trainer over a site's data.
///
/// | stage | plan keys and defaults |
/// |---|---|
/// | `init` | `num_classes` (the data's), `hidden` (64; perceptron only) |
/// | `train` | `epochs` 1, `batch_size` 32 (0: all at once), `learning_rate` 0.1, `momentum` 0, `weight_decay` 0, `proximal_mu` 0 |
/// | `evaluate` | none |
///
/// Training reports `loss`, the mean over its last epoch; evaluation reports `loss` and `accuracy`.
#[derive(Debug, Clone)]
pub struct BuiltinTrainer {
    kind: Kind,
    train: Arc<Dataset>,
    test: Arc<Dataset>,
    compute: Compute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Softmax,
    Mlp,
}

impl BuiltinTrainer {
    /// Softmax regression. Evaluates on `test`, or on the data trained on where there is none.
    pub fn softmax(train: Dataset, test: Option<Dataset>, compute: Compute) -> BuiltinTrainer {
        BuiltinTrainer::over(Kind::Softmax, train, test, compute)
    }

    /// A perceptron with one hidden layer. Evaluates on `test`, or on the data trained on where there is none.
    pub fn mlp(train: Dataset, test: Option<Dataset>, compute: Compute) -> BuiltinTrainer {
        BuiltinTrainer::over(Kind::Mlp, train, test, compute)
    }

    /// Softmax regression over the data `spec` names.
    ///
    /// # Errors
    /// [`Error::Data`]; [`Error::Setting`] for both a test set and a holdout.
    pub fn open_softmax(spec: &BuiltinSpec, base: &Path, compute: Compute) -> Result<BuiltinTrainer, Error> {
        let (train, test) = spec.read(base)?;
        Ok(BuiltinTrainer::softmax(train, test, compute))
    }

    /// A perceptron over the data `spec` names.
    ///
    /// # Errors
    /// As [`BuiltinTrainer::open_softmax`].
    pub fn open_mlp(spec: &BuiltinSpec, base: &Path, compute: Compute) -> Result<BuiltinTrainer, Error> {
        let (train, test) = spec.read(base)?;
        Ok(BuiltinTrainer::mlp(train, test, compute))
    }

    fn over(kind: Kind, train: Dataset, test: Option<Dataset>, compute: Compute) -> BuiltinTrainer {
        let train = Arc::new(train);
        let test = test.map_or_else(|| Arc::clone(&train), Arc::new);
        BuiltinTrainer { kind, train, test, compute }
    }
}

#[async_trait]
impl Trainer for BuiltinTrainer {
    async fn init(&self, job: &TrainJob) -> Result<TrainResult, Error> {
        let keys = Keys { kind: self.kind, stage: "init", config: &job.config };
        keys.check(self.kind.init_keys())?;
        let num_classes = keys.whole("num_classes", self.train.num_classes(), 1)?;
        let network = match self.kind {
            Kind::Softmax => Network::softmax(self.train.num_features(), num_classes)?,
            Kind::Mlp => {
                let hidden = keys.whole("hidden", HIDDEN_DEFAULT, 1)?;
                Network::mlp(self.train.num_features(), hidden, num_classes, job.seed)?
            }
        };
        Ok(TrainResult {
            model: Some(network.to_params()?),
            num_examples: self.train.len() as f64,
            metrics: BTreeMap::new(),
        })
    }

    async fn train(&self, job: &TrainJob) -> Result<TrainResult, Error> {
        let keys = Keys { kind: self.kind, stage: "train", config: &job.config };
        let sgd = keys.sgd()?;
        let mut network = self.kind.model_of(job)?;
        let label = format!("train/{}/{}", job.site, job.round);
        let mut rng = SeededRng::new(job.seed, &label);
        let data = Arc::clone(&self.train);
        let trained = self.compute.run(move || {
            let loss = sgd.fit(&mut network, &data, &mut rng)?;
            Ok::<_, nn::Error>((network.to_params()?, loss))
        });
        let (model, loss) = trained.await??;
        let metrics = BTreeMap::from([("loss".to_owned(), loss)]);
        Ok(TrainResult { model: Some(model), num_examples: self.train.len() as f64, metrics })
    }

    async fn evaluate(&self, job: &TrainJob) -> Result<TrainResult, Error> {
        Keys { kind: self.kind, stage: "evaluate", config: &job.config }.check(&[])?;
        let network = self.kind.model_of(job)?;
        let data = Arc::clone(&self.test);
        let score = self.compute.run(move || network.evaluate(&data)).await??;
        if !score.loss.is_finite() {
            let reason = "its loss on the data is not finite".to_owned();
            return Err(nn::Error::Schema { reason }.into());
        }
        let metrics =
            BTreeMap::from([("loss".to_owned(), score.loss), ("accuracy".to_owned(), score.accuracy)]);
        Ok(TrainResult { model: None, num_examples: self.test.len() as f64, metrics })
    }
}

impl BuiltinSpec {
    fn read(&self, base: &Path) -> Result<(Dataset, Option<Dataset>), Error> {
        if !self.scale.is_finite() {
            return Err(Error::setting("scale", "it is not a finite number"));
        }
        let options =
            ReadOptions { label: self.label.clone(), num_classes: self.num_classes, scale: self.scale };
        let data = Dataset::open(&base.join(&self.data), &options)?;
        match (&self.test, self.holdout) {
            (Some(_), Some(_)) => {
                Err(Error::setting("holdout", "there is a `test` set already; keep one of the two"))
            }
            (Some(test), None) => Ok((data, Some(Dataset::open(&base.join(test), &options)?))),
            // The same rows for every run, so that no model is ever evaluated on what another was trained on.
            (None, Some(share)) => {
                data.split(share, 0).map(|(train, test)| (train, Some(test))).map_err(Error::from)
            }
            (None, None) => Ok((data, None)),
        }
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Softmax => "softmax",
            Kind::Mlp => "mlp",
        }
    }

    const fn init_keys(self) -> &'static [&'static str] {
        match self {
            Kind::Softmax => &["num_classes"],
            Kind::Mlp => &["hidden", "num_classes"],
        }
    }

    fn model_of(self, job: &TrainJob) -> Result<Network, Error> {
        let model = job.model.as_ref().ok_or_else(|| Error::NoModel { stage: job.stage.to_string() })?;
        let network = Network::from_params(model)?;
        let expected = match self {
            Kind::Softmax => 1,
            Kind::Mlp => 2,
        };
        if network.num_layers() != expected {
            let reason = format!("{} has {expected} layers, it has {}", self.name(), network.num_layers());
            return Err(nn::Error::Schema { reason }.into());
        }
        Ok(network)
    }
}

/// A job's configuration as a built-in trainer reads it.
struct Keys<'a> {
    kind: Kind,
    stage: &'static str,
    config: &'a ConfigMap,
}

impl Keys<'_> {
    fn check(&self, known: &[&str]) -> Result<(), Error> {
        // The trainer's name stands in every configuration; it was the site's to read.
        match self.config.keys().find(|key| *key != "trainer" && !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let (kind, stage) = (self.kind.name(), self.stage);
                Err(Error::config(
                    key,
                    format!("the built-in {kind} does not know it in its {stage} stage, which has {has}"),
                ))
            }
        }
    }

    fn sgd(&self) -> Result<Sgd, Error> {
        self.check(&["epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "proximal_mu"])?;
        let default = Sgd::default();
        let epochs = self.whole("epochs", 1, 1)?;
        let sgd = Sgd {
            epochs: u32::try_from(epochs)
                .map_err(|_| Error::config("epochs", format!("{epochs} is too many")))?,
            batch_size: self.whole("batch_size", default.batch_size, 0)?,
            learning_rate: self.real("learning_rate", default.learning_rate)?,
            momentum: self.real("momentum", default.momentum)?,
            weight_decay: self.real("weight_decay", default.weight_decay)?,
            proximal_mu: self.real("proximal_mu", default.proximal_mu)?,
        };
        if sgd.learning_rate <= 0.0 {
            return Err(Error::config("learning_rate", format!("{} is not positive", sgd.learning_rate)));
        }
        if !(0.0..1.0).contains(&sgd.momentum) {
            return Err(Error::config("momentum", format!("{} is not in [0, 1)", sgd.momentum)));
        }
        for (key, value) in [("weight_decay", sgd.weight_decay), ("proximal_mu", sgd.proximal_mu)] {
            if value < 0.0 {
                return Err(Error::config(key, format!("{value} is negative")));
            }
        }
        Ok(sgd)
    }

    fn whole(&self, key: &str, default: usize, min: usize) -> Result<usize, Error> {
        let Some(value) = self.config.get(key) else { return Ok(default) };
        value.as_i64().and_then(|value| usize::try_from(value).ok()).filter(|value| *value >= min).ok_or_else(
            || Error::config(key, format!("{} is not a whole number of at least {min}", shown(value))),
        )
    }

    fn real(&self, key: &str, default: f64) -> Result<f64, Error> {
        let Some(value) = self.config.get(key) else { return Ok(default) };
        value
            .as_f64()
            .filter(|value| value.is_finite())
            .ok_or_else(|| Error::config(key, format!("{} is not a finite number", shown(value))))
    }
}

fn shown(value: &ConfigValue) -> String {
    match value {
        ConfigValue::Bool(value) => value.to_string(),
        ConfigValue::Int(value) => value.to_string(),
        ConfigValue::Float(value) => value.to_string(),
        ConfigValue::Text(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        _ => "a list".to_owned(),
    }
}

fn one() -> f64 {
    1.0
}

const HIDDEN_DEFAULT: usize = 64;
