//! Settings and metrics: what the plan says in Flower's scalars, and a client's scalars as numbers.
//!
//! Beside its metrics an evaluation has a loss. Both travel as metrics here, the loss as `loss`; a metric of that name has a prime
//! added, and one more than it has where it ends in primes, so that neither is taken for the other.

use std::collections::BTreeMap;

use sheaf_domain::plan::Plan;
use sheaf_domain::{ConfigMap, ConfigValue, Metrics};

use crate::proto::Scalar;
use crate::proto::scalar::Scalar as Value;

/// The metric that an evaluation's loss is.
pub(crate) const LOSS: &str = "loss";

/// Says why a plan cannot be carried out with such clients.
///
/// # Errors
/// The reason, for people.
pub fn check_plan(plan: &Plan) -> Result<(), String> {
    if plan.trainer.is_some() {
        return Err("[task] trainer: these clients have no trainers to choose from; leave it out".to_owned());
    }
    let empty = ConfigMap::new();
    let evaluate = plan.evaluate.as_ref().map_or(&empty, |evaluate| &evaluate.config);
    for (section, config) in
        [("init", &plan.init_config), ("train", &plan.train_config), ("evaluate", evaluate)]
    {
        if let Some((key, _)) = config.iter().find(|(_, value)| scalar(value).is_none()) {
            return Err(format!("[task.{section}] {key}: these clients take no lists; write a text"));
        }
    }
    Ok(())
}

/// The settings of a task.
pub(crate) fn config(config: &ConfigMap) -> BTreeMap<String, Scalar> {
    config.iter().filter_map(|(key, value)| Some((key.clone(), scalar(value)?))).collect()
}

fn scalar(value: &ConfigValue) -> Option<Scalar> {
    let value = match value {
        ConfigValue::Bool(value) => Value::Bool(*value),
        ConfigValue::Int(value) => Value::Sint64(*value),
        ConfigValue::Float(value) => Value::Double(*value),
        ConfigValue::Text(value) => Value::String(value.clone()),
        _ => return None,
    };
    Some(Scalar { scalar: Some(value) })
}

/// A property as a name.
pub(crate) fn text(value: &Scalar) -> Option<String> {
    match value.scalar.as_ref()? {
        Value::String(value) => Some(value.clone()),
        Value::Sint64(value) => Some(value.to_string()),
        Value::Uint64(value) => Some(value.to_string()),
        _ => None,
    }
}

/// What there is of a client's metrics in finite numbers; the names of the others are dropped, and told.
#[expect(clippy::cast_precision_loss, reason = "a metric is a real number")]
pub(crate) fn metrics(scalars: BTreeMap<String, Scalar>) -> (Metrics, Vec<String>) {
    let (mut metrics, mut dropped) = (Metrics::new(), Vec::new());
    for (name, scalar) in scalars {
        let number = match scalar.scalar {
            Some(Value::Double(value)) => Some(value),
            Some(Value::Sint64(value)) => Some(value as f64),
            Some(Value::Uint64(value)) => Some(value as f64),
            Some(Value::Bool(value)) => Some(f64::from(u8::from(value))),
            Some(Value::String(_) | Value::Bytes(_)) | None => None,
        };
        match number.filter(|number| number.is_finite()) {
            Some(number) => drop(metrics.insert(name, number)),
            None => dropped.push(name),
        }
    }
    (metrics, dropped)
}

/// Puts the loss beside the metrics of an evaluation.
pub(crate) fn with_loss(metrics: Metrics, loss: Option<f64>) -> Metrics {
    let primed = |name: String| if is_loss(&name) { format!("{name}'") } else { name };
    let mut metrics: Metrics = metrics.into_iter().map(|(name, value)| (primed(name), value)).collect();
    metrics.extend(loss.map(|loss| (LOSS.to_owned(), loss)));
    metrics
}

/// Tells the loss from the metrics of an evaluation.
pub(crate) fn without_loss(metrics: &Metrics) -> (Option<f64>, Metrics) {
    let loss = metrics.get(LOSS).copied();
    let others = metrics.iter().filter(|(name, _)| *name != LOSS);
    let plain = |name: &String| match name.strip_suffix('\'') {
        Some(plain) if is_loss(plain) => plain.to_owned(),
        _ => name.clone(),
    };
    (loss, others.map(|(name, value)| (plain(name), *value)).collect())
}

/// Whether a name is that of the loss, with primes or without.
fn is_loss(name: &str) -> bool {
    name.trim_end_matches('\'') == LOSS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_and_a_metric_of_that_name_are_told_apart() {
        let own = Metrics::from([("loss".into(), 1.0), ("loss'".into(), 2.0), ("losses'".into(), 3.0)]);
        for loss in [None, Some(0.5)] {
            let together = with_loss(own.clone(), loss);
            assert_eq!(together.len(), 3 + usize::from(loss.is_some()));
            assert_eq!(without_loss(&together), (loss, own.clone()));
        }
    }

    #[test]
    fn what_is_no_finite_number_is_dropped_by_name() {
        let of = |value| Scalar { scalar: Some(value) };
        let given = BTreeMap::from([
            ("big".to_owned(), of(Value::Uint64(3))),
            ("blob".to_owned(), of(Value::Bytes(vec![0].into()))),
            ("flag".to_owned(), of(Value::Bool(true))),
            ("nan".to_owned(), of(Value::Double(f64::NAN))),
            ("none".to_owned(), Scalar { scalar: None }),
            ("signed".to_owned(), of(Value::Sint64(-2))),
        ]);
        let (kept, dropped) = metrics(given);
        assert_eq!(kept, Metrics::from([("big".into(), 3.0), ("flag".into(), 1.0), ("signed".into(), -2.0)]));
        assert_eq!(dropped, ["blob", "nan", "none"]);
    }

    #[test]
    fn a_plan_for_other_clients_is_refused_by_its_key() {
        let plan = |text: &str| Plan::parse(&format!("[run]\nname = \"x\"\nrounds = 1\n{text}")).unwrap();
        assert_eq!(check_plan(&plan("[task.train]\nepochs = 2\nname = \"a\"\n")), Ok(()));
        assert!(check_plan(&plan("[task]\ntrainer = \"mlp\"\n")).unwrap_err().contains("trainer"));
        assert!(check_plan(&plan("[task.train]\nlayers = [1]\n")).unwrap_err().contains("layers"));
    }
}
