//! The classes that a plan may name: how outputs are aggregated, how tensors travel, when a round ends.
//!
//! A class is read from its own settings; one that is not known is refused by name, because no Python is run here.

use super::{section, unknown_class};
use crate::plan::settings::{Rest, Settings};
use crate::plan::yaml::{Map, Node, Value};
use crate::plan::{Aggregation, Place, PlanError, Straggler};
use crate::tensors::Pipeline;

pub(super) fn aggregation(node: Option<&Node>) -> Result<Aggregation, PlanError> {
    let Some(node) = node else { return Ok(Aggregation::WeightedAverage) };
    let parts = Settings::of("aggregation_type", Some(node))?;
    let template = parts.needed_text("template")?;
    let line = parts.node("template").map_or(node.line, |node| node.line);
    let (module, class) = template.rsplit_once('.').unwrap_or(("", template));
    let settings = Settings::of("aggregation_type", parts.node("settings"))?;
    parts.finish(Rest::Refused, &mut Vec::new())?;
    let not_served = |reason| PlanError::NotServed {
        what: format!("the aggregation {class}"),
        place: Place(line),
        reason,
    };
    if module != "openfl.interface.aggregation_functions"
        && !module.starts_with("openfl.interface.aggregation_functions.")
    {
        return Err(unknown_class(module, class, line));
    }
    // What is optimised is the model, so a plan has no parameters to name.
    for key in ["params", "model_interface", "agg_func"] {
        if let Some(node) = settings.node(key) {
            return Err(PlanError::NotServed {
                what: format!("{key} of the aggregation {class}"),
                place: Place(node.line),
                reason: "what is optimised is the model",
            });
        }
    }
    let rate = |key, default| {
        settings.number(key, default, "a number above 0", |value| value > 0.0 && value.is_finite())
    };
    let start = |default| {
        settings.number("initial_accumulator_value", default, "a number of at least 0", |value| {
            value >= 0.0 && value.is_finite()
        })
    };
    let read = match class {
        "WeightedAverage" => Aggregation::WeightedAverage,
        "Median" => Aggregation::Median,
        "GeometricMedian" => Aggregation::GeometricMedian,
        "FedCurvWeightedAverage" => Aggregation::FedCurv,
        "AdagradAdaptiveAggregation" => Aggregation::Adagrad {
            learning_rate: rate("learning_rate", 0.01)?,
            initial_accumulator_value: start(0.1)?,
            epsilon: rate("epsilon", 1e-10)?,
        },
        "AdamAdaptiveAggregation" => Aggregation::Adam {
            learning_rate: rate("learning_rate", 0.01)?,
            betas: betas(settings.node("betas"))?,
            initial_accumulator_value: start(0.0)?,
            epsilon: rate("epsilon", 1e-8)?,
        },
        "YogiAdaptiveAggregation" => return Err(not_served("use AdamAdaptiveAggregation in its place")),
        "SecureWeightedAverage" => return Err(not_served("secure aggregation is not served")),
        "FedBaggingXGBoost" => return Err(not_served("trees are not folded yet")),
        _ => return Err(unknown_class(module, class, line)),
    };
    settings.finish(Rest::Refused, &mut Vec::new())?;
    Ok(read)
}

fn betas(node: Option<&Node>) -> Result<[f64; 2], PlanError> {
    let Some(node) = node else { return Ok([0.9, 0.999]) };
    let Value::List(items) = &node.value else {
        return Err(PlanError::value(
            "aggregation_type",
            "betas",
            node.line,
            "two numbers from 0 to below 1",
        ));
    };
    match items.iter().map(|item| &item.value).collect::<Vec<_>>().as_slice() {
        [Value::Float(a), Value::Float(b)] if (0.0..1.0).contains(a) && (0.0..1.0).contains(b) => {
            Ok([*a, *b])
        }
        _ => Err(PlanError::value("aggregation_type", "betas", node.line, "two numbers from 0 to below 1")),
    }
}

pub(super) fn pipeline(plan: &Map) -> Result<Pipeline, PlanError> {
    let section = section(plan, "compression_pipeline")?;
    let class = section.class("openfl.pipelines", "NoCompressionPipeline")?;
    let settings = &section.settings;
    let share = |default| {
        settings.number("p_sparsity", default, "a share above 0 and at most 1", |p| p > 0.0 && p <= 1.0)
    };
    let clusters = || settings.whole("n_clusters", 6, 1, 64);
    let read = match class {
        "NoCompressionPipeline" => Pipeline::NoCompression,
        "RandomShiftPipeline" => Pipeline::RandomShift,
        "STCPipeline" => {
            clusters()?;
            Pipeline::Stc { p_sparsity: share(0.1)? }
        }
        "SKCPipeline" => Pipeline::Skc { p_sparsity: share(0.1)?, n_clusters: clusters()? },
        "KCPipeline" => {
            share(0.01)?;
            Pipeline::Kc { n_clusters: clusters()? }
        }
        "EdenPipeline" => {
            settings.ignore(&["device"]);
            Pipeline::Eden {
                n_bits: u8::try_from(settings.whole("n_bits", 8, 1, 8)?).unwrap_or(8),
                dim_threshold: u64::from(settings.whole("dim_threshold", 100, 0, u32::MAX)?),
            }
        }
        _ => return Err(section.unknown()),
    };
    section.settings.finish(Rest::Refused, &mut Vec::new())?;
    Ok(read)
}

pub(super) fn straggler(plan: &Map) -> Result<Straggler, PlanError> {
    let section = section(plan, "straggler_handling_policy")?;
    let class = section.class("openfl.component", "WaitForAllPolicy")?;
    let settings = &section.settings;
    let minimum = || settings.whole("minimum_reporting", 1, 1, u32::MAX);
    let read = match class {
        "WaitForAllPolicy" => Straggler::WaitForAll,
        "CutoffTimePolicy" => {
            settings.ignore(&["round_start_time"]);
            let above = |value: f64| value > 0.0;
            let cutoff_s = settings.number(
                "straggler_cutoff_time",
                f64::INFINITY,
                "a number of seconds above 0",
                above,
            )?;
            Straggler::CutoffTime { cutoff_s, minimum_reporting: minimum()? }
        }
        "PercentagePolicy" => {
            let share = |value: f64| value > 0.0 && value <= 1.0;
            let needed = settings.number(
                "percent_collaborators_needed",
                1.0,
                "a share above 0 and at most 1",
                share,
            )?;
            Straggler::Percentage { needed, minimum_reporting: minimum()? }
        }
        _ => return Err(section.unknown()),
    };
    section.settings.finish(Rest::Refused, &mut Vec::new())?;
    Ok(read)
}
