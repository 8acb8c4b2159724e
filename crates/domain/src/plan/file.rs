//! The TOML form of a plan: every section, key and default.
//!
//! Types and names are settled here, ranges and combinations in `check`. Refuses what it does not know, with the line
//! it stands on and the nearest name it does know.

use toml::de::{DeTable, DeValue};

use super::source::{Lines, Section, clipped, config_value, line_of, list, nearest};
use super::{
    AdaptiveSpec, AppSpec, Better, CohortSpec, EvaluateSpec, Init, Keep, PLAN_LEN_MAX, Plan, StopSpec,
    StrategyKind, StrategySpec, check,
};
use crate::stage::ClipBound;
use crate::{ConfigMap, Error};

impl Plan {
    /// Reads and checks the TOML form of a plan.
    ///
    /// | key | default |
    /// |---|---|
    /// | `[run]` `name`, `rounds` | none: they are required |
    /// | `seed`, `keep_updates`, `keep_models` | `0`, `"round"`, `"run"` |
    /// | `[model]` `init` | `"trainer"` |
    /// | `[strategy]` `kind` | `"fedavg"` |
    /// | `[cohort]` `min`, `fraction`, `quorum`, `deadline` | `2`, `1.0`, `1.0`, none |
    /// | `attempts`, `examples_max` | `3`, `1e12` |
    /// | `[task]` `trainer`, `app` | none: the site's only one, no app |
    /// | `[task.evaluate]` `every`, `metric`, `better` | `1`, `"accuracy"`, by the metric (`accuracy`, `loss`) |
    /// | `[stop]` `patience`, `min_delta` | required, `0.0` |
    ///
    /// The defaults of the strategies are those of Flower 1.42.0 (`flwr/serverapp/strategy`), except for FedAvgM's
    /// momentum: its 0.0 would make it FedAvg.
    ///
    /// | kind | parameters |
    /// |---|---|
    /// | `fedprox` | `proximal_mu` (required) |
    /// | `fedavgm` | `server_learning_rate` 1.0, `server_momentum` 0.9 |
    /// | `fedadagrad` | `server_learning_rate` 0.1, `beta1` 0.0, `tau` 0.001 |
    /// | `fedadam` | `server_learning_rate` 0.1, `beta1` 0.9, `beta2` 0.99, `tau` 0.001 |
    /// | `fedyogi` | `server_learning_rate` 0.01, `beta1` 0.9, `beta2` 0.99, `tau` 0.001 |
    /// | `trimmed-mean` | `trim_share` 0.2 |
    /// | `krum` | `byzantine` 0, `keep` 1 |
    ///
    /// # Errors
    /// [`Error::BadPlan`], with the line and the remedy.
    ///
    /// # Examples
    /// ```
    /// use sheaf_domain::plan::Plan;
    ///
    /// let plan = Plan::parse("[run]\nname = \"digits\"\nrounds = 20\n")?;
    /// assert_eq!(plan.cohort.min, 2);
    /// let error = Plan::parse("[run]\nname = \"digits\"\nronds = 20\n").unwrap_err();
    /// assert!(error.to_string().starts_with("line 3: [run] has no key `ronds`; did you mean `rounds`?"));
    /// # Ok::<(), sheaf_domain::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Plan, Error> {
        if text.len() > PLAN_LEN_MAX {
            let message = format!("the plan is {} bytes long; at most {PLAN_LEN_MAX} are read", text.len());
            return Err(Error::BadPlan { line: None, message });
        }
        if let Err(error) = crate::check_toml_marks(text) {
            return Err(Error::BadPlan { line: None, message: format!("the plan is not read: {error}") });
        }
        let table = DeTable::parse(text).map_err(|error| Error::BadPlan {
            line: error.span().map(|span| line_of(text, span.start)),
            message: error.message().trim_end().replace('\n', "; "),
        })?;
        let lines = Lines::of(text, table.get_ref());
        let plan = plan(Section::root(table.get_ref(), &lines))?;
        check::check(&plan, &lines)?;
        Ok(plan)
    }

    /// Checks the ranges and combinations [`Plan::parse`] checks; for a plan that came from no file.
    ///
    /// # Errors
    /// [`Error::BadPlan`] without a line.
    pub fn check(&self) -> Result<(), Error> {
        check::check(self, &Lines::default())
    }
}

