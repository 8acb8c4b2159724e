//! From a plan to the stages the engine drives.

use super::{AdaptiveSpec, Init, Plan, StrategyKind};
use crate::stage::{
    AdaptiveKind, Arithmetic, CloseRule, FoldRule, Program, Selector, ServerStep, StageFold, StageInput,
    StageOutput, StageSpec, StageStart, Weight,
};
use crate::{ConfigMap, ConfigValue, Error, LineageName, SlotName, SlotRole, StageName};

/// The name of the slot that carries the model, in and out.
const MODEL_SLOT: &str = "model";

impl Plan {
    /// The stages the plan comes to.
    ///
    /// # Errors
    /// None for a checked plan.
    pub fn program(&self) -> Result<Program, Error> {
        let init = match self.init {
            Init::Trainer => Some(self.init_stage()?),
            _ => None,
        };
        Ok(Program { init, stages: self.stages()?, judges: Vec::new() })
    }

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
            arithmetic: Arithmetic::Double,
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
                arithmetic: Arithmetic::Double,
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
            arithmetic: Arithmetic::Double,
        })
    }

    fn close_rule(&self) -> CloseRule {
        CloseRule::Quorum { share: self.cohort.quorum, min: self.cohort.min, deadline: self.cohort.deadline }
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
            StrategyKind::Fedavgm { server_learning_rate, server_momentum } => {
                ServerStep::Momentum { learning_rate: server_learning_rate, momentum: server_momentum }
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;
    use crate::plan::{Better, CohortSpec, EvaluateSpec, Init, Keep, StrategySpec};
    use crate::stage::ClipBound;

    fn plan(kind: StrategyKind) -> Plan {
        Plan {
            name: "digits".to_owned(),
            rounds: 3,
            seed: 0,
            keep_updates: Keep::Round,
            keep_models: Keep::Round,
            init: Init::Trainer,
            strategy: StrategySpec { kind, clip: None },
            cohort: CohortSpec {
                min: 2,
                fraction: 0.5,
                quorum: 0.8,
                deadline: Some(Span::from_secs(60)),
                attempts: 3,
                examples_max: 1e9,
            },
            trainer: Some("mlp".to_owned()),
            app: None,
            init_config: ConfigMap::from([("seed".to_owned(), ConfigValue::Int(1))]),
            train_config: ConfigMap::from([("epochs".to_owned(), ConfigValue::Int(5))]),
            evaluate: None,
            stop: None,
        }
    }

    fn fold_of(plan: &Plan) -> (FoldRule, ServerStep) {
        let stages = plan.stages().unwrap();
        let fold = &stages[0].folds[0];
        (fold.rule.clone(), fold.step.clone())
    }

    #[test]
    fn training_is_one_stage_and_evaluation_another() {
        let mut plan = plan(StrategyKind::Fedavg);
        assert_eq!(plan.stages().unwrap().len(), 1);
        plan.evaluate = Some(EvaluateSpec {
            every: 5,
            metric: "accuracy".to_owned(),
            better: Better::Higher,
            config: ConfigMap::new(),
        });
        let stages = plan.stages().unwrap();
        assert_eq!((stages[0].name.as_str(), stages[0].every), ("train", 1));
        assert_eq!(stages[0].selector, Selector::Sample { fraction: 0.5, min: 2 });
        let close = CloseRule::Quorum { share: 0.8, min: 2, deadline: Some(Span::from_secs(60)) };
        assert_eq!(stages[0].close, close);
        assert_eq!(stages[0].folds[0].target, LineageName::global());
        assert_eq!((stages[1].name.as_str(), stages[1].every), ("evaluate", 5));
        assert_eq!(stages[1].selector, Selector::SameAs(stages[0].name.clone()));
        assert!(stages[1].folds.is_empty() && stages[1].outputs.is_empty());
    }

    #[test]
    fn the_first_model_comes_from_one_participant_as_it_is() {
        let init = plan(StrategyKind::Fedavg).init_stage().unwrap();
        assert_eq!((init.selector, init.inputs.len()), (Selector::One, 0));
        assert_eq!(init.folds[0].rule, FoldRule::Adopt);
        assert_eq!(init.outputs[0].like, None);
        assert_eq!(init.config["seed"], ConfigValue::Int(1));
        assert_eq!(init.config["trainer"], ConfigValue::Text("mlp".to_owned()));
    }

    #[test]
    fn every_strategy_is_a_fold_and_a_step() {
        let spec = AdaptiveSpec { server_learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
        let adaptive =
            |kind| ServerStep::Adaptive { kind, learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
        let momentum = ServerStep::Momentum { learning_rate: 1.0, momentum: 0.9 };
        let fedavgm = StrategyKind::Fedavgm { server_learning_rate: 1.0, server_momentum: 0.9 };
        let mean = || FoldRule::WeightedMean;
        for (kind, rule, step) in [
            (StrategyKind::Fedavg, mean(), ServerStep::Replace),
            (StrategyKind::Fedprox { proximal_mu: 0.1 }, mean(), ServerStep::Replace),
            (fedavgm, mean(), momentum),
            (StrategyKind::Fedadagrad(spec), mean(), adaptive(AdaptiveKind::Adagrad)),
            (StrategyKind::Fedadam(spec), mean(), adaptive(AdaptiveKind::Adam)),
            (StrategyKind::Fedyogi(spec), mean(), adaptive(AdaptiveKind::Yogi)),
            (StrategyKind::Median, FoldRule::Median, ServerStep::Replace),
            (
                StrategyKind::TrimmedMean { trim_share: 0.2 },
                FoldRule::TrimmedMean { share: 0.2 },
                ServerStep::Replace,
            ),
            (
                StrategyKind::Krum { byzantine: 1, keep: 2 },
                FoldRule::Krum { byzantine: 1, keep: 2 },
                ServerStep::Replace,
            ),
        ] {
            assert_eq!(fold_of(&plan(kind.clone())), (rule, step), "{}", kind.name());
        }
    }

    #[test]
    fn clipping_turns_a_mean_into_a_clipped_one() {
        let mut plan = plan(StrategyKind::Fedavg);
        let bound = ClipBound::NormRatio(4.0);
        plan.strategy.clip = Some(bound);
        assert_eq!(fold_of(&plan).0, FoldRule::NormClippedMean { bound });
    }

    #[test]
    fn the_proximal_term_reaches_the_trainer() {
        let stages = plan(StrategyKind::Fedprox { proximal_mu: 0.25 }).stages().unwrap();
        assert_eq!(stages[0].config["proximal_mu"], ConfigValue::Float(0.25));
        assert_eq!(stages[0].config["epochs"], ConfigValue::Int(5));
    }
}
