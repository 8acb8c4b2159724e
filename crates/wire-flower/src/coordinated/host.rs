//! What a run that a plan drives needs of an app: a bundle with a ClientApp, settings the app has, and a model its arrays can carry.

use std::collections::BTreeMap;

use sheaf_coordinator::AppHost;
use sheaf_domain::{ConfigMap, ConfigValue, Manifest};
use sheaf_tensor::npy;

use crate::fab;
use crate::names::{ACCOUNT_ID, ACCOUNT_NAME, FEDERATION, SERVER_APP_TYPE};
use crate::proto::{Run, Scalar, scalar};
use crate::runs;

/// Knows bundles of Flower apps.
#[derive(Debug, Clone, Copy)]
pub struct FlowerApps;

impl AppHost for FlowerApps {
    fn header(&self, bundle: &[u8], config: &ConfigMap, model: Option<&Manifest>) -> Result<String, String> {
        let fab = fab::check(bundle).map_err(|error| error.to_string())?;
        if fab.client_app.is_none() {
            return Err("it has no clientapp among its components".to_owned());
        }
        let overrides = config.iter().map(|(key, value)| Ok((key.clone(), scalar_of(key, value)?)));
        let overrides = overrides.collect::<Result<BTreeMap<_, _>, String>>()?;
        fab::check_overrides(&fab, &overrides).map_err(|error| error.to_string())?;
        for spec in model.into_iter().flat_map(Manifest::specs) {
            // A dtype that NumPy does not have.
            npy::header(spec).map_err(|error| error.to_string())?;
        }
        Ok(runs::header(&Run {
            fab_id: fab.id,
            fab_version: fab.version,
            override_config: overrides,
            flwr_aid: ACCOUNT_ID.to_owned(),
            account_name: ACCOUNT_NAME.to_owned(),
            federation: FEDERATION.to_owned(),
            primary_task_type: SERVER_APP_TYPE.to_owned(),
            ..Run::default()
        }))
    }
}

fn scalar_of(key: &str, value: &ConfigValue) -> Result<Scalar, String> {
    let scalar = match value {
        ConfigValue::Bool(value) => scalar::Scalar::Bool(*value),
        ConfigValue::Int(value) => scalar::Scalar::Sint64(*value),
        ConfigValue::Float(value) => scalar::Scalar::Double(*value),
        ConfigValue::Text(text) => scalar::Scalar::String(text.clone()),
        _ => return Err(format!("the setting {key:?} is no truth value, number or text")),
    };
    Ok(Scalar { scalar: Some(scalar) })
}
