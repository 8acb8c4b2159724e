//! The ranges and combinations of a plan: what can be carried out, and what cannot.
//!
//! Every refusal names the line it stands on, where there is one, and what would be right. A plan that passes can be
//! carried out by some federation; whether by the one at hand is for the coordinator to say.

use super::source::{Lines, clipped};
use super::{
    AdaptiveSpec, AppSpec, CohortSpec, EvaluateSpec, Init, Keep, Plan, ROUNDS_MAX, StrategyKind, StrategySpec,
};
use crate::stage::ClipBound;
use crate::{ConfigMap, ConfigValue, Error, RunId, StageName};

/// Checks a plan; `lines` knows where its values stand.
pub(super) fn check(plan: &Plan, lines: &Lines<'_, '_>) -> Result<(), Error> {
    let check = Check { lines };
    check.run(plan)?;
    check.init(&plan.init)?;
    check.cohort(&plan.cohort)?;
    check.strategy(&plan.strategy, &plan.cohort)?;
    if let Some(trainer) = &plan.trainer {
        check.name("task.trainer", trainer)?;
    }
    if let Some(app) = &plan.app {
        check.app(app, plan)?;
    }
    check.config("task.init", &plan.init_config)?;
    check.config("task.train", &plan.train_config)?;
    if let Some(evaluate) = &plan.evaluate {
        check.evaluate(evaluate)?;
    }
    check.stop(plan)
}

struct Check<'l> {
    lines: &'l Lines<'l, 'l>,
}

