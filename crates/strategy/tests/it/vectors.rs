//! Agreement with NumPy, with Flower and with OpenFL over several rounds; `testdata/README.md` tells how the vectors are made.

use std::collections::BTreeMap;

use serde::Deserialize;
use sheaf_aggregate::{Fold, TileSet};
use sheaf_domain::{FoldRule, ServerStep};
use sheaf_strategy::{ServerOptimiser, fold_rule};
use sheaf_tensor::Dtype;

#[derive(Deserialize)]
struct Case {
    name: String,
    rule: FoldRule,
    step: ServerStep,
    start: Vec<String>,
    rounds: Vec<Round>,
    moments: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Round {
    weights: Vec<String>,
    updates: Vec<Vec<String>>,
    expected: Vec<String>,
}

#[test]
fn every_strategy_agrees_with_numpy() {
    check_all(include_str!("../../testdata/vectors.json"), 21);
}

#[test]
fn every_server_optimiser_agrees_with_flower() {
    check_all(include_str!("../../testdata/flower_vectors.json"), 9);
}

#[test]
fn every_optimiser_of_gradients_agrees_with_openfl() {
    check_all(include_str!("../../testdata/openfl_vectors.json"), 6);
}

fn check_all(text: &str, expected_cases: usize) {
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    assert_eq!(cases.len(), expected_cases);
    for case in cases {
        check(&case);
    }
}

fn check(case: &Case) {
    let mut model = numbers(&case.start);
    let mut moments: Vec<Vec<f64>> = Vec::new();
    let mut names: &[&str] = &[];
    for (round, text) in (1..).zip(&case.rounds) {
        let optimiser = ServerOptimiser::new(&case.step, round).unwrap();
        names = optimiser.moments();
        moments.resize(names.len(), vec![optimiser.start(); model.len()]);
        let folded = fold(&case.rule, text, &model);
        let mut slices: Vec<&mut [f64]> = moments.iter_mut().map(Vec::as_mut_slice).collect();
        let mut next = vec![f64::NAN; model.len()];
        optimiser.step(&model, &folded, &mut slices, &mut next).unwrap();
        model = next;
        assert_close(&model, &text.expected, &format!("{}, round {round}", case.name));
    }
    for (name, expected) in &case.moments {
        let idx = names.iter().position(|known| known == name).unwrap();
        assert_close(&moments[idx], expected, &format!("{}, moment {name}", case.name));
    }
}

fn fold(rule: &FoldRule, round: &Round, model: &[f64]) -> Vec<f64> {
    let bytes = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let updates: Vec<Vec<u8>> = round.updates.iter().map(|update| bytes(&numbers(update))).collect();
    let rows: Vec<&[u8]> = updates.iter().map(Vec::as_slice).collect();
    let base = bytes(model);
    let tiles = TileSet { dtype: Dtype::F64, rows: &rows, base: Some(&base) };
    let mut fold = Fold::new(fold_rule(rule, "x").unwrap(), &numbers(&round.weights)).unwrap();
    while fold.needs_prepass() {
        fold.observe(&tiles).unwrap();
        fold.seal().unwrap();
    }
    let mut out = vec![f64::NAN; model.len()];
    fold.fold(&tiles, &mut out).unwrap();
    out
}

fn assert_close(values: &[f64], expected: &[String], what: &str) {
    assert_eq!(values.len(), expected.len(), "{what}");
    for (value, expected) in values.iter().zip(numbers(expected)) {
        let close = (value - expected).abs() <= 1e-12 * expected.abs().max(1.0);
        assert!(close, "{what}: {value:?}, reference {expected:?}");
    }
}

fn numbers(texts: &[String]) -> Vec<f64> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
