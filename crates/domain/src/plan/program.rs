//! From a plan to the stages the engine drives.

use super::{AdaptiveSpec, Plan, StrategyKind};
use crate::stage::{
    AdaptiveKind, CloseRule, FoldRule, Selector, ServerStep, StageFold, StageInput, StageOutput, StageSpec, StageStart,
    Weight,
};
use crate::{ConfigMap, ConfigValue, Error, LineageName, SlotName, SlotRole, StageName};

/// The name of the slot that carries the model, in and out.
const MODEL_SLOT: &str = "model";

impl Plan {
    /// The stage that makes version 0, for plans whose first model comes from a trainer.
    ///
    /// # Errors
    /// None for a checked plan.
    pub fn init_stage(&self) -> Result<StageSpec, Error> {
        Ok(StageSpec {
            name: StageName::new("init")?,
            start: StageStart::AfterPrevious,
            every: 1,
            selector: Selector::One,
            inputs: Vec::new(),
            outputs: vec![StageOutput {
                slot: SlotName::new(MODEL_SLOT)?,
                role: SlotRole::Weights,
                like: None,
            }],
            close: CloseRule::Quorum { share: 1.0, min: 1, deadline: self.cohort.deadline },
            folds: vec![StageFold {
                slot: SlotName::new(MODEL_SLOT)?,
                rule: FoldRule::Adopt,
                weight: Weight::Uniform,
                step: ServerStep::Replace,
                target: LineageName::global(),
            }],
            config: self.with_trainer(&self.init_config),
        })
    }

    /// The stages of a round, in order.
    ///
    /// # Errors
    /// None for a checked plan.
    pub fn stages(&self) -> Result<Vec<StageSpec>, Error> {
        let mut stages = vec![self.train_stage()?];
        if let Some(evaluate) = &self.evaluate {
            stages.push(StageSpec {
                name: StageName::new("evaluate")?,
                start: StageStart::AfterPrevious,
                every: evaluate.every,
                selector: Selector::SameAs(StageName::new("train")?),
                inputs: vec![model_input()?],
                outputs: Vec::new(),
                close: self.close_rule(),
                folds: Vec::new(),
                config: self.with_trainer(&evaluate.config),
            });
        }
        Ok(stages)
    }

    fn train_stage(&self) -> Result<StageSpec, Error> {
        let mut config = self.with_trainer(&self.train_config);
        if let StrategyKind::Fedprox { proximal_mu } = self.strategy.kind {
            config.insert("proximal_mu".to_owned(), ConfigValue::Float(proximal_mu));
        }
        Ok(StageSpec {
            name: StageName::new("train")?,
            start: StageStart::AfterPrevious,
            every: 1,
            selector: Selector::Sample { fraction: self.cohort.fraction, min: self.cohort.min },
            inputs: vec![model_input()?],
            outputs: vec![StageOutput {
                slot: SlotName::new(MODEL_SLOT)?,
                role: SlotRole::Weights,
                like: Some(LineageName::global()),
            }],
            close: self.close_rule(),
            folds: vec![StageFold {
                slot: SlotName::new(MODEL_SLOT)?,
                rule: self.fold_rule(),
                weight: Weight::NumExamples,
                step: self.server_step(),
                target: LineageName::global(),
            }],
            config,
        })
    }

    fn close_rule(&self) -> CloseRule {
        CloseRule::Quorum {
            share: self.cohort.quorum,
            min: self.cohort.min,
            deadline: self.cohort.deadline,
        }
    }

    fn with_trainer(&self, config: &ConfigMap) -> ConfigMap {
        let mut config = config.clone();
        if let Some(trainer) = &self.trainer {
            config.insert("trainer".to_owned(), ConfigValue::Text(trainer.clone()));
        }
        config
    }

    fn fold_rule(&self) -> FoldRule {
        match self.strategy.kind {
            StrategyKind::Median => FoldRule::Median,
            StrategyKind::TrimmedMean { trim_share } => FoldRule::TrimmedMean { share: trim_share },
            StrategyKind::Krum { byzantine, keep } => FoldRule::Krum { byzantine, keep },
            _ => match self.strategy.clip {
                Some(bound) => FoldRule::NormClippedMean { bound },
                None => FoldRule::WeightedMean,
            },
        }
    }

    fn server_step(&self) -> ServerStep {
        let adaptive = |kind, spec: AdaptiveSpec| ServerStep::Adaptive {
            kind,
            learning_rate: spec.server_learning_rate,
            beta1: spec.beta1,
            beta2: spec.beta2,
            tau: spec.tau,
        };
        match self.strategy.kind {
            StrategyKind::Fedavgm { server_learning_rate, server_momentum } => ServerStep::Momentum {
                learning_rate: server_learning_rate,
                momentum: server_momentum,
            },
            StrategyKind::Fedadagrad(spec) => adaptive(AdaptiveKind::Adagrad, spec),
            StrategyKind::Fedadam(spec) => adaptive(AdaptiveKind::Adam, spec),
            StrategyKind::Fedyogi(spec) => adaptive(AdaptiveKind::Yogi, spec),
            _ => ServerStep::Replace,
        }
    }
}

fn model_input() -> Result<StageInput, Error> {
    Ok(StageInput {
        slot: SlotName::new(MODEL_SLOT)?,
        role: SlotRole::Weights,
        lineage: LineageName::global(),
    })
}
