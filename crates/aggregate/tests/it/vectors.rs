//! Agreement with the folds as NumPy computes them; `testdata/README.md` tells how the vectors are made.

use serde::Deserialize;
use sheaf_aggregate::{Clip, Rule};
use sheaf_tensor::Dtype;

use crate::{Column, close, fold_all};

#[derive(Deserialize)]
struct Case {
    name: String,
    rule: RuleText,
    weights: Vec<String>,
    tensors: Vec<TensorText>,
    scales: Vec<String>,
    selected: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
enum RuleText {
    WeightedMean,
    NormClippedMean { bound: BoundText },
    Median,
    TrimmedMean { share: f64 },
    Krum { byzantine: u32, keep: u32 },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum BoundText {
    NormRatio(f64),
    NormMax(f64),
}

#[derive(Deserialize)]
struct TensorText {
    dtype: String,
    base: String,
    rows: Vec<String>,
    expected: Vec<String>,
}

impl RuleText {
    fn rule(&self) -> Rule {
        match *self {
            RuleText::WeightedMean => Rule::WeightedMean,
            RuleText::NormClippedMean { bound: BoundText::NormRatio(ratio) } => {
                Rule::NormClippedMean(Clip::NormRatio(ratio))
            }
            RuleText::NormClippedMean { bound: BoundText::NormMax(bound) } => {
                Rule::NormClippedMean(Clip::NormMax(bound))
            }
            RuleText::Median => Rule::Median,
            RuleText::TrimmedMean { share } => Rule::TrimmedMean { share },
            RuleText::Krum { byzantine, keep } => Rule::Krum { byzantine, keep },
        }
    }
}

impl TensorText {
    fn column(&self) -> Column {
        Column {
            dtype: Dtype::from_name(&self.dtype).unwrap(),
            base: bytes(&self.base),
            rows: self.rows.iter().map(|row| bytes(row)).collect(),
        }
    }
}

#[test]
fn every_fold_agrees_with_numpy() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../testdata/vectors.json")).unwrap();
    assert_eq!(cases.len(), 56);
    for case in cases {
        check(&case);
    }
}

fn check(case: &Case) {
    let rule = case.rule.rule();
    let exact = matches!(rule, Rule::Median | Rule::Krum { keep: 1, .. });
    let agrees = |a: f64, b: f64| if exact { a == b } else { close(a, b) };
    let columns: Vec<Column> = case.tensors.iter().map(TensorText::column).collect();
    let folded = fold_all(rule, &numbers(&case.weights), &columns, 64).unwrap();
    assert_eq!(folded.selected, case.selected, "{}", case.name);
    for (scale, expected) in folded.scales.iter().zip(numbers(&case.scales)) {
        assert!(
            (scale - expected).abs() <= 1e-12 * expected,
            "{}: scale {scale}, NumPy {expected}",
            case.name
        );
    }
    for (tensor, text) in folded.tensors.iter().zip(&case.tensors) {
        let expected = numbers(&text.expected);
        assert_eq!(tensor.len(), expected.len(), "{}", case.name);
        for (value, expected) in tensor.iter().zip(expected) {
            assert!(
                agrees(*value, expected),
                "{} of {}: {value:?}, NumPy {expected:?}",
                case.name,
                text.dtype
            );
        }
    }
}

pub(crate) fn numbers(texts: &[String]) -> Vec<f64> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