fn plan(mut root: Section<'_, '_>) -> Result<Plan, Error> {
    let mut run = root.section("run")?;
    let mut model = root.section("model")?;
    let strategy = strategy(root.section("strategy")?);
    let cohort = cohort(root.section("cohort")?);
    let mut task = root.section("task")?;
    let stop = stop(root.section("stop")?);
    if !run.is_present() {
        // A misspelt `[run]` deserves its own message.
        root.finish()?;
        let message = "the plan lacks its [run] section; write [run] with `name` and `rounds`".to_owned();
        return Err(Error::BadPlan { line: None, message });
    }
    let name = run.text("name")?;
    let rounds = run.count("rounds")?;
    let plan = Plan {
        seed: run.whole("seed")?.unwrap_or(0),
        keep_updates: keep(&mut run, "keep_updates")?.unwrap_or(Keep::Round),
        keep_models: keep(&mut run, "keep_models")?.unwrap_or(Keep::Run),
        init: init(&mut model)?,
        strategy: strategy?,
        cohort: cohort?,
        trainer: task.text("trainer")?,
        app: app(&mut task)?,
        init_config: free(task.section("init")?)?,
        train_config: free(task.section("train")?)?,
        evaluate: evaluate(task.section("evaluate")?)?,
        stop: stop?,
        name: name.clone().unwrap_or_default(),
        rounds: rounds.unwrap_or_default(),
    };
    if name.is_none() || rounds.is_none() {
        let lacking = if name.is_none() { ("name", "name = \"digits\"") } else { ("rounds", "rounds = 20") };
        let lacks = run.lacks(lacking.0, lacking.1);
        return run.finish().and(Err(lacks));
    }
    run.finish()?;
    model.finish()?;
    task.finish()?;
    root.finish()?;
    Ok(plan)
}

fn app(task: &mut Section<'_, '_>) -> Result<Option<AppSpec>, Error> {
    let source = task.text("app")?;
    let config = task.section("app_config")?;
    if source.is_none() && config.is_present() {
        let message = "[task.app_config] gives an app's own settings other values, and [task] names no `app`";
        return Err(task.refuse("app_config", message));
    }
    let config = free(config)?;
    Ok(source.map(|source| AppSpec { source, config }))
}

fn keep(section: &mut Section<'_, '_>, key: &'static str) -> Result<Option<Keep>, Error> {
    let expected = "\"round\", \"run\" or a number of rounds";
    match section.value(key) {
        None => Ok(None),
        Some(DeValue::String(text)) if text == "round" => Ok(Some(Keep::Round)),
        Some(DeValue::String(text)) if text == "run" => Ok(Some(Keep::Run)),
        Some(DeValue::Integer(_)) => Ok(section.count(key)?.map(Keep::Rounds)),
        Some(other) => Err(section.mismatch(key, other, expected)),
    }
}

fn init(model: &mut Section<'_, '_>) -> Result<Init, Error> {
    Ok(match model.text("init")? {
        None => Init::Trainer,
        Some(init) if init == "trainer" => Init::Trainer,
        Some(file) => Init::File(file),
    })
}

fn strategy(mut section: Section<'_, '_>) -> Result<StrategySpec, Error> {
    let kind = section.text("kind")?.unwrap_or_else(|| "fedavg".to_owned());
    let Some((_, parameters)) = PARAMETERS.iter().find(|(name, _)| *name == kind) else {
        let remedy = match nearest(&kind, &StrategyKind::NAMES) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => format!("there is {}", list(&StrategyKind::NAMES)),
        };
        return Err(section.refuse("kind", format!("there is no strategy \"{}\"; {remedy}", clipped(&kind))));
    };
    refuse_foreign(&section, &kind, parameters)?;
    let spec =
        StrategySpec { kind: strategy_kind(&mut section, &kind)?, clip: clip(section.section("clip")?)? };
    section.finish()?;
    Ok(spec)
}

/// Refuses a parameter that another strategy has and this one has not.
fn refuse_foreign(section: &Section<'_, '_>, kind: &str, parameters: &[&str]) -> Result<(), Error> {
    for (key, _) in section.rest() {
        let owners: Vec<&str> =
            PARAMETERS.iter().filter(|(_, names)| names.contains(&key)).map(|(owner, _)| *owner).collect();
        if !owners.is_empty() && !parameters.contains(&key) {
            let message = format!("`{key}` is no parameter of {kind}; it belongs to {}", owners.join(", "));
            return Err(section.refuse(key, message));
        }
    }
    Ok(())
}

fn strategy_kind(section: &mut Section<'_, '_>, kind: &str) -> Result<StrategyKind, Error> {
    Ok(match kind {
        "fedprox" => StrategyKind::Fedprox {
            proximal_mu: section
                .real("proximal_mu")?
                .ok_or_else(|| section.lacks("proximal_mu", "proximal_mu = 0.1"))?,
        },
        "fedavgm" => StrategyKind::Fedavgm {
            server_learning_rate: section.real("server_learning_rate")?.unwrap_or(1.0),
            server_momentum: section.real("server_momentum")?.unwrap_or(0.9),
        },
        "fedadagrad" => StrategyKind::Fedadagrad(AdaptiveSpec {
            server_learning_rate: section.real("server_learning_rate")?.unwrap_or(0.1),
            beta1: section.real("beta1")?.unwrap_or(0.0),
            beta2: 0.0,
            tau: section.real("tau")?.unwrap_or(1e-3),
        }),
        "fedadam" => StrategyKind::Fedadam(adaptive(section, 0.1)?),
        "fedyogi" => StrategyKind::Fedyogi(adaptive(section, 0.01)?),
        "median" => StrategyKind::Median,
        "trimmed-mean" => {
            StrategyKind::TrimmedMean { trim_share: section.real("trim_share")?.unwrap_or(0.2) }
        }
        "krum" => StrategyKind::Krum {
            byzantine: section.count("byzantine")?.unwrap_or(0),
            keep: section.count("keep")?.unwrap_or(1),
        },
        _ => StrategyKind::Fedavg,
    })
}

