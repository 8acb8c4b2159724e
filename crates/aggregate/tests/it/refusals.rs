//! What is refused, in which words, and that nothing non-finite slips through unnamed.

use sheaf_aggregate::{Clip, Error, Fold, Rule, TileSet};
use sheaf_tensor::Dtype;

use crate::{Column, fold_all};

fn refusal(rule: Rule, weights: &[f64]) -> String {
    Fold::new(rule, weights).unwrap_err().to_string()
}

#[test]
fn a_cohort_that_does_not_fit_its_rule_is_refused() {
    let krum = |byzantine, keep| Rule::Krum { byzantine, keep };
    let trimmed = |share| Rule::TrimmedMean { share };
    let clipped = |clip| Rule::NormClippedMean(clip);
    let cases = [
        (Rule::WeightedMean, 0, "a fold needs at least one update"),
        (krum(1, 1), 4, "krum with 1 faulty updates needs 5 updates, got 4"),
        (krum(u32::MAX, 1), 9, "krum with 4294967295 faulty updates needs 8589934593 updates, got 9"),
        (krum(0, 0), 3, "krum cannot keep 0 of 3 updates"),
        (krum(0, 4), 3, "krum cannot keep 4 of 3 updates"),
        (trimmed(0.5), 3, "a trimmed share of 0.5 is not in [0, 0.5)"),
        (trimmed(-0.1), 3, "a trimmed share of -0.1 is not in [0, 0.5)"),
        (trimmed(f64::NAN), 3, "a trimmed share of NaN is not in [0, 0.5)"),
        (clipped(Clip::NormRatio(0.0)), 3, "a clip bound of 0 is not a positive finite number"),
        (clipped(Clip::NormMax(f64::INFINITY)), 3, "a clip bound of inf is not a positive finite number"),
    ];
    for (rule, num_updates, expected) in cases {
        assert_eq!(refusal(rule, &vec![1.0; num_updates]), expected);
    }
}

#[test]
fn a_weight_that_is_no_positive_number_is_named() {
    for (weight, text) in [(0.0, "0"), (-2.5, "-2.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let expected = format!("the weight {text} of update 1 is not a positive finite number");
        assert_eq!(refusal(Rule::Median, &[1.0, weight, 1.0]), expected);
    }
    assert_eq!(refusal(Rule::WeightedMean, &[f64::MAX, f64::MAX]), "the sum of the weights is not finite");
}

#[test]
fn tiles_that_do_not_agree_are_refused() {
    let fold = Fold::new(Rule::WeightedMean, &[1.0, 1.0]).unwrap();
    let message = |rows: &[&[u8]], base| {
        let tiles = TileSet { dtype: Dtype::F32, rows, base };
        fold.fold(&tiles, &mut [0.0; 2]).unwrap_err().to_string()
    };
    let (one, two): (&[u8], &[u8]) = (&[0; 4], &[0; 8]);
    assert_eq!(message(&[two], None), "expected a tile of each of 2 updates, got 1");
    assert_eq!(message(&[two, one], None), "the tile of update 1 has 4 bytes where 8 are expected");
    assert_eq!(message(&[&[0; 5], one], None), "the tile of update 0 has 5 bytes where 4 are expected");
    assert_eq!(
        message(&[two, two], Some(one)),
        "the tile of the current model has 4 bytes where 8 are expected"
    );
    assert_eq!(message(&[one, one], None), "the output has 2 places for 1 elements");
}

#[test]
fn the_prepass_comes_first_and_once() {
    let rows: [&[u8]; 3] = [&[1], &[2], &[3]];
    let tiles = TileSet { dtype: Dtype::U8, rows: &rows, base: Some(&[0]) };
    let krum = Rule::Krum { byzantine: 0, keep: 1 };
    for rule in [Rule::NormClippedMean(Clip::NormMax(1.0)), krum, Rule::GeometricMedian] {
        let mut fold = Fold::new(rule, &[1.0; 3]).unwrap();
        assert!(fold.needs_prepass());
        assert_eq!(fold.fold(&tiles, &mut [0.0]), Err(Error::NotSealed));
        fold.observe(&tiles).unwrap();
        fold.seal().unwrap();
        assert_eq!(fold.observe(&tiles), Err(Error::Sealed));
        assert_eq!(fold.seal(), Err(Error::Sealed));
        fold.fold(&tiles, &mut [0.0]).unwrap();
    }
    let mut fold = Fold::new(Rule::NormClippedMean(Clip::NormMax(1.0)), &[1.0; 3]).unwrap();
    assert_eq!(fold.observe(&TileSet { base: None, ..tiles }), Err(Error::MissingBase));
}

#[test]
fn a_value_that_is_not_finite_is_named_or_propagates() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut rows = vec![vec![1.0; 70]; 5];
        rows[3][66] = bad;
        let columns = [Column::f64(&[0.0; 70], &rows)];
        let fold = |rule| fold_all(rule, &[1.0; 5], &columns, 1 << 20);
        let named = Err(Error::NonFinite { row: 3, element: 66 });
        assert_eq!(fold(Rule::Median), named);
        assert_eq!(fold(Rule::TrimmedMean { share: 0.4 }), named);
        assert_eq!(fold(Rule::Krum { byzantine: 1, keep: 1 }), named);
        assert_eq!(fold(Rule::NormClippedMean(Clip::NormRatio(2.0))), named);
        assert_eq!(fold(Rule::GeometricMedian), named);
        let mean = fold(Rule::WeightedMean).unwrap().tensors.concat();
        assert!(!mean[66].is_finite());
        assert_eq!(mean.iter().filter(|value| !value.is_finite()).count(), 1);
    }
    let mut base = vec![0.0; 9];
    base[8] = f64::NAN;
    let columns = [Column::f64(&base, &[vec![1.0; 9]])];
    let clipped = fold_all(Rule::NormClippedMean(Clip::NormMax(1.0)), &[1.0], &columns, 64);
    assert_eq!(clipped.unwrap_err().to_string(), "the current model is not finite at element 8 of the tile");
}

#[test]
fn a_distance_beyond_f64_is_refused_by_name() {
    let far = [Column::f64(&[0.0; 3], &[vec![1.0; 3], vec![1.0; 3], vec![1.0, 1e200, 1.0]])];
    let clipped = fold_all(Rule::NormClippedMean(Clip::NormRatio(1.0)), &[1.0; 3], &far, 64);
    assert_eq!(clipped.unwrap_err().to_string(), "the distance of update 2 overflows");
    let krum = fold_all(Rule::Krum { byzantine: 0, keep: 1 }, &[1.0; 3], &far, 64);
    assert!(matches!(krum, Err(Error::DistanceOverflow { .. })));
    let median = fold_all(Rule::GeometricMedian, &[1.0; 3], &far, 64);
    assert!(matches!(median, Err(Error::DistanceOverflow { .. })));
}

#[test]
fn an_empty_tile_folds_to_nothing() {
    let empty: [&[u8]; 2] = [&[], &[]];
    for rule in [Rule::WeightedMean, Rule::Median, Rule::TrimmedMean { share: 0.1 }] {
        let fold = Fold::new(rule, &[1.0; 2]).unwrap();
        fold.fold(&TileSet { dtype: Dtype::F32, rows: &empty, base: None }, &mut []).unwrap();
    }
    let folded = fold_all(Rule::NormClippedMean(Clip::NormRatio(1.0)), &[1.0; 2], &[], 64).unwrap();
    assert_eq!(folded.scales, [1.0, 1.0]);
}
