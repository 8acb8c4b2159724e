//! What a plan would do, in words: the text of `sheaf run --dry-run`.

use std::fmt::Write as _;

use super::{AdaptiveSpec, AppSpec, Better, Init, Keep, Plan, StrategyKind};
use crate::stage::ClipBound;
use crate::{ConfigMap, ConfigValue};

impl Plan {
    /// What would happen, one line a subject.
    pub fn summary(&self) -> String {
        let mut rows = vec![
            ("run", format!("{}, {}, seed {}", self.name, counted(self.rounds, "round"), self.seed)),
            ("model", self.model()),
            ("strategy", self.strategy_line()),
            ("cohort", self.cohort_line()),
            ("closes", self.closes_line()),
            ("train", config(&self.train_config)),
            ("evaluate", self.evaluate_line()),
            ("stops", self.stops_line()),
            ("keeps", format!("updates {}, models {}", kept(self.keep_updates), kept(self.keep_models))),
        ];
        let mut workers = Vec::new();
        if self.is_for_trainers() {
            workers
                .push(("trainer", self.trainer.clone().unwrap_or_else(|| "the site's only one".to_owned())));
        }
        if let Some(app) = &self.app {
            workers.push(("app", app.line()));
        }
        drop(rows.splice(5..5, workers));
        if self.init == Init::Trainer && !self.init_config.is_empty() {
            rows.insert(2, ("init", config(&self.init_config)));
        }
        rows.into_iter().fold(String::new(), |mut text, (subject, line)| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{subject:<9} {line}");
            text
        })
    }

    fn model(&self) -> String {
        match &self.init {
            Init::File(file) => format!("starts from {file}"),
            Init::Trainer => "starts from what the trainer of the first site present initialises".to_owned(),
        }
    }

    fn strategy_line(&self) -> String {
        let adaptive = |AdaptiveSpec { server_learning_rate, beta1, beta2, tau }: &AdaptiveSpec| {
            format!("server learning rate {server_learning_rate}, beta1 {beta1}, beta2 {beta2}, tau {tau}")
        };
        let parameters = match &self.strategy.kind {
            StrategyKind::Fedavg => "mean weighted by examples".to_owned(),
            StrategyKind::Fedprox { proximal_mu } => format!("proximal mu {proximal_mu}"),
            StrategyKind::Fedavgm { server_learning_rate, server_momentum } => {
                format!("server learning rate {server_learning_rate}, momentum {server_momentum}")
            }
            StrategyKind::Fedadagrad(AdaptiveSpec { server_learning_rate, beta1, tau, .. }) => {
                format!("server learning rate {server_learning_rate}, beta1 {beta1}, tau {tau}")
            }
            StrategyKind::Fedadam(spec) | StrategyKind::Fedyogi(spec) => adaptive(spec),
            StrategyKind::Median => "of each coordinate, unweighted".to_owned(),
            StrategyKind::TrimmedMean { trim_share } => self.trim(*trim_share),
            StrategyKind::Krum { byzantine, keep } => {
                format!("withstands {byzantine} faulty, averages the {keep} nearest")
            }
        };
        let clip = match self.strategy.clip {
            None => String::new(),
            Some(ClipBound::NormRatio(ratio)) => {
                format!("; each contribution clipped to {ratio} × the cohort's median norm")
            }
            Some(ClipBound::NormMax(max)) => format!("; each contribution clipped to norm {max}"),
        };
        format!("{}: {parameters}{clip}", self.strategy.kind.name())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count of 32 bits"
    )]
    fn trim(&self, trim_share: f64) -> String {
        let least = self.cohort.min;
        let cut = (trim_share * f64::from(least)).floor() as u32;
        format!("cuts {trim_share} off each end of each coordinate: {cut} of {least} in the smallest round")
    }

    fn cohort_line(&self) -> String {
        let cohort = &self.cohort;
        let share = if cohort.fraction >= 1.0 {
            "all participants present".to_owned()
        } else {
            format!("{} of the participants present", percent(cohort.fraction))
        };
        format!("{share}, at least {}; up to {} each", cohort.min, counted(cohort.attempts, "attempt"))
    }

    fn closes_line(&self) -> String {
        let cohort = &self.cohort;
        let quorum = if cohort.quorum >= 1.0 {
            "when all of the cohort have submitted".to_owned()
        } else {
            let (share, min) = (percent(cohort.quorum), cohort.min);
            format!("when {share} of the cohort, at least {min}, have submitted")
        };
        match cohort.deadline {
            None => format!("{quorum}; no deadline"),
            Some(deadline) => format!("{quorum}, or after {deadline} with at least {}", cohort.min),
        }
    }

    fn evaluate_line(&self) -> String {
        let Some(evaluate) = &self.evaluate else { return "never".to_owned() };
        let every = match evaluate.every {
            1 => "every round".to_owned(),
            every => format!("every {every} rounds and at the end"),
        };
        let better = match evaluate.better {
            Better::Higher => "highest",
            Better::Lower => "lowest",
        };
        let config = if evaluate.config.is_empty() {
            String::new()
        } else {
            format!("; {}", config(&evaluate.config))
        };
        format!("{every}; the model of {better} {} is the best{config}", evaluate.metric)
    }

    fn stops_line(&self) -> String {
        match &self.stop {
            None => format!("after round {}", self.rounds),
            Some(stop) => format!(
                "after round {}, or after {} without an improvement above {}",
                self.rounds,
                counted(stop.patience, "evaluation"),
                stop.min_delta
            ),
        }
    }
}

impl AppSpec {
    fn line(&self) -> String {
        let AppSpec { source, config: own } = self;
        if own.is_empty() { source.clone() } else { format!("{source}, with {}", config(own)) }
    }
}

fn kept(keep: Keep) -> String {
    match keep {
        Keep::Round => "until their round is over".to_owned(),
        Keep::Rounds(rounds) => format!("for {}", counted(rounds, "round")),
        Keep::Run => "as long as the run".to_owned(),
    }
}

fn config(config: &ConfigMap) -> String {
    if config.is_empty() {
        return "the trainer's defaults".to_owned();
    }
    config.iter().map(|(key, value)| format!("{key} = {}", shown(value))).collect::<Vec<_>>().join(", ")
}

fn shown(value: &ConfigValue) -> String {
    match value {
        ConfigValue::Bool(value) => value.to_string(),
        ConfigValue::Int(value) => value.to_string(),
        ConfigValue::Float(value) => format!("{value:?}"),
        ConfigValue::Text(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        ConfigValue::List(values) => {
            let more = if values.len() > 8 { ", …" } else { "" };
            format!("[{}{more}]", values.iter().take(8).map(shown).collect::<Vec<_>>().join(", "))
        }
    }
}

fn counted(count: u32, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn percent(share: f64) -> String {
    format!("{:.4}", share * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned() + " %"
}
