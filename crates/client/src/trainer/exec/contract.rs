//! The files of the contract: what a command is given and what it has to leave.
//!
//! Everything read back is bounded and checked: lengths before reading, names, dtypes, shapes, finite numbers.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sheaf_domain::{ConfigMap, ConfigValue, RunId, SiteName, StageName};
use sheaf_tensor::{ParamSet, Tensor, element, safetensors};

use super::{Error, TrainJob, TrainResult};

/// What a command has to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// A model of any tensors.
    FirstModel,
    /// A model of the tensors of the one handed out.
    Model,
    /// Metrics only.
    Metrics,
}

/// Where the files of a job are, all in its scratch directory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) scratch: PathBuf,
    pub(super) job: PathBuf,
    pub(super) model_in: Option<PathBuf>,
    pub(super) model_out: PathBuf,
    pub(super) metrics_out: PathBuf,
}

/// The content of `job.json`.
#[derive(Serialize)]
struct JobFile<'a> {
    format: u32,
    run: RunId,
    run_name: &'a str,
    round: u32,
    stage: &'a StageName,
    site: &'a SiteName,
    seed: u64,
    config: &'a ConfigMap,
    model_in: Option<&'a Path>,
    model_out: &'a Path,
    metrics_out: &'a Path,
    scratch: &'a Path,
}

/// The content of `metrics-out.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsFile {
    num_examples: f64,
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
}

impl Files {
    pub(super) fn of(job: &TrainJob) -> Result<Files, Error> {
        let scratch = std::path::absolute(&job.scratch).map_err(Error::file("resolve", &job.scratch))?;
        Ok(Files {
            job: scratch.join("job.json"),
            model_in: job.model.is_some().then(|| scratch.join("model-in.safetensors")),
            model_out: scratch.join(MODEL_OUT),
            metrics_out: scratch.join(METRICS_OUT),
            scratch,
        })
    }

    /// Writes what the command is given.
    pub(super) fn write(&self, job: &TrainJob) -> Result<(), Error> {
        if let Some((key, _)) = job.config.iter().find(|(_, value)| !is_finite(value)) {
            return Err(Error::config(key, "it is not a finite number, which JSON has no form for"));
        }
        // An earlier attempt's answer is not this one's.
        for path in [&self.model_out, &self.metrics_out] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", path)(error));
                }
                _ => {}
            }
        }
        let file = JobFile {
            format: FORMAT,
            run: job.run,
            run_name: &job.run_name,
            round: job.round,
            stage: &job.stage,
            site: &job.site,
            seed: job.seed,
            config: &job.config,
            model_in: self.model_in.as_deref(),
            model_out: &self.model_out,
            metrics_out: &self.metrics_out,
            scratch: &self.scratch,
        };
        let json = serde_json::to_vec_pretty(&file)
            .map_err(|error| Error::file("write", &self.job)(std::io::Error::other(error)))?;
        std::fs::write(&self.job, json).map_err(Error::file("write", &self.job))?;
        if let (Some(path), Some(model)) = (&self.model_in, &job.model) {
            let file = std::fs::File::create(path).map_err(Error::file("create", path))?;
            let mut writer = std::io::BufWriter::new(file);
            safetensors::write(model, &BTreeMap::new(), &mut writer)?;
            writer.into_inner().map_err(|error| Error::file("write", path)(error.into_error()))?;
        }
        Ok(())
    }

    /// Reads and checks what the command left.
    pub(super) fn read(
        &self,
        expect: Expect,
        given: Option<&ParamSet>,
        output_max: u64,
    ) -> Result<TrainResult, Error> {
        let (num_examples, metrics) =
            parse_metrics(&read_bounded(&self.metrics_out, METRICS_OUT, METRICS_LEN_MAX)?)?;
        let read_model = || parse_model(read_bounded(&self.model_out, MODEL_OUT, output_max)?.into());
        let model = match expect {
            Expect::Metrics => None,
            Expect::FirstModel => Some(read_model()?),
            Expect::Model => {
                let model = read_model()?;
                Some(given.map_or_else(|| Ok(model.clone()), |given| like(given, &model))?)
            }
        };
        Ok(TrainResult { model, num_examples, metrics })
    }
}

