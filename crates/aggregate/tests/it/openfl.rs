//! Agreement with OpenFL's own aggregation functions; `testdata/README.md` tells how the vectors are made.

use serde::Deserialize;
use sheaf_aggregate::Rule;
use sheaf_tensor::Dtype;

use crate::vectors::{bytes, numbers};
use crate::{Column, fold_all};

#[derive(Deserialize)]
struct Case {
    name: String,
    rule: RuleText,
    weights: Vec<String>,
    rows: Vec<String>,
    expected: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RuleText {
    GeometricMedian,
    CompatibleSum,
    CompatibleMean,
}

#[test]
fn every_fold_agrees_with_openfl() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../testdata/openfl_vectors.json")).unwrap();
    assert_eq!(cases.len(), 81);
    for case in cases {
        check(&case);
    }
}

fn check(case: &Case) {
    let rule = match case.rule {
        RuleText::GeometricMedian => Rule::GeometricMedian,
        RuleText::CompatibleSum => Rule::CompatibleSum,
        RuleText::CompatibleMean => Rule::CompatibleMean,
    };
    let rows: Vec<Vec<u8>> = case.rows.iter().map(|row| bytes(row)).collect();
    let column = Column { dtype: Dtype::F32, base: vec![0; rows[0].len()], rows };
    let folded = fold_all(rule, &numbers(&case.weights), &[column], 64).unwrap();
    let expected = numbers(&case.expected);
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let may_differ_by = if rule == Rule::GeometricMedian { 1e-9 * largest } else { 0.0 };
    assert_eq!(folded.tensors[0].len(), expected.len(), "{}", case.name);
    for (value, expected) in folded.tensors[0].iter().zip(expected) {
        assert!((value - expected).abs() <= may_differ_by, "{}: {value:?}, OpenFL {expected:?}", case.name);
    }
}