impl Check<'_> {
    fn require(&self, holds: bool, path: &str, message: impl FnOnce() -> String) -> Result<(), Error> {
        if holds { Ok(()) } else { Err(self.lines.refuse(path, message())) }
    }

    fn name(&self, path: &str, name: &str) -> Result<(), Error> {
        // Names of plans follow the rule of every other name.
        match StageName::new(name) {
            Ok(_) => Ok(()),
            Err(Error::BadId { rule, .. }) => {
                Err(self.lines.refuse(path, format!("\"{}\" is not a usable name: {rule}", clipped(name))))
            }
            Err(other) => Err(other),
        }
    }

    fn run(&self, plan: &Plan) -> Result<(), Error> {
        self.name("run.name", &plan.name)?;
        self.require(plan.name.parse::<RunId>().is_err(), "run.name", || {
            "a name of 16 hexadecimal digits would be taken for a run's id; choose another".to_owned()
        })?;
        self.require((1..=ROUNDS_MAX).contains(&plan.rounds), "run.rounds", || {
            format!("`rounds` is {}; it must be from 1 to {ROUNDS_MAX}", plan.rounds)
        })?;
        for (path, keep) in [("run.keep_updates", plan.keep_updates), ("run.keep_models", plan.keep_models)] {
            self.require(keep != Keep::Rounds(0), path, || {
                "0 rounds cannot be kept; write \"round\" for the shortest time".to_owned()
            })?;
        }
        Ok(())
    }

    fn init(&self, init: &Init) -> Result<(), Error> {
        let Init::File(file) = init else { return Ok(()) };
        let known = file.ends_with(".safetensors") || file.ends_with(".npz");
        self.require(known, "model.init", || {
            format!("`init` = \"{}\" must be \"trainer\", a .safetensors or an .npz file", clipped(file))
        })?;
        let usable = file.len() <= PATH_LEN_MAX && !file.chars().any(char::is_control);
        self.require(usable, "model.init", || "`init` is not a usable file name".to_owned())
    }

    fn app(&self, app: &AppSpec, plan: &Plan) -> Result<(), Error> {
        let AppSpec { source, config } = app;
        let usable =
            !source.is_empty() && source.len() <= PATH_LEN_MAX && !source.chars().any(char::is_control);
        self.require(usable, "task.app", || {
            "`app` must name an app's directory or its .fab file, beside the plan".to_owned()
        })?;
        let place = if self.lines.at("model.init").is_some() { "model.init" } else { "task.app" };
        self.require(plan.init != Init::Trainer, place, || {
            "an app initialises no model; write [model] init = \"init.safetensors\" (or .npz), a file beside the plan"
                .to_owned()
        })?;
        let path = "task.app_config";
        self.require(config.len() <= KEYS_MAX, path, || format!("[{path}] has more than {KEYS_MAX} keys"))?;
        for (key, value) in config {
            let full = format!("{path}.{key}");
            self.named(&full, key)?;
            self.require(!matches!(value, ConfigValue::List(_)) && is_finite(value), &full, || {
                format!(
                    "`{key}` must be a truth value, a finite number or a text: an app's settings are no lists"
                )
            })?;
        }
        let evaluate = plan.evaluate.iter().map(|evaluate| ("task.evaluate", &evaluate.config));
        for (path, config) in [("task.train", &plan.train_config)].into_iter().chain(evaluate) {
            for (key, value) in config {
                self.require(is_of_one_sort(value), &format!("{path}.{key}"), || {
                    format!("`{key}` must be a list of values of one sort, without lists in it: an app is handed no other")
                })?;
            }
        }
        Ok(())
    }

    fn cohort(&self, cohort: &CohortSpec) -> Result<(), Error> {
        self.require((1..=COHORT_MAX).contains(&cohort.min), "cohort.min", || {
            format!("`min` is {}; it must be from 1 to {COHORT_MAX}", cohort.min)
        })?;
        for (path, key, share) in
            [("cohort.fraction", "fraction", cohort.fraction), ("cohort.quorum", "quorum", cohort.quorum)]
        {
            self.require(share > 0.0 && share <= 1.0, path, || {
                format!("`{key}` is {share}; it is a share, above 0 and at most 1")
            })?;
        }
        self.require(cohort.deadline.is_none_or(|span| span.as_millis() > 0), "cohort.deadline", || {
            "`deadline` is no time at all; leave it out for none".to_owned()
        })?;
        self.require((1..=ATTEMPTS_MAX).contains(&cohort.attempts), "cohort.attempts", || {
            format!("`attempts` is {}; it must be from 1 to {ATTEMPTS_MAX}", cohort.attempts)
        })?;
        self.positive("cohort.examples_max", cohort.examples_max)
    }

    fn strategy(&self, strategy: &StrategySpec, cohort: &CohortSpec) -> Result<(), Error> {
        match &strategy.kind {
            StrategyKind::Fedprox { proximal_mu } => {
                self.require(*proximal_mu >= 0.0 && proximal_mu.is_finite(), "strategy.proximal_mu", || {
                    format!("`proximal_mu` is {proximal_mu}; it must not be negative")
                })?;
            }
            StrategyKind::Fedavgm { server_learning_rate, server_momentum } => {
                self.positive("strategy.server_learning_rate", *server_learning_rate)?;
                self.decay("strategy.server_momentum", *server_momentum)?;
            }
            StrategyKind::Fedadagrad(spec) | StrategyKind::Fedadam(spec) | StrategyKind::Fedyogi(spec) => {
                self.adaptive(spec)?;
            }
            StrategyKind::TrimmedMean { trim_share } => {
                self.require((0.0..0.5).contains(trim_share), "strategy.trim_share", || {
                    format!("`trim_share` is {trim_share}; cut at both ends, it must be below 0.5 to leave anything")
                })?;
            }
            StrategyKind::Krum { byzantine, keep } => self.krum(*byzantine, *keep, cohort)?,
            StrategyKind::Fedavg | StrategyKind::Median => {}
        }
        self.clip(strategy)
    }

    fn adaptive(&self, spec: &AdaptiveSpec) -> Result<(), Error> {
        self.positive("strategy.server_learning_rate", spec.server_learning_rate)?;
        self.decay("strategy.beta1", spec.beta1)?;
        self.decay("strategy.beta2", spec.beta2)?;
        self.positive("strategy.tau", spec.tau)
    }

    fn krum(&self, byzantine: u32, keep: u32, cohort: &CohortSpec) -> Result<(), Error> {
        let least = u64::from(cohort.min);
        let needed = 2 * u64::from(byzantine) + 3;
        self.require(least >= needed, "strategy.byzantine", || {
            format!(
                "krum with byzantine = {byzantine} needs 2 × {byzantine} + 3 = {needed} submissions, \
                 and [cohort] min = {least} lets a round close with {least}; raise min"
            )
        })?;
        let honest = least.saturating_sub(u64::from(byzantine));
        self.require((1..=honest).contains(&u64::from(keep)), "strategy.keep", || {
            format!(
                "`keep` is {keep}; it must be from 1 to {honest}, what is left of {least} submissions \
                 without {byzantine} faulty ones"
            )
        })
    }

    fn clip(&self, strategy: &StrategySpec) -> Result<(), Error> {
        let Some(ClipBound::NormRatio(bound) | ClipBound::NormMax(bound)) = strategy.clip else {
            return Ok(());
        };
        let robust = matches!(
            strategy.kind,
            StrategyKind::Median | StrategyKind::TrimmedMean { .. } | StrategyKind::Krum { .. }
        );
        self.require(!robust, "strategy.clip", || {
            format!(
                "`clip` bounds the contributions to a mean; {} does without it: remove it",
                strategy.kind.name()
            )
        })?;
        self.positive("strategy.clip", bound)
    }

    fn evaluate(&self, evaluate: &EvaluateSpec) -> Result<(), Error> {
        self.require((1..=ROUNDS_MAX).contains(&evaluate.every), "task.evaluate.every", || {
            format!(
                "`every` is {}; it must be at least 1; leave [task.evaluate] out for none",
                evaluate.every
            )
        })?;
        let usable = !evaluate.metric.is_empty()
            && evaluate.metric.len() <= KEY_LEN_MAX
            && !evaluate.metric.chars().any(char::is_control);
        self.require(usable, "task.evaluate.metric", || {
            format!("`metric` must name a metric in at most {KEY_LEN_MAX} bytes")
        })?;
        self.config("task.evaluate", &evaluate.config)
    }

    fn stop(&self, plan: &Plan) -> Result<(), Error> {
        let Some(stop) = &plan.stop else { return Ok(()) };
        self.require(plan.evaluate.is_some(), "stop", || {
            "[stop] watches the metric of an evaluation; add [task.evaluate] or remove [stop]".to_owned()
        })?;
        self.require(stop.patience >= 1, "stop.patience", || {
            "`patience` is 0; it must be at least 1 evaluation".to_owned()
        })?;
        self.require(stop.min_delta >= 0.0 && stop.min_delta.is_finite(), "stop.min_delta", || {
            format!("`min_delta` is {}; it must not be negative", stop.min_delta)
        })
    }

    fn config(&self, path: &str, config: &ConfigMap) -> Result<(), Error> {
        self.require(config.len() <= KEYS_MAX, path, || format!("[{path}] has more than {KEYS_MAX} keys"))?;
        for (key, value) in config {
            let full = format!("{path}.{key}");
            self.key(path, &full, key)?;
            self.require(is_finite(value), &full, || format!("`{key}` must be a finite number"))?;
        }
        Ok(())
    }

    fn named(&self, full: &str, key: &str) -> Result<(), Error> {
        let named = !key.is_empty()
            && key.len() <= KEY_LEN_MAX
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        self.require(named, full, || {
            format!(
                "\"{}\" is not a usable key: at most {KEY_LEN_MAX} ASCII letters, digits, '.', '_' and '-'",
                clipped(key)
            )
        })
    }

    fn key(&self, path: &str, full: &str, key: &str) -> Result<(), Error> {
        self.named(full, key)?;
        let remedy = match key {
            "trainer" => "the trainer is chosen once, by [task] trainer",
            "proximal_mu" => "it is set by [strategy] kind = \"fedprox\" with `proximal_mu`",
            _ if SITES_OWN.contains(&key) => "what runs at a site is the site's own configuration",
            _ => return Ok(()),
        };
        self.require(false, full, || format!("[{path}] may not have `{key}`: {remedy}"))
    }

    fn positive(&self, path: &str, value: f64) -> Result<(), Error> {
        self.require(value > 0.0 && value.is_finite(), path, || {
            format!("`{}` is {value}; it must be positive", last(path))
        })
    }

    fn decay(&self, path: &str, value: f64) -> Result<(), Error> {
        self.require((0.0..1.0).contains(&value), path, || {
            format!("`{}` is {value}; it must be at least 0 and below 1", last(path))
        })
    }
}