/// Reads the text of a `metrics-out.json`: the number of examples, and the metrics by name.
///
/// # Errors
/// [`Error::Output`].
pub fn parse_metrics(text: &[u8]) -> Result<(f64, BTreeMap<String, f64>), Error> {
    let bad = |reason: String| Error::Output { file: METRICS_OUT, reason };
    let file: MetricsFile = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
    if !(file.num_examples.is_finite() && file.num_examples > 0.0) {
        return Err(bad(format!("num_examples of {} is not a positive number", file.num_examples)));
    }
    if file.metrics.len() > METRICS_MAX {
        return Err(bad(format!("it has {} metrics, more than {METRICS_MAX}", file.metrics.len())));
    }
    match file.metrics.keys().find(|name| name.is_empty() || name.len() > METRIC_NAME_LEN_MAX) {
        Some(_) => {
            Err(bad(format!("the name of a metric is not from 1 to {METRIC_NAME_LEN_MAX} bytes long")))
        }
        None => Ok((file.num_examples, file.metrics)),
    }
}

/// Reads the bytes of a `model-out.safetensors`: at least one tensor, all of them finite.
///
/// # Errors
/// [`Error::Output`].
pub fn parse_model(file: Bytes) -> Result<ParamSet, Error> {
    let bad = |reason: String| Error::Output { file: MODEL_OUT, reason };
    let model = safetensors::read(file).map_err(|error| bad(error.to_string()))?;
    if model.is_empty() {
        return Err(bad("it has no tensors".to_owned()));
    }
    for tensor in &model {
        if let Some(index) = element::first_non_finite(tensor.spec.dtype, &tensor.bytes) {
            return Err(bad(format!("tensor {:?} is not finite at index {index}", tensor.name())));
        }
    }
    Ok(model)
}

/// The tensors of `model` in the order of `given`, which they must match: writers of the format choose their own order.
fn like(given: &ParamSet, model: &ParamSet) -> Result<ParamSet, Error> {
    let bad = |reason: String| Error::Output { file: MODEL_OUT, reason };
    let mut tensors: Vec<Tensor> = Vec::with_capacity(given.len());
    for expected in given {
        let name = expected.name();
        let tensor = model
            .get(name)
            .ok_or_else(|| bad(format!("it lacks tensor {name:?} of the model handed out")))?;
        if tensor.spec != expected.spec {
            let (is, was) = (&tensor.spec, &expected.spec);
            let reason =
                format!("tensor {name:?} is {}{}, was {}{}", is.dtype, is.shape, was.dtype, was.shape);
            return Err(bad(reason));
        }
        tensors.push(tensor.clone());
    }
    if let Some(extra) = model.iter().find(|tensor| given.get(tensor.name()).is_none()) {
        return Err(bad(format!("tensor {:?} is not of the model handed out", extra.name())));
    }
    Ok(ParamSet::new(tensors)?)
}

fn read_bounded(path: &Path, name: &'static str, len_max: u64) -> Result<Vec<u8>, Error> {
    let bad = |reason: String| Error::Output { file: name, reason };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(bad("the command did not write it".to_owned()));
        }
        opened => opened.map_err(Error::file("open", path))?,
    };
    let facts = file.metadata().map_err(Error::file("read", path))?;
    if !facts.is_file() || facts.len() > len_max {
        return Err(bad(format!("it is no file of at most {len_max} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(len_max.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    if bytes.len() as u64 > len_max {
        return Err(bad(format!("it is longer than {len_max} bytes")));
    }
    Ok(bytes)
}

fn is_finite(value: &ConfigValue) -> bool {
    match value {
        ConfigValue::Float(value) => value.is_finite(),
        ConfigValue::List(values) => values.iter().all(is_finite),
        _ => true,
    }
}

const FORMAT: u32 = 1;
const MODEL_OUT: &str = "model-out.safetensors";
const METRICS_OUT: &str = "metrics-out.json";
/// The longest `metrics-out.json`, in bytes.
const METRICS_LEN_MAX: u64 = 1024 * 1024;
/// The most metrics of a result.
const METRICS_MAX: usize = 256;
/// The longest name of a metric, in bytes.
const METRIC_NAME_LEN_MAX: usize = 128;