fn adaptive(section: &mut Section<'_, '_>, server_learning_rate: f64) -> Result<AdaptiveSpec, Error> {
    Ok(AdaptiveSpec {
        server_learning_rate: section.real("server_learning_rate")?.unwrap_or(server_learning_rate),
        beta1: section.real("beta1")?.unwrap_or(0.9),
        beta2: section.real("beta2")?.unwrap_or(0.99),
        tau: section.real("tau")?.unwrap_or(1e-3),
    })
}

fn clip(mut section: Section<'_, '_>) -> Result<Option<ClipBound>, Error> {
    let ratio = section.real("norm_ratio")?;
    let max = section.real("norm_max")?;
    if section.is_present() && ratio.is_some() == max.is_some() {
        let lacks =
            section.lacks("norm_ratio", "clip = { norm_ratio = 4.0 } or clip = { norm_max = 1.0 }, not both");
        return section.finish().and(Err(lacks));
    }
    section.finish()?;
    Ok(ratio.map(ClipBound::NormRatio).or_else(|| max.map(ClipBound::NormMax)))
}

fn cohort(mut section: Section<'_, '_>) -> Result<CohortSpec, Error> {
    let cohort = CohortSpec {
        min: section.count("min")?.unwrap_or(2),
        fraction: section.real("fraction")?.unwrap_or(1.0),
        quorum: section.real("quorum")?.unwrap_or(1.0),
        deadline: section.span("deadline")?,
        attempts: section.count("attempts")?.unwrap_or(3),
        examples_max: section.real("examples_max")?.unwrap_or(1e12),
    };
    section.finish()?;
    Ok(cohort)
}

fn evaluate(mut section: Section<'_, '_>) -> Result<Option<EvaluateSpec>, Error> {
    if !section.is_present() {
        return Ok(None);
    }
    let every = section.count("every")?.unwrap_or(1);
    let metric = section.text("metric")?.unwrap_or_else(|| "accuracy".to_owned());
    let better = match (section.text("better")?.as_deref(), metric.as_str()) {
        (Some("higher"), _) | (None, "accuracy") => Better::Higher,
        (Some("lower"), _) | (None, "loss") => Better::Lower,
        (Some(other), _) => {
            let message = format!("`better` = \"{}\"; it must be \"higher\" or \"lower\"", clipped(other));
            return Err(section.refuse("better", message));
        }
        (None, _) => return Err(section.lacks("better", "better = \"higher\" or better = \"lower\"")),
    };
    Ok(Some(EvaluateSpec { every, metric, better, config: free(section)? }))
}

fn stop(mut section: Section<'_, '_>) -> Result<Option<StopSpec>, Error> {
    let patience = section.count("patience")?;
    let min_delta = section.real("min_delta")?.unwrap_or(0.0);
    let stop = match patience {
        None if section.is_present() => {
            let lacks = section.lacks("patience", "patience = 3");
            return section.finish().and(Err(lacks));
        }
        patience => patience.map(|patience| StopSpec { patience, min_delta }),
    };
    section.finish()?;
    Ok(stop)
}

/// The free keys of a task.
fn free(section: Section<'_, '_>) -> Result<ConfigMap, Error> {
    let mut config = ConfigMap::new();
    for (key, value) in section.rest() {
        let value = config_value(value, 0)
            .map_err(|reason| section.refuse(key, format!("`{}` {reason}", clipped(key))))?;
        config.insert(key.to_owned(), value);
    }
    Ok(config)
}

/// The parameters of each strategy; `kind` and `clip` are nobody's own.
const PARAMETERS: [(&str, &[&str]); 9] = [
    ("fedavg", &[]),
    ("fedprox", &["proximal_mu"]),
    ("fedavgm", &["server_learning_rate", "server_momentum"]),
    ("fedadagrad", &["server_learning_rate", "beta1", "tau"]),
    ("fedadam", &["server_learning_rate", "beta1", "beta2", "tau"]),
    ("fedyogi", &["server_learning_rate", "beta1", "beta2", "tau"]),
    ("median", &[]),
    ("trimmed-mean", &["trim_share"]),
    ("krum", &["byzantine", "keep"]),
];