fn is_finite(value: &ConfigValue) -> bool {
    match value {
        ConfigValue::Float(value) => value.is_finite(),
        ConfigValue::List(values) => values.iter().all(is_finite),
        _ => true,
    }
}

/// Whether a value is no list, or a list of values of one sort; whole numbers count as real ones.
fn is_of_one_sort(value: &ConfigValue) -> bool {
    let ConfigValue::List(values) = value else { return true };
    let all = |sort: fn(&ConfigValue) -> bool| values.iter().all(sort);
    all(|value| value.as_f64().is_some())
        || all(|value| value.as_str().is_some())
        || all(|value| matches!(value, ConfigValue::Bool(_)))
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Keys that would say what a site executes.
const SITES_OWN: [&str; 10] =
    ["command", "cmd", "args", "argv", "env", "environment", "workdir", "cwd", "path", "shell"];
/// The most participants `min` may ask for.
const COHORT_MAX: u32 = 1_000_000;
/// The most attempts at one stage.
const ATTEMPTS_MAX: u32 = 1_000;
/// The most keys of a task's configuration.
const KEYS_MAX: usize = 1_000;
/// The longest key and metric name, in bytes.
const KEY_LEN_MAX: usize = 128;
/// The longest file name, in bytes.
const PATH_LEN_MAX: usize = 4_096;
