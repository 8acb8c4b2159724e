//! Tests of the built-in trainers, commands, and a site's choice among them.

mod builtin;
mod exec;
mod python;
mod site;

use std::path::Path;

use sheaf_domain::{ConfigMap, ConfigValue, RunId, SiteName, StageName};
use sheaf_tensor::{Dtype, ParamSet, Tensor, TensorSpec};

use super::*;
use crate::data::{Dataset, ReadOptions};

pub(super) fn job(stage: &str, round: u32, model: Option<ParamSet>, scratch: &Path) -> TrainJob {
    TrainJob {
        run: RunId::new(0xabc).unwrap(),
        run_name: "digits".into(),
        round,
        stage: StageName::new(stage).unwrap(),
        site: SiteName::new("site-a").unwrap(),
        seed: 7,
        config: ConfigMap::new(),
        model,
        scratch: scratch.to_owned(),
    }
}

pub(super) fn config(entries: &[(&str, ConfigValue)]) -> ConfigMap {
    entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

pub(super) fn tensor(name: &str, values: &[f64]) -> Tensor {
    let spec = TensorSpec::new(name, Dtype::F32, [values.len() as u64]).unwrap();
    Tensor::from_f64(spec, values).unwrap()
}

pub(super) fn digits() -> Dataset {
    let options = ReadOptions { scale: 1.0 / 16.0, num_classes: Some(10), label: None };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/digits/digits.csv");
    Dataset::open(&path, &options).unwrap()
}
