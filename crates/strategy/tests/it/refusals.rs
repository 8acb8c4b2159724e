//! Parameters and slices that are refused, in which words and as which kind.

use sheaf_domain::{AdaptiveKind, ClipBound, ErrorKind, FoldRule, GradientOptimiser, ServerStep};
use sheaf_strategy::{Error, ServerOptimiser, fold_rule};

fn refusal(step: &ServerStep) -> String {
    let error = ServerOptimiser::new(step, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    error.to_string()
}

#[test]
fn a_parameter_out_of_range_is_named() {
    let momentum = |learning_rate, momentum| ServerStep::Momentum { learning_rate, momentum };
    let adam = |learning_rate, beta1, beta2, tau| ServerStep::Adaptive {
        kind: AdaptiveKind::Adam,
        learning_rate,
        beta1,
        beta2,
        tau,
    };
    let gradient = |start, epsilon| ServerStep::Told {
        as_difference: true,
        codec: None,
        optimiser: Some(GradientOptimiser::Adagrad { learning_rate: 0.1, start, epsilon }),
    };
    let cases = [
        (gradient(-0.1, 1.0), "start is -0.1, but must be finite and at least 0"),
        (gradient(0.1, 0.0), "epsilon is 0, but must be positive and finite"),
        (momentum(0.0, 0.9), "server learning rate is 0, but must be positive and finite"),
        (momentum(f64::NAN, 0.9), "server learning rate is NaN, but must be positive and finite"),
        (momentum(1.0, 1.0), "server momentum is 1, but must be in [0, 1)"),
        (
            adam(f64::INFINITY, 0.9, 0.99, 1e-3),
            "server learning rate is inf, but must be positive and finite",
        ),
        (adam(0.1, -0.1, 0.99, 1e-3), "beta1 is -0.1, but must be in [0, 1)"),
        (adam(0.1, 0.9, 1.0, 1e-3), "beta2 is 1, but must be in [0, 1)"),
        (adam(0.1, 0.9, 0.99, 0.0), "tau is 0, but must be positive and finite"),
    ];
    for (step, expected) in cases {
        assert_eq!(refusal(&step), expected);
    }
}

#[test]
fn slices_that_do_not_agree_are_refused_and_nothing_is_written() {
    let optimiser =
        ServerOptimiser::new(&ServerStep::Momentum { learning_rate: 1.0, momentum: 0.9 }, 1).unwrap();
    let (mut m, mut short, mut next) = ([7.0; 3], [7.0; 2], [7.0; 3]);
    let missing = optimiser.step(&[0.0; 3], &[1.0; 3], &mut [], &mut next);
    assert_eq!(missing, Err(Error::Moments { expected: 1, got: 0 }));
    let moment = optimiser.step(&[0.0; 3], &[1.0; 3], &mut [&mut short], &mut next);
    assert_eq!(moment.unwrap_err().to_string(), "m has 2 elements where 3 are expected");
    let folded = optimiser.step(&[0.0; 3], &[1.0; 4], &mut [&mut m], &mut next);
    assert_eq!(folded.unwrap_err().to_string(), "folded has 4 elements where 3 are expected");
    let output = optimiser.step(&[0.0; 3], &[1.0; 3], &mut [&mut m], &mut short);
    assert_eq!(output, Err(Error::Length { what: "next", expected: 3, got: 2 }));
    assert_eq!((m, short, next), ([7.0; 3], [7.0; 2], [7.0; 3]));
}

#[test]
fn every_rule_of_a_plan_has_its_fold() {
    use sheaf_aggregate::{Clip, Rule};
    let clip = |bound| FoldRule::NormClippedMean { bound };
    let cases = [
        (FoldRule::WeightedMean, Rule::WeightedMean),
        (clip(ClipBound::NormRatio(4.0)), Rule::NormClippedMean(Clip::NormRatio(4.0))),
        (clip(ClipBound::NormMax(2.0)), Rule::NormClippedMean(Clip::NormMax(2.0))),
        (FoldRule::CompatibleMean, Rule::CompatibleMean),
        (FoldRule::GeometricMedian, Rule::GeometricMedian),
        (FoldRule::Median, Rule::Median),
        (FoldRule::TrimmedMean { share: 0.2 }, Rule::TrimmedMean { share: 0.2 }),
        (FoldRule::Krum { byzantine: 1, keep: 2 }, Rule::Krum { byzantine: 1, keep: 2 }),
    ];
    for (rule, expected) in cases {
        assert_eq!(fold_rule(&rule, "w"), Ok(expected));
    }
    assert_eq!(fold_rule(&FoldRule::Adopt, "w"), Err(Error::Adopts));
    let sums = FoldRule::CompatibleMeanAndSum { summed: vec!["_u".to_owned(), "_v".to_owned()] };
    for (tensor, expected) in
        [("a_u", Rule::CompatibleSum), ("_v", Rule::CompatibleSum), ("u", Rule::CompatibleMean)]
    {
        assert_eq!(fold_rule(&sums, tensor), Ok(expected), "{tensor}");
    }
}

#[test]
fn a_failed_fold_keeps_its_reason_and_kind() {
    let inner = sheaf_aggregate::Error::TooFewUpdates { byzantine: 1, needed: 5, got: 4 };
    let error = Error::from(inner.clone());
    assert_eq!((error.to_string().as_str(), error.kind()), ("the fold failed", ErrorKind::Conflict));
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), inner.to_string());
}
